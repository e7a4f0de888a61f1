"""Samples: images (or texts) by index with captions and labels, opened only when asked for. No torch here, so
that `check` can look."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from PIL import Image, ImageOps

from fedray import shipped
from fedray.data.decode import opened
from fedray.data.places import unfit
from fedray.errors import reason
from fedray.scenario.base import Refused
from fedray.scenario.data import Downloaded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Split = Literal["train", "test"]


class Samples(Protocol):
    """What a learner trains on."""

    @property
    def captions(self) -> Sequence[str]: ...

    @property
    def groups(self) -> Sequence[str]:
        """The folder each sample came from, where folders are clients."""

    @property
    def labels(self) -> np.ndarray:
        """[n] int64, into `label_names`."""

    @property
    def label_names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def image(self, i: int) -> Image.Image:
        """Sample i as RGB, as a person would see it. Raises ValueError, naming its file, where it cannot be
        read."""

    def pixels(self, indices: np.ndarray, size: int | None) -> np.ndarray:
        """uint8 [n, channels, height, width] of square images, in `size` or their own."""


@dataclass(frozen=True)
class Array:
    """A labelled set that fits in memory. `pad` black pixels a side make its images a power of two where one
    asks for it."""

    load: Callable[[], np.ndarray]  # uint8 [n, channels, height, width]; ValueError where its file is damaged
    labels: np.ndarray  # int64 [n]
    label_names: Sequence[str]
    pad: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def array(self) -> np.ndarray:
        return self.load()

    @cached_property
    def captions(self) -> Sequence[str]:
        prompts = [photo_prompt(name) for name in self.label_names]
        return [prompts[k] for k in self.labels]

    @property
    def groups(self) -> Sequence[str]:
        return [""] * len(self)

    def image(self, i: int) -> Image.Image:
        (pixels,) = self.pixels(np.array([i]), self.array.shape[-1] + 2 * self.pad)
        return Image.fromarray(np.moveaxis(pixels, 0, -1).squeeze()).convert("RGB")

    def pixels(self, indices: np.ndarray, size: int | None) -> np.ndarray:
        chosen, own = self.array[indices], self.array.shape[-1]
        if size in (None, own):
            return chosen
        if size == own + 2 * self.pad:
            return np.pad(chosen, ((0, 0), (0, 0), (self.pad, self.pad), (self.pad, self.pad)))
        assert size is not None
        return np.stack([_square(Image.fromarray(np.moveaxis(x, 0, -1).squeeze()), size) for x in chosen])


@dataclass(frozen=True)
class Files:
    """Image files. RGB, of whatever sizes."""

    files: Sequence[Path]
    captions: Sequence[str]
    groups: Sequence[str]
    labels: np.ndarray
    label_names: Sequence[str]

    def __len__(self) -> int:
        return len(self.files)

    def image(self, i: int) -> Image.Image:
        return opened(self.files[i])

    def pixels(self, indices: np.ndarray, size: int | None) -> np.ndarray:
        assert size is not None, "files have no size of their own"
        return np.stack([_square(self.image(int(i)), size) for i in indices])


@dataclass(frozen=True)
class DatasetInfo:
    """What a source's samples are like, known without opening an image."""

    channels: int
    size: int | None  # pixels a side, where they all have one
    label_names: Sequence[str]
    length: int = 0  # tokens a sample, of text
    tokenizer: "Tokenizer | None" = None


def fetched(
    root: Path, data: Downloaded, there: Callable[[], bool], fetch: Callable[[], None], advice: str
) -> None:
    """Makes sure that a set is `there`, by its download where the scenario allows it.

    Raises:
        Refused: saying what to install or to download.
    """
    if there():
        return
    if data.download:
        try:
            return fetch()
        except Exception as e:  # whatever the network, the server or the archive did
            raise Refused(
                "data.download", f"{type(e).__name__}: {reason(e)}", f"a way to its files; or {advice}"
            ) from None
    got = f"{str(root)!r} without the files of {data.kind}"
    raise Refused("data.path", got, f"{advice}, or data: {{download: true}}")


def located(path: str, folder: Path, key: str) -> Path:
    """What a scenario's key names, relative to its folder or as shipped:NAME, whether it is there or not.

    Raises:
        Refused: for a NAME that does not ship, and for what is there but neither a file nor a folder of
            files.
    """
    try:
        place = shipped.resolve(path, folder)
    except FileNotFoundError as e:
        raise Refused(key, repr(path), str(e)) from None
    if (got := unfit(place)) is not None:
        raise Refused(key, f"{path!r}, {got}", "a regular file, or a folder of them")
    return place


def photo_prompt(label: str) -> str:
    """The caption tiny-sd knows a plain garment by."""
    return f"a photo of {'an' if label[0] in 'aeiou' else 'a'} {label}"


def _square(image: Image.Image, size: int) -> np.ndarray:
    """[channels, size, size]: the shorter side scaled, the middle cut out."""
    pixels = np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))
    return np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]
