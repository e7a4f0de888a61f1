"""`model`: what is learned."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Count, FilePath, Fraction, Positive, Section

Resolution = Annotated[int, Field(ge=8, le=8192)]
Layers = Annotated[int, Field(ge=1, le=1000)]
MOST_WIDE = 65_536  # numbers a token, or channels
Generates = Literal["images", "texts"]


class ModelSection(Section):
    """A `model` section: what a user writes, and what others need to know of its learner without importing
    it. The defaults are those of a learner of one's own that is trained on images and measured by its loss.
    """

    implementation: ClassVar[str]  # `module:class` of the fedray.Learner
    # `module:function` of (section, the scenario's folder), without torch: the names of the stages between
    # which a split may cut, or None where only the loaded learner can tell.
    stage_names: ClassVar[str | None] = None
    # `module:function` of the same, without torch: raises Refused for a file of the model's that is missing.
    verify_files: ClassVar[str | None] = None
    # Whether its network is built for the data set's channels, size, labels or tokens.
    built_for_data: ClassVar[bool] = True
    generates: ClassVar[Generates | None] = None
    takes_prompts: ClassVar[bool] = False  # what it generates follows a text
    evaluates_on_test_set: ClassVar[bool] = True
    reads_captions: ClassVar[bool] = False  # whether samples need a caption to be trained on
    of_text: ClassVar[bool] = False  # whether its samples are tokens, not images

    def learner(self) -> str:
        """`module:class` of the learner, where that depends on what the section says."""
        return self.implementation


class TextToImage(ModelSection):
    """A Stable Diffusion fine-tuned on captioned images."""

    kind: Literal["text_to_image"]
    base: FilePath  # a shipped model, a folder in diffusers' layout, or owner/name on the Hugging Face hub
    resolution: Resolution | None = None  # pixels a side; the base model's own
    min_snr_gamma: Positive | None = None  # Hang et al. 2023: weight min(snr, gamma) / snr
    caption_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    implementation: ClassVar[str] = "fedray.learners.text_to_image:TextToImage"
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_text_to_image"
    verify_files: ClassVar[str | None] = "fedray.learners.bases:verify_base"
    built_for_data: ClassVar[bool] = False
    generates: ClassVar[Generates | None] = "images"
    takes_prompts: ClassVar[bool] = True
    evaluates_on_test_set: ClassVar[bool] = False
    reads_captions: ClassVar[bool] = True


class Classifier(ModelSection):
    """Images to labels. cnn: two convolutions of 32 and 64, a dense layer of 128; resnet18: torchvision's."""

    kind: Literal["classifier"]
    network: Literal["cnn", "resnet18"] = "cnn"
    # of resnet18; group: GroupNorm, which does not average over a batch
    norm: Literal["batch", "group"] = "batch"
    resolution: Annotated[int, Field(ge=16, le=8192)] | None = None  # pixels a side; the data's own

    implementation: ClassVar[str] = "fedray.learners.classifier:Classifier"
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_classifier"


class Diffusion(ModelSection):
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

    implementation: ClassVar[str] = "fedray.learners.diffusion:Diffusion"
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_diffusion"
    generates: ClassVar[Generates | None] = "images"
    evaluates_on_test_set: ClassVar[bool] = False

    def learner(self) -> str:
        return "fedray.learners.collafuse:CollaFuse" if self.server_from else self.implementation


class Transformer(ModelSection):
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

    implementation: ClassVar[str] = "fedray.learners.transformer:Transformer"
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_transformer"

    @property
    def of_text(self) -> bool:  # type: ignore[override]
        return self.objective in ("masked_language", "causal_language")

    @property
    def generates(self) -> Generates | None:  # type: ignore[override]
        return "texts" if self.objective == "causal_language" else None

    @property
    def takes_prompts(self) -> bool:  # type: ignore[override]
        return self.generates is not None

    @property
    def writes(self) -> bool:
        """Whether it goes on from prompts."""
        return self.generates == "texts"


Model = Annotated[TextToImage | Classifier | Diffusion | Transformer, Field(discriminator="kind")]
