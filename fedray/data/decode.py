"""An image file as a person would see it: 8 bits a channel, upright, on a white page, the first picture of a
film."""

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps

from fedray.errors import reason

# What Pillow decodes by itself: it would hand PostScript to Ghostscript. JPEG includes MPO, as phones write
# it.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
SUFFIXES = frozenset(
    {
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".gif",
        ".avif",
        ".jp2",
        ".j2k",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    }
)
# modes without colours, as Pillow names them
GREY = frozenset({"1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
# TIFF 6.0, section 8
BITS_PER_SAMPLE = 258
PHOTOMETRIC = 262
WHITE_IS_ZERO = 0


def opened(file: Path) -> Image.Image:
    """The file's image in mode RGB.

    Raises:
        ValueError: naming the file, where it cannot be read, or nothing says what is white in it.
    """
    return _opened(file, file)


def decoded(data: bytes, name: str) -> Image.Image:
    """The image of a file's bytes in mode RGB.

    Raises:
        ValueError: by the name of what they are, as `opened`.
    """
    return _opened(BytesIO(data), name)


class Header(NamedTuple):
    """What the first bytes of a file say."""

    grey: bool  # whether it has no colours
    size: tuple[int, int]  # width and height as they are stored, in pixels


def header(file: Path | BytesIO, name: object) -> Header:
    """Looks at a file's first bytes only.

    Raises:
        ValueError: by its name, where they are not those of an image.
    """
    try:
        with Image.open(file, formats=_formats()) as image:
            return Header(image.mode in GREY, image.size)
    except Exception as e:  # as below
        raise ValueError(f"{name} cannot be read as an image: {reason(e)}") from None


def verify_header(file: Path) -> None:
    """Raises ValueError, naming the file, where its first bytes are not those of an image."""
    header(file, file)


def _opened(file: Path | BytesIO, name: object) -> Image.Image:
    try:
        with Image.open(file, formats=_formats()) as image:
            return _as_seen(image)
    except Exception as e:  # decoders raise struct.error, KeyError and others for files that are damaged
        raise ValueError(f"{name} cannot be read as an image: {reason(e)}") from None


@cache
def _formats() -> list[str]:
    """Those of FORMATS that this build of Pillow knows."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _as_seen(image: Image.Image) -> Image.Image:
    if "transparency" in image.info:
        image.info["transparency"] = _scaled_colour(image)
    if image.mode.startswith("I") or image.mode == "F":
        black, white = _range(image)
        image = _eight_bits(ImageOps.exif_transpose(image), black, white)
    else:
        image = ImageOps.exif_transpose(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    page = Image.new("RGB", image.size, "white")
    image = image.convert("RGBA")
    page.paste(image, mask=image)
    return page


def _scaled_colour(image: Image.Image) -> int | tuple[int, ...] | bytes:
    """The one colour that a PNG calls transparent, in the levels that Pillow scales its pixels to: Pillow
    leaves it as stored, in 2, 4 or 16 bits, and keeps the high byte of a colour channel of 16."""
    colour = image.info["transparency"]
    stored = image.tile[0][3] if isinstance(image, ImageFile.ImageFile) and image.tile else None
    if stored == "L;2":
        return int(colour) * 85
    if stored == "L;4":
        return int(colour) * 17
    if stored == "RGB;16B":
        return tuple(channel >> 8 for channel in colour)
    return colour


def _range(image: Image.Image) -> tuple[int, int]:
    """The values of black and of white in an image of more than 8 bits a channel, which is grey."""
    if image.format in ("PNG", "PPM"):
        return 0, 65535  # Pillow scales a PGM's own maximum to this
    tags = getattr(image, "tag_v2", {})
    if not image.mode.startswith("I;16"):
        raise ValueError(
            "its pixels are signed, of 32 bits or fractions, and nothing says which of them is white"
        )
    white = 4095 if tags.get(BITS_PER_SAMPLE) == (12,) else 65535
    return (white, 0) if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else (0, white)


def _eight_bits(image: Image.Image, black: int, white: int) -> Image.Image:
    """The nearest of 256 levels (PNG specification, 13.12 Sample depth rescaling)."""
    values = np.asarray(image).astype(np.int64)
    span = abs(white - black)
    levels = (np.abs(values - black) * 255 + span // 2) // span
    grey = Image.fromarray(levels.astype(np.uint8))
    if "transparency" in image.info:
        alpha = np.where(values == image.info["transparency"], 0, 255)
        grey.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return grey
