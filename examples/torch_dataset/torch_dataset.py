"""A source of one's own: a torch Dataset of images and labels."""

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

import fedray

NAMES = ["disc", "square", "cross"]


class Shapes(torch.utils.data.Dataset):
    """Grey images of 16 x 16 pixels, each of a shape in noise, and the number of the shape."""

    def __init__(self, samples: int, noise: float, seed: int) -> None:
        self.noise = noise
        self.seed = seed
        self.targets = [i % len(NAMES) for i in range(samples)]  # as torchvision's: read without an image

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        rng = np.random.default_rng((self.seed, i))
        y, x = np.abs(np.mgrid[:16, :16] - rng.uniform(5, 10, size=(2, 1, 1)))  # from the shape's middle
        shapes = [np.hypot(x, y) < 5, np.maximum(x, y) < 4, (np.minimum(x, y) < 1.5) & (np.maximum(x, y) < 5)]
        image = shapes[self.targets[i]] + rng.normal(scale=self.noise, size=(16, 16))
        return torch.from_numpy(image.clip(0, 1)).float()[None], self.targets[i]


class ShapeSource(fedray.Source):
    """The Dataset twice: to train on, and to test on."""

    class Section(fedray.Source.Section):
        samples: int = Field(default=600, ge=1, description="How many images there are to train on.")
        noise: float = Field(default=0.2, ge=0, description="The noise's standard deviation; white is 1.")

    def open(self, split: Literal["train", "test"]) -> fedray.Samples:
        if split == "test":
            return fedray.DatasetSamples(Shapes(150, self.section.noise, seed=1), NAMES)
        return fedray.DatasetSamples(Shapes(self.section.samples, self.section.noise, seed=0), NAMES)

    @property
    def info(self) -> fedray.DatasetInfo:
        return fedray.DatasetInfo(channels=1, size=16, label_names=NAMES)
