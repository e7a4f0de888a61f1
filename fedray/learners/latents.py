"""What a latent diffusion model trains on: a client's samples encoded, and one step's inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedray.learners.families.family import Conditions


@dataclass
class LatentShard:
    """What a client trains on, encoded. n samples with u distinct captions; c, h, w of a latent; l tokens of
    width d."""

    mean: Tensor  # [n, c, h, w]
    std: Tensor  # [n, c, h, w]
    texts: Tensor  # [n] int64 below u: which caption each sample has
    ids: Conditions  # of captions, [u + 1, l] int64 for each text encoder, the empty caption last
    hidden: Conditions | None  # the same embedded, [u + 1, ...], where the text encoders are frozen
    of_image: Conditions  # [n, ...]
    class_images: LatentShard | None = None  # of model.prior
    condition: Tensor | None = None  # [n, 3, H, W] in 0..1, pixels that a ControlNet takes
    mirrored: tuple[Tensor, Tensor] | None = None  # mean and std of the mirror images, as mean

    def rows(self, i: Tensor, mirrored: Tensor) -> LatentShard:
        """Some of the samples, of which some are the mirror images; of captions and class images all.

        Args:
            i: int64 [b], which samples.
            mirrored: bool [b], which of those are mirrored.
        """
        assert self.mirrored is not None, "of a learner that encodes both"
        here = mirrored[:, None, None, None]
        mean, std = (
            torch.where(here, other[i], own[i])
            for own, other in zip((self.mean, self.std), self.mirrored, strict=True)
        )
        condition = self.condition
        if condition is not None:
            condition = torch.where(here, condition[i].flip(-1), condition[i])
        of_image = {name: values[i] for name, values in self.of_image.items()}
        return replace(
            self,
            mean=mean,
            std=std,
            texts=self.texts[i],
            of_image=of_image,
            condition=condition,
            mirrored=None,
        )

    def __len__(self) -> int:
        return len(self.mean)


@dataclass
class LatentBuckets:
    """What a client trains on where its images are of several shapes: a shard a shape. n samples."""

    shards: list[LatentShard]
    groups: np.ndarray  # int [n], which shard each sample is in
    rows: np.ndarray  # int [n], where in that

    def __len__(self) -> int:
        return len(self.groups)

    def of(self, indices: np.ndarray) -> tuple[LatentShard, np.ndarray]:
        """The shard that all these samples [b] are in, and where in it."""
        (group,) = set(self.groups[indices].tolist())  # batches have samples of one group
        return self.shards[group], self.rows[indices]


@dataclass
class NoisedLatents:
    """One step's inputs, every draw made. b samples. What a family's networks do not take is None."""

    latents: Tensor  # [b, c, h, w], scaled
    noise: Tensor  # as latents
    timesteps: Tensor  # [b] int64; in flow matching the index in the descending ones of the scheduler
    text: Tensor  # [b, l] int64 token ids, or [b, l, d] embeddings
    text_2: Tensor | None = None  # [b, l] int64, token ids for the second text encoder
    text_3: Tensor | None = None  # [b, l] int64, token ids for the third text encoder
    pooled: Tensor | None = None  # [b, p], a text as a whole
    time_ids: Tensor | None = None  # [b, 6], SDXL's sizes and crops
    weight: Tensor | None = None  # [b], of each sample in the loss
    condition: Tensor | None = None  # [b, 3, H, W] in 0..1, pixels that a ControlNet takes
