"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, MIT licence) in its own file format (IDX, gzipped or not)."""

import gzip
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from fedray import shipped
from fedray.data.downloads import DownloadedSource
from fedray.data.samples import Array, DatasetInfo, Split
from fedray.data.source import Source
from fedray.errors import reason
from fedray.scenario.base import Refused

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
INFO = DatasetInfo(1, 28, LABELS)
PREFIX = {"train": "train", "test": "t10k"}


class FashionMnistMiniSource(Source):
    """The 2,500 and 500 that ship."""

    def open(self, split: Split) -> Array:
        return garments(shipped.HERE / "fashion_mnist_mini", split)

    @property
    def info(self) -> DatasetInfo:
        return INFO


class FashionMnistSource(DownloadedSource):
    """All 60,000 and 10,000."""

    training_samples = 60_000
    advice = "apt install dataset-fashion-mnist"

    def open(self, split: Split) -> Array:
        self.ensure(split)
        place = self._place(split)
        assert place is not None
        try:
            return garments(place, split)
        except ValueError as e:
            raise Refused("data.path", str(e), "whole files of Fashion-MNIST") from None

    @property
    def info(self) -> DatasetInfo:
        return INFO

    def is_complete(self, split: Split) -> bool:
        return self._place(split) is not None

    def download(self) -> None:
        from torchvision.datasets import FashionMNIST

        FashionMNIST(str(self.root), download=True)

    def _place(self, split: Split) -> Path | None:
        places = (self.root, self.root / "FashionMNIST" / "raw")
        parts = ("images-idx3", "labels-idx1")
        return next((place for place in places if all(_file(place, split, part) for part in parts)), None)


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
