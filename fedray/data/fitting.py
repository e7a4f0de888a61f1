"""How images become as large as a model wants them: cut, padded, or cut as little as one of several shapes
allows."""

from collections.abc import Sequence
from math import log

from PIL import Image, ImageOps

Size = tuple[int, int]  # width and height in pixels


def fitted(image: Image.Image, size: Size, pad: bool = False) -> Image.Image:
    """An image scaled to a size: its middle, cut out, or all of it on white.

    Args:
        image: in mode L or RGB.
        size: that it shall have.
        pad: whether all of it is to be seen.
    """
    if pad:
        return ImageOps.pad(image, size, Image.Resampling.BICUBIC, color="white")
    return ImageOps.fit(image, size, Image.Resampling.BICUBIC)


def buckets(side: int, step: int) -> list[Size]:
    """Shapes of at most as many pixels as a square has, from twice as wide as it to twice as high (Podell et
    al. 2023, Appendix I): for each long side the longest short one.

    Args:
        side: of the square; a multiple of `step`.
        step: that all sides are multiples of.
    """
    wide = [(long, side * side // long // step * step) for long in range(side, 2 * side + 1, step)]
    wide = [(long, short) for long, short in wide if short]
    return sorted({*wide, *((short, long) for long, short in wide)})


def nearest(size: Size, shapes: Sequence[Size]) -> int:
    """The number of the shape whose ratio of sides is nearest to an image's; the first of several."""
    ratio = log(size[0] / size[1])
    return min(range(len(shapes)), key=lambda i: abs(log(shapes[i][0] / shapes[i][1]) - ratio))
