"""`evaluation.features`: in whose features generated images are compared with real ones."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from fedray.scenario.base import FilePath, Refused
from fedray.scenario.kinds import KindSection, OpenKind


class FeaturesSection(KindSection):
    """What sees features in images: FID, KID, precision and recall are distances between them."""

    kind: str = Field(description="The network.")

    # `module:function` of (section, the scenario's folder), without torch: the file or folder of its weights.
    # Raises Refused where that is not there. None: it has none
    located_by: ClassVar[str | None] = None
    reads_texts: ClassVar[bool] = False  # whether it says how well a text fits an image

    def metric(self, name: str) -> str:
        """What a metric of its features is called."""
        return f"eval_{self.kind.rpartition(':')[2].lower()}_{name}"


class Garments(FeaturesSection):
    """64 features of a small classifier of garments. Numbers compare runs of fedray with each other, not with
    papers."""

    kind: Literal["garments"] = Field(description="garments: a classifier of garments.")
    judge: FilePath = Field(
        default="shipped:garments",
        description="The classifier: a safetensors file, relative to the scenario's file, or shipped:NAME.",
    )

    implementation: ClassVar[str] = "fedray.evaluation.garment_features:GarmentFeatures"
    located_by: ClassVar[str | None] = "fedray.evaluation.feature_files:judge"

    def metric(self, name: str) -> str:
        return (
            f"eval_{'classifier_fid' if name == 'fid' else name}"  # which nobody shall take for Inception's
        )


class Inception(FeaturesSection):
    """Inception-v3 as FID is usually computed with, in torch-fidelity's conversion of TensorFlow's weights of
    2015, whose numbers are the original code's. It needs the package torch-fidelity."""

    kind: Literal["inception"] = Field(description="inception: Inception-v3, of 2048 features.")
    weights: FilePath | None = Field(
        default=None,
        description="weights-inception-2015-12-05-6726825d.pth of torch-fidelity's releases, relative to the "
        "scenario's file. None: where torch.hub keeps it once torch-fidelity has downloaded it.",
    )

    implementation: ClassVar[str] = "fedray.evaluation.inception_features:InceptionFeatures"
    located_by: ClassVar[str | None] = "fedray.evaluation.feature_files:inception"
    cites: ClassVar[tuple[str, ...]] = ("szegedy2016rethinking",)


class Pretrained(FeaturesSection):
    """A network of the transformers library."""

    weights: str = Field(description="Its folder, relative to the scenario's file, or its name on the hub.")

    located_by: ClassVar[str | None] = "fedray.evaluation.feature_files:pretrained"


class Clip(Pretrained):
    """CLIP (Radford et al. 2021): the embedding of an image, before it is made unit length. Where a model
    follows prompts, its CLIP score too (Hessel et al. 2021)."""

    kind: Literal["clip"] = Field(description="clip: the image encoder of CLIP.")
    weights: str = Field(
        default="openai/clip-vit-base-patch32",
        description="A folder with model and processor as transformers saves them, relative to the "
        "scenario's file, or a name on the hub that is in its cache; nothing is downloaded.",
    )

    implementation: ClassVar[str] = "fedray.evaluation.clip_features:ClipFeatures"
    reads_texts: ClassVar[bool] = True
    cites: ClassVar[tuple[str, ...]] = ("radford2021learning", "hessel2021clipscore")


class Dino(Pretrained):
    """DINOv2 (Oquab et al. 2024): the class token, which follows what people see better than Inception's
    features do (Stein et al. 2023)."""

    kind: Literal["dino"] = Field(description="dino: DINOv2.")
    weights: str = Field(
        default="facebook/dinov2-base",
        description="A folder with model and image processor as transformers saves them, relative to the "
        "scenario's file, or a name on the hub that is in its cache; nothing is downloaded.",
    )

    implementation: ClassVar[str] = "fedray.evaluation.dino_features:DinoFeatures"
    cites: ClassVar[tuple[str, ...]] = ("oquab2024dino", "stein2023exposing")


AnyFeatures = Annotated[
    Garments | Inception | Clip | Dino, Discriminator("kind"), OpenKind("features", plain=True)
]
SeveralFeatures = Annotated[list[AnyFeatures], Field(min_length=1)]
OneOrMore = Annotated[
    Annotated[AnyFeatures, Tag("one")] | Annotated[SeveralFeatures, Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list) else "one"),
]


def listed(features: Any) -> list[FeaturesSection]:
    """Of `evaluation.features` each."""
    if features is None:
        return []
    return list(features) if isinstance(features, list) else [features]


def conflicts(evaluation: Any) -> Iterator[Refused]:
    """What `evaluation.features` cannot go with."""
    sections = listed(evaluation.features)
    if not sections:
        return
    if evaluation.quality is None:
        expected = "evaluation.quality beside it, which says how many images are compared"
        yield Refused(".features", "some alone", expected)
    names = [section.metric("fid") for section in sections]
    if twice := [s.kind for s, name in zip(sections, names, strict=True) if names.count(name) > 1]:
        yield Refused(".features", f"{twice[0]} twice", "each kind once")
