"""Images in a column of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fedray.data import decode
from fedray.data.samples import Samples, photo_prompt, pixels_of
from fedray.data.tables import classes, described, dtype_of, refuse_unknown
from fedray.scenario.base import Refused

if TYPE_CHECKING:
    from datasets import Dataset

LOOKED_AT = 100  # images whose sizes say whether all have one


class TableImages(Samples):
    """Images of a table, decoded when they are asked for.

    Args:
        table: with a row a sample.
        column: of the images: structures of their files' bytes and names, bytes, or names of files.
        root: the folder in which those names start; None: the column may not name files.
        labels: int64 [n], into `label_names`.
        label_names: what the labels are called.
        captions: one a sample; None: they are made of the labels' names.
        channels: 1 for grey, 3 for colour; None: as the first image is.
        pads: whether images are padded to the size that they are wanted in, not cut.

    Raises:
        Refused: for a column that is not there, or has no images.
    """

    def __init__(
        self,
        table: Dataset,
        column: str,
        root: Path | None,
        labels: np.ndarray,
        label_names: Sequence[str],
        captions: Sequence[str] | None = None,
        channels: int | None = None,
        pads: bool = False,
    ) -> None:
        self._table = table
        self._column = column
        self._root = None if root is None else root.resolve()
        self._images = _undecoded(table, column, root is not None)
        self._given_channels = channels
        self.pads = pads
        self.labels = labels
        self.label_names = label_names
        self.captions = captions or _PhotoPrompts(labels, label_names)

    @cached_property
    def channels(self) -> int:
        """Of its pixels; raises Refused where the first image cannot be read."""
        if self._given_channels is not None:
            return self._given_channels
        return 1 if self._header(0).grey else 3

    @property
    def size(self) -> int | None:
        """Pixels a side, where the images that are looked at are squares of one size. Raises Refused where
        one of them cannot be read."""
        places = np.unique(np.linspace(0, len(self) - 1, min(len(self), LOOKED_AT)).astype(int))
        sizes = {self._header(int(i)).size for i in places}
        width, height = sizes.pop()
        return width if not sizes and width == height else None

    def image(self, i: int) -> Image.Image:
        data = self._bytes(i)
        return decode.decoded(data, self._name(i)) if isinstance(data, bytes) else decode.opened(data)

    def pixels(self, indices: np.ndarray, size: int | None) -> np.ndarray:
        mode = "L" if self.channels == 1 else "RGB"
        return np.stack([pixels_of(self.image(int(i)).convert(mode), size, self.pads) for i in indices])

    def refuse_damaged(self, i: int) -> None:
        self.image(i)
        if self._given_channels is None and self.channels == 1 and not self._header(i).grey:
            expected = "grey as the first one, or data.channels, in which all are read"
            raise ValueError(f"{self._name(i)} is in colour, expected {expected}")

    def column(self, name: str) -> Sequence[str | int]:
        return classes(self._table, name, "data.partition.column")

    def contents(self) -> Iterator[bytes]:
        for i in range(len(self)):
            data = self._bytes(i)
            yield data if isinstance(data, bytes) else data.read_bytes()

    def _header(self, i: int) -> decode.Header:
        try:
            data = self._bytes(i)
            return decode.header(BytesIO(data) if isinstance(data, bytes) else data, self._name(i))
        except ValueError as e:
            raise Refused("data.columns.image", str(e), "images that open") from None

    def _name(self, i: int) -> str:
        return f"sample {i} of column {self._column!r}"

    def _bytes(self, i: int) -> bytes | Path:
        """The bytes of an image's file, or where it lies."""
        value = self._images[i][self._column]
        if isinstance(value, dict) and value["bytes"] is None:
            value = value["path"]
        elif isinstance(value, dict):
            value = value["bytes"]
        if value is None:
            raise ValueError(f"{self._name(i)} has no image")
        if isinstance(value, bytes):
            return value
        assert isinstance(value, str), "a structure of bytes and a path, or one of them"
        return self._file(i, value)

    def _file(self, i: int, name: str) -> Path:
        if self._root is None or _is_images(self._table, self._column):
            return Path(name)  # where `datasets` has put it
        file = (self._root / name).resolve()
        if not file.is_relative_to(self._root):
            raise ValueError(f"{self._name(i)}: {name!r} leads out of {self._root}")
        return file


class _PhotoPrompts(Sequence[str]):
    """What captions make of labels, without a text a sample."""

    def __init__(self, labels: np.ndarray, names: Sequence[str]) -> None:
        self._labels = labels
        self._prompts = [photo_prompt(name) for name in names]

    def __getitem__(self, i: Any) -> Any:
        return self._prompts[self._labels[i]]

    def __len__(self) -> int:
        return len(self._labels)


def _is_images(table: Dataset, column: str) -> bool:
    return type(table.features[column]).__name__ == "Image"


def _undecoded(table: Dataset, column: str, may_name_files: bool) -> Dataset:
    """The column alone, as it is stored.

    Args:
        table: with the column.
        column: its name.
        may_name_files: whether texts in it are names of files.

    Raises:
        Refused: where it is not there, or is none of images.
    """
    import datasets

    key = "data.columns.image"
    refuse_unknown(table, column, key)
    alone = table.select_columns([column])
    if _is_images(table, column):
        return alone.cast_column(column, datasets.Image(decode=False))
    feature = table.features[column]
    if isinstance(feature, dict) and set(feature) == {"bytes", "path"}:
        return alone
    kind = dtype_of(table, column)
    if kind in ("binary", "large_binary") or (may_name_files and kind in ("string", "large_string")):
        return alone
    expected = "images, or bytes of their files" + (", or their names" if may_name_files else "")
    raise Refused(key, f"{column!r}, a column of {described(table, column)}", expected)
