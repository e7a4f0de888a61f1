"""Generated images that join clients' own samples. No torch here: the driver makes these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedray.data import Samples

if TYPE_CHECKING:
    from fedray.augmentation.image_generator import GeneratedImages


class SharedLabels(NamedTuple):
    """Labels of pictures that the server generates for its clients [n], of which each gets the first so
    many."""

    labels: np.ndarray
    each: Mapping[int, int]


class SharedImages(NamedTuple):
    """Generated pictures, of which the first so many join each client's samples."""

    images: GeneratedImages
    each: Mapping[int, int]

    def samples(self, client: int, training: Any) -> Samples | None:
        if client not in self.each:
            return None
        return self.images.first(self.each[client]).samples(training.job.dataset.info)

    def scores(self, client: int, training: Any) -> tuple[float, ...]:
        return ()


class CandidateImages(NamedTuple):
    """Generated pictures of candidate prompts, `images` of each in a row, which clients score."""

    pictures: GeneratedImages
    images: int

    def samples(self, client: int, training: Any) -> None:
        return None

    def scores(self, client: int, training: Any) -> tuple[float, ...]:
        """Of each candidate the mean probability that the client's model gives to its label."""
        samples = self.pictures.samples(training.job.dataset.info)
        probabilities = training.learner.probabilities(samples)
        right = probabilities[np.arange(len(samples)), samples.labels]
        return tuple(right.reshape(-1, self.images).mean(1).tolist())


class OwnImages(NamedTuple):
    """Each client's own pictures, of these labels, which its worker generates."""

    labels: Mapping[int, np.ndarray]

    def samples(self, client: int, training: Any) -> Samples | None:
        if client not in self.labels:
            return None
        job = training.job
        info = job.dataset.info
        from fedray.augmentation.image_generator import ImageGenerator

        if (generator := training.resident.get("image generator")) is None:
            assert job.scenario.augmentation is not None
            device = training.model.flat.all.device
            generator = ImageGenerator(job.scenario.augmentation, job.folder, info, job.scenario.seed, device)
            training.resident["image generator"] = generator
        images: GeneratedImages = generator.generate(client, self.labels[client])
        return images.samples(info)

    def scores(self, client: int, training: Any) -> tuple[float, ...]:
        return ()
