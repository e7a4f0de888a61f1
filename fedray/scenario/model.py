"""`model`: what is learned."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.agent import Agent
from fedray.scenario.base import Count, Fraction, Refused
from fedray.scenario.codec import Codec
from fedray.scenario.gan import Gan
from fedray.scenario.kinds import OpenKind
from fedray.scenario.language_model import LanguageModel
from fedray.scenario.model_section import MOST_WIDE, Generates, Layers, ModelSection, Resolution
from fedray.scenario.text_to_image import TextToImage
from fedray.scenario.vae import Vae


class Classifier(ModelSection):
    """A network from images to labels, with weights drawn from the seed. It has one part, network."""

    kind: Literal["classifier"] = Field(description="classifier: images to labels.")
    network: Literal["cnn", "cnn_norm", "lenet", "resnet18"] = Field(
        default="cnn",
        description="cnn: two convolutions of 32 and 64 channels and a dense layer of 128. cnn_norm: the "
        "same with a normalisation layer behind each convolution. lenet: three convolutions of 12 channels "
        "with sigmoids, weights uniform in -0.5..0.5, whose updates are easily inverted (Zhu et al. 2019). "
        "resnet18: torchvision's ResNet-18.",
    )
    norm: Literal["batch", "group"] = Field(
        default="batch",
        description="The normalisation layers of resnet18 and cnn_norm. batch: BatchNorm. group: GroupNorm, "
        "which does not average over a batch.",
    )
    resolution: Annotated[int, Field(ge=16, le=8192)] | None = Field(
        default=None, description="Width and height of images in pixels. None: the data's own."
    )

    implementation: ClassVar[str] = "fedray.learners.classifier:Classifier"
    hub_task: ClassVar[str | None] = "image-classification"
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_classifier"
    tunable_parts: ClassVar[tuple[str, ...] | None] = ("network",)
    checkpoints_gradients: ClassVar[bool] = False
    learns_labels: ClassVar[bool] = True
    inverts_updates: ClassVar[bool] = True

    @property
    def normalizes_batches(self) -> bool:
        return self.network in ("resnet18", "cnn_norm") and self.norm == "batch"

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.network == "lenet":
            yield "zhu2019deep"
        if self.network == "resnet18":
            yield "he2016deep"
        if self.network in ("resnet18", "cnn_norm"):
            yield "ioffe2015batch" if self.norm == "batch" else "wu2018group"


class Diffusion(ModelSection):
    """Unconditional DDPM (Ho et al. 2020) on diffusers' UNet2DModel, whose betas rise linearly. The default
    network is that of diffusers' example of unconditional training, which Chen 2023 trains: 113,673,219
    parameters. It has one part, unet."""

    kind: Literal["diffusion"] = Field(description="diffusion: an unconditional DDPM.")
    resolution: Resolution | None = Field(
        default=None, description="Width and height of images in pixels. None: the data's own."
    )
    channels: Annotated[
        list[Annotated[int, Field(ge=32, le=MOST_WIDE, multiple_of=32)]], Field(min_length=2, max_length=12)
    ] = Field(
        default=[128, 128, 256, 256, 512, 512],
        description="Channels of each level of the U-Net, multiples of 32; each level but the last halves "
        "the resolution.",
    )
    attention: list[Annotated[int, Field(ge=0)]] = Field(
        default=[4], description="The levels with self-attention, counted from 0."
    )
    layers: Layers = Field(default=2, description="Residual blocks per level.")
    timesteps: Count = Field(default=1000, description="Steps of the diffusion, from image to noise.")
    beta_start: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=1e-4, description="The variance of the noise that the first step adds."
    )
    beta_end: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.02, description="The variance of the noise that the last step adds."
    )
    server_from: Count | None = Field(
        default=None,
        description="CollaFuse (Allmendinger et al. 2024): two such networks, one for the timesteps below "
        "this one, and one for those from it on, which sees only images that are noised up to it. In a "
        "split with cut: client, the first is the clients' and the second the server's. None: one network.",
    )
    ema_decay: Fraction | None = Field(
        default=None,
        description="Keep an exponential moving average of the global model over rounds at the server, and "
        "evaluate and export that. Its decay rises to this value as (1 + t) / (10 + t) after t rounds. "
        "None: no average.",
    )

    implementation: ClassVar[str] = "fedray.learners.diffusion:Diffusion"
    hub_task: ClassVar[str | None] = "unconditional-image-generation"
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_diffusion"
    tunable_parts: ClassVar[tuple[str, ...] | None] = ("unet",)
    generates: ClassVar[Generates | None] = "images"
    evaluates_on_test_set: ClassVar[bool] = False

    cites: ClassVar[tuple[str, ...]] = ("ho2020denoising", "song2021denoising")

    @property
    def cuts_by_timestep(self) -> bool:  # type: ignore[override]
        return self.server_from is not None

    @property
    def denoises(self) -> bool:  # type: ignore[override]
        return self.server_from is None

    def implemented_by(self) -> str:
        return "fedray.learners.collafuse:CollaFuse" if self.server_from else self.implementation

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.server_from is not None:
            yield "allmendinger2024collafuse"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        levels = len(self.channels)
        usual = type(self).model_fields["attention"].default
        if self.attention != usual and max(self.attention, default=0) >= levels:
            expected = f"levels below {levels}, the number of model.channels"
            yield Refused(".attention", self.attention, expected)
        if self.beta_start > self.beta_end:
            yield Refused(".beta_start", self.beta_start, f"at most model.beta_end, {self.beta_end:g}")
        if self.server_from is not None and self.server_from >= self.timesteps:
            yield Refused(
                ".server_from", self.server_from, f"a timestep before the last, {self.timesteps - 1}"
            )


class Transformer(ModelSection):
    """A transformer with weights drawn from the seed, on the transformers library's own networks. It has
    one part, network."""

    kind: Literal["transformer"] = Field(description="transformer: a language model or a ViT.")
    objective: Literal["masked_language", "causal_language", "classification", "masked_image"] = Field(
        description="The network and what it learns. masked_language: BERT (Devlin et al. 2019), which "
        "fills in masked tokens. causal_language: GPT-2, which writes the next token. classification: a ViT "
        "(Dosovitskiy et al. 2021), from images to labels. masked_image: a ViT that fills in masked patches "
        "(SimMIM, Xie et al. 2022)."
    )
    width: Annotated[int, Field(ge=1, le=MOST_WIDE)] = Field(
        default=128, description="Numbers per token; feed-forward layers have four times as many."
    )
    layers: Layers = Field(default=4, description="Transformer blocks.")
    heads: Count = Field(default=4, description="Attention heads per block; a divisor of width.")
    dropout: Fraction = Field(
        default=0.0, description="The probability that a number is dropped in training."
    )
    masked: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="The share of tokens or patches that is masked. None: 0.15 of a text, 0.5 of an image.",
    )
    patch: Count = Field(
        default=4, description="Width and height in pixels of an image's patch, which is a token."
    )
    resolution: Resolution | None = Field(
        default=None, description="Width and height of images in pixels. None: the data's own."
    )

    implementation: ClassVar[str] = "fedray.learners.transformer:Transformer"
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_transformer"
    tunable_parts: ClassVar[tuple[str, ...] | None] = ("network",)

    @property
    def of_text(self) -> bool:  # type: ignore[override]
        return self.objective in ("masked_language", "causal_language")

    @property
    def generates(self) -> Generates | None:  # type: ignore[override]
        return "texts" if self.objective == "causal_language" else None

    @property
    def hub_task(self) -> str | None:  # type: ignore[override]
        tasks = {"masked_language": "fill-mask", "causal_language": "text-generation"}
        return (tasks | {"classification": "image-classification"}).get(self.objective)

    @property
    def takes_prompts(self) -> bool:  # type: ignore[override]
        return self.generates is not None

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        yield {
            "masked_language": "devlin2019bert",
            "causal_language": "radford2019language",
            "classification": "dosovitskiy2021image",
            "masked_image": "xie2022simmim",
        }[self.objective]

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if self.width % self.heads:
            yield Refused(".heads", self.heads, f"a divisor of model.width, {self.width}")
        if self.masked is not None and self.objective in ("causal_language", "classification"):
            yield Refused(".masked", self.masked, f"none for {self.objective}, which masks nothing")
        if self.resolution is not None and self.of_text:
            yield Refused(".resolution", self.resolution, "none for text; data.length is its samples' size")

    def conflicts_with_data(self, data: Any) -> Iterator[Refused]:
        if data.has_conversations:
            yield from super().conflicts_with_data(data)
        elif self.of_text and not data.of_text:
            expected = "classification or masked_image, or data.kind text"
            yield Refused(".objective", f"{self.objective} on {data.kind}", expected)
        elif data.of_text and not self.of_text:
            expected = "masked_language or causal_language, or data of images"
            yield Refused(".objective", f"{self.objective} on text", expected)


Model = Annotated[
    TextToImage | Classifier | Diffusion | Gan | Vae | Transformer | LanguageModel | Agent | Codec,
    Discriminator("kind"),
    OpenKind("learner"),
]
