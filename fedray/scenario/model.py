"""`model`: what is learned."""

from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Count, FilePath, Fraction, Positive, Section

Resolution = Annotated[int, Field(ge=8, le=8192)]
Layers = Annotated[int, Field(ge=1, le=1000)]
MOST_WIDE = 65_536  # numbers a token, or channels


class TextToImage(Section):
    """A Stable Diffusion fine-tuned on captioned images."""

    kind: Literal["text_to_image"]
    base: FilePath  # a shipped model, a folder in diffusers' layout, or owner/name on the Hugging Face hub
    resolution: Resolution | None = None  # pixels a side; the base model's own
    min_snr_gamma: Positive | None = None  # Hang et al. 2023: weight min(snr, gamma) / snr
    caption_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Classifier(Section):
    """Images to labels. cnn: two convolutions of 32 and 64, a dense layer of 128; resnet18: torchvision's."""

    kind: Literal["classifier"]
    network: Literal["cnn", "resnet18"] = "cnn"
    # of resnet18; group: GroupNorm, which does not average over a batch
    norm: Literal["batch", "group"] = "batch"
    resolution: Annotated[int, Field(ge=16, le=8192)] | None = None  # pixels a side; the data's own


class Diffusion(Section):
    """Unconditional DDPM (Ho et al. 2020) on diffusers' UNet2DModel, betas rising in a line. The network that
    is given is that of diffusers' unconditional training example, which Chen 2023 trains: 113,673,219
    parameters."""

    kind: Literal["diffusion"]
    resolution: Resolution | None = None  # pixels a side; the data's own
    channels: Annotated[
        list[Annotated[int, Field(ge=32, le=MOST_WIDE, multiple_of=32)]], Field(min_length=2, max_length=12)
    ] = [128, 128, 256, 256, 512, 512]
    attention: list[Annotated[int, Field(ge=0)]] = [4]  # levels with self-attention, from 0
    layers: Layers = 2  # residual blocks a level
    timesteps: Count = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    # CollaFuse (Allmendinger et al. 2024): two such networks, one for timesteps below this and one for those
    # from it on, which sees images only as noised up to it. Cut behind `client`, the first is the clients'
    # and the second the server's.
    server_from: Count | None = None
    # The server's moving average of the global model over rounds, which is what is looked at and exported;
    # its decay rises to this as (1 + t) / (10 + t), t rounds behind it.
    ema_decay: Fraction | None = None


class Transformer(Section):
    """A transformer with weights drawn from the seed, on transformers' own networks: BERT (masked_language;
    Devlin et al. 2019), GPT-2 (causal_language), ViT (classification; Dosovitskiy et al. 2021; masked_image:
    SimMIM, Xie et al. 2022)."""

    kind: Literal["transformer"]
    objective: Literal["masked_language", "causal_language", "classification", "masked_image"]
    # numbers a token; feed-forward layers have four times as many
    width: Annotated[int, Field(ge=1, le=MOST_WIDE)] = 128
    layers: Layers = 4
    heads: Count = 4
    dropout: Fraction = 0.0
    # share of tokens or patches; 0.15 of a text, 0.5 of an image
    masked: Annotated[float, Field(gt=0, lt=1)] | None = None
    patch: Count = 4  # pixels a side, of images
    resolution: Resolution | None = None  # pixels a side; the data's own

    @property
    def of_text(self) -> bool:
        return self.objective in ("masked_language", "causal_language")

    @property
    def writes(self) -> bool:
        """Whether it goes on from prompts."""
        return self.objective == "causal_language"


Model = Annotated[TextToImage | Classifier | Diffusion | Transformer, Field(discriminator="kind")]
