"""Images as a person looks at them: alone, or many on one sheet."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fedray.files import whole


def sheet(images: Tensor, columns: int) -> Image.Image:
    """Images [n, 3, h, w] in 0..1, a row a prompt. Small ones are enlarged, pixel by pixel, so that a person
    can see them."""
    n, _, h, w = images.shape
    gap = max(2, w // 32)
    page = torch.ones(3, gap + (n // columns) * (h + gap), gap + columns * (w + gap))
    for i, image in enumerate(images):
        top = gap + (i // columns) * (h + gap)
        left = gap + (i % columns) * (w + gap)
        page[:, top : top + h, left : left + w] = image
    small = picture(page)
    scale = max(1, 128 // w)
    return small.resize((small.width * scale, small.height * scale), Image.Resampling.NEAREST)


def write_sheet(images: Tensor, columns: int, file: Path) -> None:
    """A sheet as a PNG file, which is there whole or not at all."""
    page = sheet(images, columns)
    with whole(file) as part:
        page.save(part, "png")


def picture(image: Tensor) -> Image.Image:
    """[3, h, w] in 0..1, pixel by pixel."""
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
