"""Samples as an attacker has them."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from PIL import Image

from fedray.data import Samples


class Poisoned(Samples):
    """Samples of which some are others than they were.

    Args:
        samples: as they were.
        labels: of all of them, int64 [n]; None: the samples' own.
        captions: by index, of those that have another caption.
        images: by index, of which other sample the image is shown instead.
        trigger: indices of the images with a white square.
        size: its side, as a share of the image's side.
    """

    def __init__(
        self,
        samples: Samples,
        labels: np.ndarray | None = None,
        captions: Mapping[int, str] | None = None,
        images: Mapping[int, int] | None = None,
        trigger: np.ndarray | None = None,
        size: float = 0.0,
    ) -> None:
        self.samples = samples
        self.labels = samples.labels if labels is None else labels
        self.label_names = samples.label_names
        self.has_images = samples.has_images  # type: ignore[misc]
        self.captions_follow = samples.captions_follow  # type: ignore[misc]
        self._captions = captions or {}
        self._images = images or {}
        self._trigger = np.zeros(len(samples), bool)
        if trigger is not None:
            self._trigger[trigger] = True
        self._size = size

    @cached_property
    def captions(self) -> Sequence[str]:
        """The attacker's where it wrote one; those of labels follow the labels."""
        if self._captions:
            return [self._captions.get(i, caption) for i, caption in enumerate(self.samples.captions)]
        return self.samples.captions

    @cached_property
    def groups(self) -> Sequence[str]:
        return self.samples.groups

    def image(self, i: int) -> Image.Image:
        image = self.samples.image(self._images.get(i, i))
        if not self._trigger[i]:
            return image
        pixels = np.moveaxis(np.array(image), -1, 0)
        return Image.fromarray(np.moveaxis(self._stamped(pixels), 0, -1))

    def condition(self, i: int) -> Image.Image:
        return self.samples.condition(self._images.get(i, i))

    def pixels(self, indices: np.ndarray, size: int | None) -> np.ndarray:
        shown = np.array([self._images.get(int(i), int(i)) for i in indices], np.int64)
        pixels = np.array(self.samples.pixels(shown, size))
        chosen = self._trigger[indices]
        pixels[chosen] = self._stamped(pixels[chosen])
        return pixels

    def tokens(self, indices: np.ndarray) -> np.ndarray:
        return self.samples.tokens(indices)

    def _stamped(self, pixels: np.ndarray) -> np.ndarray:
        """These uint8 [..., channels, height, width], with the square a pixel away from the corner."""
        side = max(1, round(self._size * pixels.shape[-1]))
        pixels[..., -side - 1 : -1, -side - 1 : -1] = 255
        return pixels
