"""Fashion-MNIST in its own file format (IDX, gzipped), as shipped: 2,500 training and 500 test garments."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from fedray import shipped

LABELS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@dataclass(frozen=True)
class Garments:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, MIT licence), padded to 32 x 32."""

    images: Sequence[Image.Image]
    captions: Sequence[str]
    groups: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)

    def image(self, i: int) -> Image.Image:
        return self.images[i]

    def name(self, i: int) -> str:
        return f"garment {i}"


def mini(split: Literal["train", "test"]) -> Garments:
    images, labels = read(shipped.HERE / "fashion_mnist_mini", split)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return Garments(
        [Image.fromarray(x).convert("RGB") for x in padded],
        [photo_prompt(LABELS[k]) for k in labels],
        [LABELS[k] for k in labels],
    )


def read(folder: Path, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 28, 28] and labels uint8 [N]."""
    prefix = {"train": "train", "test": "t10k"}[split]
    images = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)


def photo_prompt(label: str) -> str:
    """The caption tiny-sd knows a plain garment by."""
    return f"a photo of {'an' if label[0] in 'aeiou' else 'a'} {label}"
