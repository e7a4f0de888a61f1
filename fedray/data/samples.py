"""Samples: images (or texts) by index with captions and labels, opened only when asked for. No torch here, so
that `check` can look."""

import pickle
from abc import ABC
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from PIL import Image

from fedray.data.decode import opened
from fedray.data.fitting import fitted
from fedray.scenario.base import Refused

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Split = Literal["train", "test"]


class Samples(ABC):
    """What a learner trains on. Samples of one's own have `labels` and `label_names`, and say what an `image`
    is; they may have more, such as masks, which a learner of one's own reads in its `encode`.

    Attributes:
        labels: int64 [n], into `label_names`.
        label_names: what the labels are called.
    """

    has_images: ClassVar[bool] = True
    pads: bool = False  # whether images are padded to the size that they are wanted in, not cut
    # whether captions say nothing that `contents` and labels do not
    captions_follow: ClassVar[bool] = False
    labels: np.ndarray
    label_names: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def captions(self) -> Sequence[str]:
        """One a sample."""
        prompts = [photo_prompt(name) for name in self.label_names]
        return [prompts[k] for k in self.labels]

    @cached_property
    def groups(self) -> Sequence[str]:
        """The folder each sample came from, where folders are clients."""
        return [""] * len(self)

    def image(self, i: int) -> Image.Image:
        """Sample i as RGB, as a person would see it.

        Raises:
            ValueError: naming its file, where it cannot be read.
        """
        raise ValueError(f"{type(self).__name__} has no images")

    def condition(self, i: int) -> Image.Image:
        """The condition picture of sample i, as RGB.

        Raises:
            ValueError: naming its file, where it cannot be read or has another shape than the sample.
        """
        raise ValueError(f"{type(self).__name__} has no condition pictures")

    def refuse_damaged(self, i: int) -> None:
        """Raises ValueError, naming the file, where sample i cannot be read."""
        self.image(i)

    def pixels(self, indices: np.ndarray, size: int | None) -> np.ndarray:
        """uint8 [n, channels, height, width] of square images, in `size` or their own."""
        return np.stack([pixels_of(self.image(int(i)), size, self.pads) for i in indices])

    def tokens(self, indices: np.ndarray) -> np.ndarray:
        """int64 [n, length], of text."""
        raise ValueError(f"{type(self).__name__} has no tokens")

    def conversation(self, i: int) -> Sequence[tuple[str, str]]:
        """Sample i of conversations: a role and what is said, turn by turn."""
        raise ValueError(f"{type(self).__name__} has no conversations")

    def column(self, name: str) -> Sequence[str | int]:
        """What a column of the data says of each sample; for data whose section `has_columns`.

        Raises:
            Refused: for a column that is not there, or says something else than texts or whole numbers.
        """
        raise ValueError(f"{type(self).__name__} has no columns")

    def contents(self) -> Iterator[bytes]:
        """What is in the samples, beside labels and captions: a run goes on only with the same."""
        if self.has_images:
            for i in range(len(self)):
                image = self.image(i)
                yield f"{image.mode} {image.size}".encode()
                yield image.tobytes()

    def unreadable(self, client_indices: Mapping[int, np.ndarray]) -> Iterator[Refused]:
        """Every sample of these that cannot be read, with its client. Opens all of them.

        Args:
            client_indices: which samples each client has.
        """
        if not self.has_images:
            return

        def attempt(place: tuple[int, int]) -> Refused | None:
            client, i = place
            try:
                self.refuse_damaged(i)
            except ValueError as e:
                return Refused("data.path", f"client {client}: {e}", "images that open")
            return None

        places = ((client, int(i)) for client, indices in client_indices.items() for i in indices)
        with ThreadPoolExecutor(4) as pool:
            yield from filter(None, pool.map(attempt, places))


@dataclass(frozen=True, eq=False)
class Array(Samples):
    """A labelled set that fits in memory. `pad` black pixels a side make its images a power of two where one
    asks for it."""

    load: Callable[[], np.ndarray]  # uint8 [n, channels, height, width]; ValueError where its file is damaged
    labels: np.ndarray  # int64 [n]
    label_names: Sequence[str]
    pad: int = 0
    called: Sequence[str] = ()  # what captions call the labels; none: by their names

    @cached_property
    def captions(self) -> Sequence[str]:
        prompts = [photo_prompt(name) for name in self.called or self.label_names]
        return [prompts[k] for k in self.labels]

    @cached_property
    def array(self) -> np.ndarray:
        return self.load()

    def image(self, i: int) -> Image.Image:
        (pixels,) = self.pixels(np.array([i]), self.array.shape[-1] + 2 * self.pad)
        return image_of(pixels).convert("RGB")

    def pixels(self, indices: np.ndarray, size: int | None) -> np.ndarray:
        chosen = self.array[indices]
        own = self.array.shape[-1]
        if size in (None, own):
            return chosen
        if size == own + 2 * self.pad:
            return np.pad(chosen, ((0, 0), (0, 0), (self.pad, self.pad), (self.pad, self.pad)))
        return np.stack([pixels_of(image_of(pixels), size) for pixels in chosen])

    def contents(self) -> Iterator[bytes]:
        yield np.ascontiguousarray(self.load()).tobytes()

    def unreadable(self, client_indices: Mapping[int, np.ndarray]) -> Iterator[Refused]:
        try:
            self.load()
        except ValueError as e:
            yield Refused("data.path", str(e), "files that are whole")


