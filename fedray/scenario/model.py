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
    """A Stable Diffusion that is fine-tuned on captioned images."""

    kind: Literal["text_to_image"] = Field(description="text_to_image: fine-tune a Stable Diffusion.")
    base: FilePath = Field(
        description="The model to begin with: one that ships with fedray (tiny-sd), a folder in diffusers' "
        "layout, or owner/name on the Hugging Face hub."
    )
    resolution: Resolution | None = Field(
        default=None, description="Width and height of images in pixels. None: the base model's own."
    )
    min_snr_gamma: Positive | None = Field(
        default=None,
        description="Weight the loss by min(snr, gamma) / snr, snr being a timestep's signal-to-noise ratio "
        "(Hang et al. 2023, who take 5). None: all timesteps the same.",
    )
    caption_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="The share of captions that are left empty in training, for classifier-free guidance.",
    )

    implementation: ClassVar[str] = "fedray.learners.text_to_image:TextToImage"
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_text_to_image"
    verify_files: ClassVar[str | None] = "fedray.learners.bases:verify_base"
    built_for_data: ClassVar[bool] = False
    generates: ClassVar[Generates | None] = "images"
    takes_prompts: ClassVar[bool] = True
    evaluates_on_test_set: ClassVar[bool] = False
    reads_captions: ClassVar[bool] = True


class Classifier(ModelSection):
    """A network from images to labels, with weights drawn from the seed."""

    kind: Literal["classifier"] = Field(description="classifier: images to labels.")
    network: Literal["cnn", "resnet18"] = Field(
        default="cnn",
        description="cnn: two convolutions of 32 and 64 channels and a dense layer of 128. resnet18: "
        "torchvision's ResNet-18.",
    )
    norm: Literal["batch", "group"] = Field(
        default="batch",
        description="The normalisation layers of resnet18. batch: BatchNorm. group: GroupNorm, which does "
        "not average over a batch.",
    )
    resolution: Annotated[int, Field(ge=16, le=8192)] | None = Field(
        default=None, description="Width and height of images in pixels. None: the data's own."
    )

    implementation: ClassVar[str] = "fedray.learners.classifier:Classifier"
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_classifier"


class Diffusion(ModelSection):
    """Unconditional DDPM (Ho et al. 2020) on diffusers' UNet2DModel, whose betas rise linearly. The default
    network is that of diffusers' example of unconditional training, which Chen 2023 trains: 113,673,219
    parameters."""

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
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_diffusion"
    generates: ClassVar[Generates | None] = "images"
    evaluates_on_test_set: ClassVar[bool] = False

    def learner(self) -> str:
        return "fedray.learners.collafuse:CollaFuse" if self.server_from else self.implementation


class Transformer(ModelSection):
    """A transformer with weights drawn from the seed, on the transformers library's own networks."""

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
