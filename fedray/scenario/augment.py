"""`data.augment`: how images are changed at random each time they are trained on."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Count, NotNegative, Positive, Refused
from fedray.scenario.kinds import KindSection, OpenKind

Probability = Annotated[float, Field(gt=0, le=1)]
Level = Annotated[int, Field(ge=0, le=255)]
Pair = Annotated[list[Positive], Field(min_length=2, max_length=2)]
SIDE_RATIOS = [3 / 4, 4 / 3]
MOST_HUE = 0.5  # of a turn of the colour circle, which is all of it


class AugmentSection(KindSection):
    """A change of images at random. Each image draws its own, in every step anew; test images stay as they
    are."""

    kind: str = Field(description="What is changed.")

    # whether an image becomes no other than itself or its mirror image, so that both may be encoded once
    mirrors: ClassVar[bool] = False


class Flip(AugmentSection):
    """Mirrored, left to right. `flip` alone, or `{flip: 0.3}`."""

    kind: Literal["flip"] = Field(description="flip: mirrored, left to right.")
    probability: Probability = Field(default=0.5, description="Of an image, to be mirrored.")

    implementation: ClassVar[str] = "fedray.data.augment:Flip"
    short: ClassVar[str | None] = "probability"
    mirrors: ClassVar[bool] = True


class Crop(AugmentSection):
    """Padded on all sides, and cut to its size again at a random place (He et al. 2016, of CIFAR-10 with
    4 pixels). `{crop: 4}`."""

    kind: Literal["crop"] = Field(description="crop: shifted, by a cut out of the padded image.")
    padding: Count = Field(description="Pixels on each side.")
    fill: Level | Literal["reflect"] = Field(
        default=0, description="The padding: a level of all channels. reflect: the image, reflected."
    )

    implementation: ClassVar[str] = "fedray.data.augment:Crop"
    short: ClassVar[str | None] = "padding"
    cites: ClassVar[tuple[str, ...]] = ("he2016deep",)


class ResizeCrop(AugmentSection):
    """A random part, scaled to the image's size (Szegedy et al. 2015). `{resize_crop: [0.5, 1]}`."""

    kind: Literal["resize_crop"] = Field(description="resize_crop: a random part, scaled up.")
    scale: Pair = Field(default=[0.08, 1.0], description="The least and the most of its area, up to 1.")
    ratio: Pair = Field(
        default=SIDE_RATIOS, description="The least and the most of the part's width by height."
    )

    implementation: ClassVar[str] = "fedray.data.augment:ResizeCrop"
    short: ClassVar[str | None] = "scale"
    cites: ClassVar[tuple[str, ...]] = ("szegedy2015going",)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        for name, pair in (("scale", self.scale), ("ratio", self.ratio)):
            if pair[0] > pair[1]:
                yield Refused(f".{name}", pair, "the smaller number first")
        if self.scale[1] > 1:
            yield Refused(".scale", self.scale, "at most 1, the whole image")


class Rotate(AugmentSection):
    """Turned around its middle. `{rotate: 10}`."""

    kind: Literal["rotate"] = Field(description="rotate: turned around its middle.")
    degrees: Annotated[float, Field(gt=0, le=180)] = Field(description="At most, to either side.")
    fill: Level = Field(default=0, description="The level of what comes into the picture.")

    implementation: ClassVar[str] = "fedray.data.augment:Rotate"
    short: ClassVar[str | None] = "degrees"


class ColorJitter(AugmentSection):
    """Brightness, contrast, saturation and hue changed, in a random order, as torchvision's ColorJitter.
    `{color_jitter: {brightness: 0.2, contrast: 0.2}}`."""

    kind: Literal["color_jitter"] = Field(description="color_jitter: other brightness, contrast and colours.")
    brightness: NotNegative = Field(default=0, description="By a factor of at most 1 more or less this.")
    contrast: NotNegative = Field(default=0, description="The same.")
    saturation: NotNegative = Field(default=0, description="The same; of colour images.")
    hue: Annotated[float, Field(ge=0, le=MOST_HUE)] = Field(
        default=0, description="At most, to either side, of a turn of the colour circle; of colour images."
    )

    implementation: ClassVar[str] = "fedray.data.augment:ColorJitter"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if not (self.brightness or self.contrast or self.saturation or self.hue):
            yield Refused(".kind", "color_jitter of nothing", "one of brightness, contrast, saturation, hue")


AnyAugment = Annotated[
    Flip | Crop | ResizeCrop | Rotate | ColorJitter,
    Discriminator("kind"),
    OpenKind("augment", plain=True, short=True),
]