@dataclass(frozen=True, eq=False)
class Files(Samples):
    """Image files. RGB, of whatever sizes. `conditions` has a condition picture for each, or is empty."""

    files: Sequence[Path]
    captions: Sequence[str] = field()
    groups: Sequence[str] = field()
    labels: np.ndarray
    label_names: Sequence[str]
    conditions: Sequence[Path] = ()
    pads: bool = False

    def image(self, i: int) -> Image.Image:
        return opened(self.files[i])

    def condition(self, i: int) -> Image.Image:
        condition = opened(self.conditions[i])
        width, height = self.image(i).size
        if abs(condition.width * height - condition.height * width) > max(width, height, *condition.size):
            got = f"{condition.width} x {condition.height} pixels for {self.files[i]} of {width} x {height}"
            raise ValueError(f"{self.conditions[i]}: got {got}, expected the same shape")
        return condition

    def refuse_damaged(self, i: int) -> None:
        self.image(i)
        if self.conditions:
            self.condition(i)

    def pixels(self, indices: np.ndarray, size: int | None) -> np.ndarray:
        assert size is not None, "files have no size of their own"
        return super().pixels(indices, size)

    def contents(self) -> Iterator[bytes]:
        for file in (*self.files, *self.conditions):
            yield file.read_bytes()


class DatasetSamples(Samples):
    """Samples of a map-style torch Dataset, such as torchvision's: `dataset[i]` is an image, its label, and
    whatever comes behind, such as a mask, which a learner of one's own finds in `dataset`.

    Args:
        dataset: whose images are PIL's, or arrays or tensors [channels, height, width] or [height, width] of
            uint8, or of floats in 0..1.
        label_names: what the labels are called.
        labels: of each sample; None: the dataset's `targets`, and where it has none, every sample is opened.
    """

    def __init__(
        self, dataset: Any, label_names: Sequence[str], labels: Sequence[int] | np.ndarray | None = None
    ) -> None:
        self.dataset = dataset
        self.label_names = label_names
        if labels is None:
            labels = getattr(dataset, "targets", None)
        if labels is None:
            labels = [int(dataset[i][1]) for i in range(len(dataset))]
        self.labels = np.asarray(labels, np.int64)

    def picture(self, i: int) -> Image.Image:
        """Sample i in the channels that it has, 1 or 3.

        Raises:
            ValueError: where it cannot be read, or is no image.
        """
        image = self.dataset[i][0]
        if isinstance(image, Image.Image):
            return image if image.mode in ("L", "RGB") else image.convert("RGB")
        pixels = np.asarray(image)
        if pixels.ndim == 2:
            pixels = pixels[None]
        if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
            shape = list(np.shape(image))
            raise ValueError(f"sample {i}: got an array {shape}, expected [1 or 3 channels, height, width]")
        if np.issubdtype(pixels.dtype, np.floating):
            if not 0 <= pixels.min() <= pixels.max() <= 1:
                got = f"{pixels.min():g} to {pixels.max():g}"
                raise ValueError(f"sample {i}: got floats from {got}, expected them in 0..1")
            pixels = np.rint(pixels * 255).astype(np.uint8)
        if pixels.dtype != np.uint8:
            raise ValueError(f"sample {i}: got an array of {pixels.dtype}, expected uint8 or floats in 0..1")
        return image_of(pixels)

    def image(self, i: int) -> Image.Image:
        return self.picture(i).convert("RGB")

    def pixels(self, indices: np.ndarray, size: int | None) -> np.ndarray:
        return np.stack([pixels_of(self.picture(int(i)), size) for i in indices])

    def contents(self) -> Iterator[bytes]:
        """The images, and whatever comes behind their labels."""
        yield from super().contents()
        if len(self) and len(self.dataset[0]) > 2:
            for i in range(len(self)):
                for value in self.dataset[i][2:]:
                    array = np.asarray(value)
                    yield pickle.dumps(value) if array.dtype == object else array.tobytes()


@dataclass(frozen=True)
class DatasetInfo:
    """What a source's samples are like, known without opening an image.

    Attributes:
        channels: of its images.
        size: pixels a side, where they all have one.
        label_names: what the labels are called.
        length: tokens a sample, of text.
        tokenizer: of text.
        extra: whatever else a learner of one's own asks for.
    """

    channels: int
    size: int | None
    label_names: Sequence[str]
    length: int = 0
    tokenizer: "Tokenizer | None" = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def photo_prompt(label: str) -> str:
    """The caption tiny-sd knows a plain garment by."""
    return f"a photo of {'an' if label.startswith(tuple('aeiou')) else 'a'} {label}"


def image_of(pixels: np.ndarray) -> Image.Image:
    """The image of uint8 [1 or 3 channels, height, width]."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))


def pixels_of(image: Image.Image, size: int | None, pad: bool = False) -> np.ndarray:
    """uint8 [channels, size, size]: the shorter side scaled, the middle cut out, or all of it on white; in
    its own size for None."""
    if size is not None:
        image = fitted(image, (size, size), pad)
    pixels = np.asarray(image)
    return np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]
