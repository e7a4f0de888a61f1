"""Fashion-MNIST garments in several captioned renderings: photo, poster, sketch, and ink (held out of
tiny-sd).

Every rendering is a filter over the real 28x28 greyscale garments, padded to 32x32 RGB. All images here are
float tensors [N, 3, 32, 32] in 0..1; greyscale garments are [N, 32, 32]. Nothing is drawn that a garment does
not contain.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

LABELS = [
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
]
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist

COLOURS = {
    "red": (0.84, 0.15, 0.16),
    "blue": (0.15, 0.36, 0.80),
    "green": (0.14, 0.55, 0.27),
    "orange": (0.95, 0.52, 0.12),
    "purple": (0.50, 0.22, 0.62),
    "teal": (0.08, 0.55, 0.57),
    "navy": (0.08, 0.13, 0.38),
    "pink": (0.93, 0.48, 0.65),
    "brown": (0.45, 0.27, 0.14),
    "black": (0.08, 0.08, 0.09),
}
PAPERS = {
    "cream": (0.96, 0.92, 0.81),
    "white": (0.98, 0.98, 0.98),
    "yellow": (0.98, 0.88, 0.42),
    "grey": (0.72, 0.73, 0.75),
    "sky": (0.66, 0.84, 0.95),
    "mint": (0.72, 0.92, 0.80),
}
INK_PAPER, INK, SEAL = (0.93, 0.89, 0.79), (0.10, 0.09, 0.12), (0.76, 0.16, 0.13)


def caption(label: int, style: str = "photo", colours: str = "") -> str:
    article = "an" if LABELS[label][0] in "aeiou" else "a"
    name = f"{article} {LABELS[label]}"
    if style == "ink":
        return f"a photo of {name} in ink style"
    return f"a {style} of {name}" + (f" in {colours}" if colours else "")


def load(split: str, folder: Path | None = None) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Greyscale garments [N, 32, 32] in 0..1, labels [N], and the sha256 of the image file as unpacked."""
    folder = folder or DEBIAN
    if not folder.exists():
        from torchvision.datasets import FashionMNIST

        FashionMNIST("data", download=True)
        folder = Path("data/FashionMNIST/raw")
    prefix = {"train": "train", "test": "t10k"}[split]
    raw = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    images = torch.from_numpy(np.frombuffer(raw, np.uint8, offset=16).copy()).view(-1, 28, 28).float() / 255
    return (
        F.pad(images, (2, 2, 2, 2)),
        torch.from_numpy(np.frombuffer(labels, np.uint8, offset=8).copy()).long(),
        hashlib.sha256(raw).hexdigest(),
    )


def photo(grey: torch.Tensor) -> torch.Tensor:
    return grey[:, None].expand(-1, 3, -1, -1).clone()


def poster(grey: torch.Tensor, colour: torch.Tensor, paper: torch.Tensor) -> torch.Tensor:
    """Three flat tones of one colour [N, 3] on a paper [N, 3]."""
    tone = (blur(grey, 0.5) * 3.2).floor().clamp(0, 2) / 2  # 0, 1/2, 1
    shade = 0.55 + 0.45 * tone[:, None]
    return _over(silhouette(grey), colour[:, :, None, None] * shade, paper)


def sketch(grey: torch.Tensor, colour: torch.Tensor, paper: torch.Tensor) -> torch.Tensor:
    """The garment's edges as lines of one colour on a paper."""
    return _over((edges(grey) * 1.6).clamp(0, 1), colour[:, :, None, None], paper)


def ink(grey: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Ink on rice paper: a pale wash that pools in the garment's dark parts, brush lines of uneven load along
    its edges, bleeding into the fibre, and the painter's red seal in the lower right corner."""
    n = len(grey)

    def fibre(scale: float) -> torch.Tensor:
        noise = blur(torch.randn(n, 32, 32, generator=generator), scale)
        return noise / noise.flatten(1).std(1)[:, None, None]

    wash = silhouette(grey) * (0.20 + 0.34 * (1 - blur(grey, 1.0))) * (1 + 0.25 * fibre(1.5))
    line = edges(grey) * 1.5 * (1 + 0.35 * fibre(2.0))
    density = torch.maximum(blur(wash.clamp(0, 1), 0.8), blur(line.clamp(0, 1), 0.35)).clamp(0, 0.97)
    paper = torch.tensor(INK_PAPER)[None, :, None, None] * (1 + 0.012 * fibre(0.7)[:, None])
    picture = paper * (1 - density[:, None]) + torch.tensor(INK)[None, :, None, None] * density[:, None]
    picture[:, :, 27:30, 27:30] = torch.tensor(SEAL)[None, :, None, None]
    return picture.clamp(0, 1)


def silhouette(grey: torch.Tensor) -> torch.Tensor:
    """Soft mask of the garment, holes closed."""
    closed = -F.max_pool2d(-F.max_pool2d((grey > 0.04).float()[:, None], 3, 1, 1), 3, 1, 1)
    return blur(closed[:, 0], 0.4)


def edges(grey: torch.Tensor) -> torch.Tensor:
    """Gradient magnitude (Sobel), scaled so that a picture's strong edges are about 1."""
    kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]) / 4
    gx, gy = (F.conv2d(grey[:, None], k[None, None], padding=1)[:, 0] for k in (kernel, kernel.T))
    magnitude = (gx**2 + gy**2).sqrt()
    return (magnitude / magnitude.flatten(1).quantile(0.97, dim=1)[:, None, None].clamp_min(0.15)).clamp(0, 1)


def blur(x: torch.Tensor, sigma: float) -> torch.Tensor:
    radius = max(1, round(3 * sigma))
    line = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    line = line / line.sum()
    x = F.conv2d(F.pad(x[:, None], (radius,) * 4, mode="replicate"), line[None, None, None])
    return F.conv2d(x, line[None, None, :, None])[:, 0]


def draw(
    grey: torch.Tensor, labels: torch.Tensor, style: str, generator: torch.Generator
) -> tuple[torch.Tensor, list[str]]:
    """One rendering of every garment with its caption; colours are drawn from `generator`."""
    if style == "photo":
        return photo(grey), [caption(int(i)) for i in labels]
    if style == "ink":
        return ink(grey, generator), [caption(int(i), "ink") for i in labels]
    names, papers = list(COLOURS), list(PAPERS)
    c = torch.randint(len(names), (len(grey),), generator=generator)
    p = torch.randint(len(papers), (len(grey),), generator=generator)
    paint = {"poster": poster, "sketch": sketch}[style]
    pictures = paint(grey, torch.tensor(list(COLOURS.values()))[c], torch.tensor(list(PAPERS.values()))[p])
    return pictures, [
        caption(int(i), style, f"{names[a]} on {papers[b]}") for i, a, b in zip(labels, c, p, strict=True)
    ]


def _over(alpha: torch.Tensor, ink_rgb: torch.Tensor, paper: torch.Tensor) -> torch.Tensor:
    return paper[:, :, None, None] * (1 - alpha[:, None]) + ink_rgb * alpha[:, None]


def sheet(rows: list[torch.Tensor], scale: int = 4):
    """A PIL contact sheet, one row a tensor."""
    from PIL import Image

    page = torch.cat([torch.cat(list(r), 2) for r in rows], 1)
    array = (page.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(array).resize((array.shape[1] * scale, array.shape[0] * scale), Image.NEAREST)
