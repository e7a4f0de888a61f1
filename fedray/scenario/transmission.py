"""`evaluation.transmission`: images over a channel, by a codec and by what it is compared with."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import FilePath, Section
from fedray.scenario.codec import Decibel

Way = Literal["linear", "jpeg", "webp", "bound", "prompt"]
WAYS: list[Way] = ["linear", "jpeg", "webp", "bound", "prompt"]


class Transmission(Section):
    """Held-out images over the codec's channel: PSNR, SSIM and the share in which a judge recognises what the
    image shows, at each signal-to-noise ratio. What a way cannot send arrives as the mean image. The numbers
    of all ways are in `samples/transmission-ROUND.json`, as a chart in `samples/round-ROUND.png`."""

    snr_db: Annotated[list[Decibel], Field(min_length=1, max_length=20)] = Field(
        default=[-5.0, 0.0, 5.0, 10.0, 15.0, 20.0],
        description="Mean signal-to-noise ratios in dB. Those outside of the range of model.channel say how "
        "the codec does where it was not trained.",
    )
    judge: FilePath = Field(
        default="shipped:garments",
        description="The classifier that looks at what arrives: a safetensors file, relative to the "
        "scenario's file, or shipped:NAME.",
    )
    beside: list[Way] = Field(
        default=WAYS,
        description="What it is compared with, in as many channel uses. linear: the linear analog codec in "
        "closed form (start: linear). jpeg, webp: the best quality that fits, of 25 images in one file, with "
        "an ideal code of the channel's capacity without fading. bound: as many bits on Gaussian sources "
        "with the images' variances (start: linear). prompt: a label and a seed, 36 bits, from which a "
        "receiver's tiny-sd paints.",
    )

    cites: ClassVar[tuple[str, ...]] = ("wang2004image",)

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if "bound" in self.beside:
            yield "cover2006elements"
