"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, MIT licence) in its own file format (IDX, gzipped or not)."""

import gzip
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from fedray import shipped
from fedray.data.samples import Array, Split, fetched
from fedray.errors import reason
from fedray.scenario.base import Refused
from fedray.scenario.data import FashionMnist, FashionMnistMini

LABELS = (
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
)
PREFIX = {"train": "train", "test": "t10k"}


def read(data: FashionMnist | FashionMnistMini, folder: Path, split: Split) -> Array:
    """The shipped 2,500 and 500, or all 60,000 and 10,000.

    Raises:
        Refused: where they are not there, or damaged.
    """
    if isinstance(data, FashionMnistMini):
        return garments(shipped.HERE / "fashion_mnist_mini", split)
    root = folder / data.path

    def fetch() -> None:
        from torchvision.datasets import FashionMNIST

        FashionMNIST(str(root), download=True)

    fetched(root, data, lambda: there(data, folder, split), fetch, "apt install dataset-fashion-mnist")
    found = _place(data, folder, split)
    assert found is not None
    try:
        return garments(found, split)
    except ValueError as e:
        raise Refused("data.path", str(e), "whole files of Fashion-MNIST") from None


def there(data: FashionMnist, folder: Path, split: Split = "train") -> bool:
    return _place(data, folder, split) is not None


def _place(data: FashionMnist, folder: Path, split: Split) -> Path | None:
    root = folder / data.path
    places = (root, root / "FashionMNIST" / "raw")
    return next(
        (p for p in places if all(_file(p, split, kind) for kind in ("images-idx3", "labels-idx1"))), None
    )


def garments(folder: Path, split: Split) -> Array:
    """Raises ValueError for damaged labels; damaged images raise when they are loaded."""
    labels = _idx(folder, split, "labels-idx1", 1).astype(np.int64)
    if len(labels) and labels.max() >= len(LABELS):
        raise ValueError(
            f"{_file(folder, split, 'labels-idx1')}, which has a label of {labels.max()}, not of"
            f" {len(LABELS)} classes"
        )
    return Array(partial(_images, folder, split, len(labels)), labels, LABELS, pad=2)


def _images(folder: Path, split: Split, n: int) -> np.ndarray:
    images = _idx(folder, split, "images-idx3", 3)
    if images.shape != (n, 28, 28):
        raise ValueError(
            f"{_file(folder, split, 'images-idx3')}, which has images {list(images.shape)}, expected [{n},"
            " 28, 28]"
        )
    return images[:, None]


def _file(folder: Path, split: Split, kind: str) -> Path | None:
    names = (f"{PREFIX[split]}-{kind}-ubyte{suffix}" for suffix in (".gz", ""))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _idx(folder: Path, split: Split, kind: str, dimensions: int) -> np.ndarray:
    """An IDX file of bytes: two zeros, 8 for bytes, the number of dimensions, each as big-endian int32, then
    the data."""
    file = _file(folder, split, kind)
    if file is None:
        raise ValueError(f"{folder / PREFIX[split]}-{kind}-ubyte.gz, which is gone")
    try:
        raw = file.read_bytes()
        raw = gzip.decompress(raw) if file.suffix == ".gz" else raw
        shape = np.frombuffer(raw, ">i4", dimensions, offset=4)
        if raw[:4] != bytes([0, 0, 8, dimensions]):
            raise ValueError("it is no IDX file of bytes")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as e:
        raise ValueError(f"{file}, which cannot be read: {reason(e)}") from None
