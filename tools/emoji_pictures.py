"""The shipped emoji as tensors, moved about, so that a model learns things and not single pictures.

Images are float tensors [N, 3, 32, 32] in 0..1 on white.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

SMALLEST = 0.75  # scale of a moved picture; it is shifted as far as it stays whole


def load(folder: Path) -> tuple[torch.Tensor, list[str]]:
    """Pictures and captions of a folder and of the folders in it, in the order of their paths."""
    pictures, captions = [], []
    for lines in sorted(folder.rglob("metadata.jsonl")):
        for line in lines.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            pixels = np.array(Image.open(lines.parent / entry["file_name"]).convert("RGB"))
            pictures.append(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
            captions.append(entry["text"])
    return torch.stack(pictures), captions


def moved(pictures: torch.Tensor, g: torch.Generator, share: float = 0.5) -> torch.Tensor:
    """A share of them mirrored, and as large a share, of those and of the others, made smaller and shifted."""
    n = len(pictures)
    flip = torch.where(torch.rand(n, generator=g) < share, -1.0, 1.0)
    scale = SMALLEST + (1 - SMALLEST) * torch.rand(n, generator=g)
    scale = torch.where(torch.rand(n, generator=g) < share, scale, torch.ones(n))
    shift = (2 * torch.rand(n, 2, generator=g) - 1) * (1 - scale)[:, None]  # of half a side
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = flip / scale
    theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = shift / scale[:, None]
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return 1 - F.grid_sample(1 - pictures, grid, align_corners=False)


def recoloured(pictures: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Half of them with red, green and blue exchanged, so that the decoder knows shapes in every colour."""
    n = len(pictures)
    order = torch.rand(n, 3, generator=g).argsort(1)
    order = torch.where(torch.rand(n, 1, generator=g) < 0.5, order, torch.arange(3))
    return pictures.gather(1, order[:, :, None, None].expand_as(pictures))
