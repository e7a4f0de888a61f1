"""A client's pictures as learners of pixels hold them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fedray.data import Samples
from fedray.data.fitting import fitted


@dataclass
class ImageShard:
    images: Tensor  # [n, c, h, w] uint8
    labels: Tensor  # [n] int64

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, samples: Samples, indices: np.ndarray, size: int | None, device: torch.device) -> ImageShard:
        """Square images in `size`, or their own. Raises ValueError for one that cannot be read.

        Args:
            samples: of a client.
            indices: which of them [n].
            size: pixels a side; None: as they are.
            device: where they go.
        """
        images = torch.from_numpy(samples.pixels(indices, size)).to(device)
        return cls(images, torch.from_numpy(samples.labels[indices]).to(device))

    def joined(self, other: ImageShard) -> ImageShard:
        """Its pictures, then the other's, which are of the same size."""
        return ImageShard(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]))


def scaled(images: Tensor) -> Tensor:
    """uint8 to -1..1."""
    return images.float().div_(127.5).sub_(1)


def square_pixels(image: Image.Image, size: int) -> Tensor:
    """[3, size, size] in 0..1 of an RGB image: the shorter side scaled, the middle cut out."""
    return shaped_pixels(image, (size, size))


def shaped_pixels(image: Image.Image, size: tuple[int, int], pad: bool = False) -> Tensor:
    """[3, height, width] in 0..1 of an RGB image.

    Args:
        image: of any shape.
        size: width and height that it is scaled to.
        pad: whether all of it is seen, on white; otherwise its middle is cut out.
    """
    return torch.from_numpy(np.array(fitted(image, size, pad))).permute(2, 0, 1).float() / 255
