"""A source: captioned images by index, opened only when asked for. No torch here, so that `check` can look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from fedray.scenario.base import Refused
from fedray.scenario.data import Data


class Samples(Protocol):
    """What a learner trains on."""

    @property
    def captions(self) -> Sequence[str]: ...

    @property
    def groups(self) -> Sequence[str]:
        """The folder each sample came from."""
        ...

    def __len__(self) -> int: ...

    def image(self, i: int) -> Image.Image:
        """Sample i as RGB. Raises ValueError, naming it, where it cannot be read."""
        ...

    def name(self, i: int) -> str: ...


def open_source(data: Data, folder: Path) -> Samples:
    """The samples a `data` section names; relative paths start at `folder`.

    Raises:
        Refused: where files are missing or do not fit together.
    """
    if data.kind == "image_folder":
        from fedray.data.image_folder import read

        return read(data.path, folder, "data", data.caption_key, data.caption)
    if data.kind == "fashion_mnist_mini":
        from fedray.data.fashion_mnist import mini

        return mini("train")
    raise Refused("data.kind", data.kind, "image_folder or fashion_mnist_mini")
