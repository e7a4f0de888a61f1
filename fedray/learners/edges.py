"""Edges of pictures, and how far two pictures' edges agree."""

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # brightness of red, green and blue (ITU-R BT.601)
SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))  # (Sobel and Feldman 1968)


def edges(pictures: Tensor, threshold: float) -> Tensor:
    """[n, 3, h, w]: 1 where the brightness of pictures [n, 3, h, w] in 0..1 changes, 0 elsewhere. A border is
    as the pixels beside it.

    Args:
        pictures: red, green and blue.
        threshold: the length of Sobel's gradient, divided by 4, that an edge has at least.
    """
    brightness = (pictures * pictures.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    across = pictures.new_tensor(SOBEL)
    filters = torch.stack([across, across.T])[:, None] / 4
    gradient = F.conv2d(F.pad(brightness, (1, 1, 1, 1), mode="replicate"), filters)
    steep = torch.linalg.vector_norm(gradient, dim=1, keepdim=True) >= threshold
    return steep.to(pictures.dtype).expand(-1, 3, -1, -1)


def agreement(ones: Tensor, others: Tensor) -> float:
    """The mean over n pictures of Pearson's correlation between edges [n, c, h, w] and others' [n, c, h, w]:
    1 where they are the same. A picture without edges agrees with none: 0."""
    first, second = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (ones, others))
    lengths = first.norm(dim=1) * second.norm(dim=1)
    return float(((first * second).sum(1) / lengths.clamp(min=1e-12)).mean())
