"""Images as files of Pillow's, in as many bits as an ideal code carries: what separate source and channel
coding reaches at best, and where it falls off."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

AT_ONCE = 25  # images in one file, so that its header is shared
ROW = 5  # of them side by side
QUALITIES = {"JPEG": (1, 95), "WEBP": (0, 100)}  # Pillow's own: above 95 a JPEG only grows
OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"optimize": True}, "WEBP": {"method": 6}}  # the smallest files


class File:
    """Images [AT_ONCE, c, h, w] in 0..1 as one file in a format, by its quality; each is made once."""

    def __init__(self, images: Tensor, form: str) -> None:
        self.images = images
        self.form = form
        self.made: dict[int, tuple[int, Tensor]] = {}

    def at(self, quality: int) -> tuple[int, Tensor]:
        """Its bits, and the images that are read from it."""
        if quality not in self.made:
            page = _page(self.images)
            out = io.BytesIO()
            page.save(out, self.form, quality=quality, **OPTIONS[self.form])
            with Image.open(io.BytesIO(out.getvalue())) as image:
                self.made[quality] = (8 * len(out.getvalue()), _images(image.convert(page.mode), self.images))
        return self.made[quality]

    def best(self, bits: float) -> Tensor | None:
        """The images in the best quality whose file has at most so many bits; None where none has."""
        lowest, highest = QUALITIES[self.form]
        if self.at(lowest)[0] > bits:
            return None
        while lowest < highest:
            middle = (lowest + highest + 1) // 2
            if self.at(middle)[0] <= bits:
                lowest = middle
            else:
                highest = middle - 1
        return self.at(lowest)[1]


def coded(images: Tensor, form: str, bits: Sequence[float], fallback: Tensor) -> list[Tensor]:
    """What arrives of images [n, c, h, w] in 0..1 as files, at each budget: in the best quality that fits, or
    as the `fallback` where none does.

    Args:
        images: in files of AT_ONCE.
        form: JPEG or WEBP.
        bits: an image, one budget or several.
        fallback: an image [c, h, w].
    """
    arrived: list[list[Tensor]] = [[] for _ in bits]
    for chunk in images.split(AT_ONCE):
        file = File(chunk, form)
        for budget, some in zip(bits, arrived, strict=True):
            best = file.best(budget * len(chunk))
            some.append(fallback.expand_as(chunk) if best is None else best)
    return [torch.cat(some) for some in arrived]


def _page(images: Tensor) -> Image.Image:
    """Images in rows of ROW, the last one filled up with black."""
    n, c, h, w = images.shape
    rows = -(-n // ROW)
    page = torch.zeros(rows * ROW, c, h, w)
    page[:n] = images
    page = page.view(rows, ROW, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, rows * h, ROW * w)
    pixels = (page * 255).round().byte().numpy()
    return Image.fromarray(pixels[0] if c == 1 else np.moveaxis(pixels, 0, -1))


def _images(page: Image.Image, like: Tensor) -> Tensor:
    """The same images out of a page."""
    n, c, h, w = like.shape
    pixels = torch.from_numpy(np.array(page)).view(page.height, page.width, c).permute(2, 0, 1).float() / 255
    whole = pixels.view(c, page.height // h, h, ROW, w).permute(1, 3, 0, 2, 4)
    return whole.reshape(-1, c, h, w)[:n]
