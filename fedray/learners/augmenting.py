"""Samples that a learner changes at random while it trains on them."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fedray.learners.contexts import LearnerContext
from fedray.learners.pictures import ImageShard
from fedray.scenario.base import Refused
from fedray.scenario.kinds import implementation

if TYPE_CHECKING:
    from fedray.data.augment import Augment


class Augments:
    """What a learner does with `data.augment`; mixed into Learner."""

    context: LearnerContext
    size: int

    def draw_training(self, shard: Any, indices: np.ndarray, generator: torch.Generator) -> Any:
        """One step's inputs while training: what `draw` makes of these samples, changed as the data ask for.
        Evaluation calls `draw` alone.

        Args:
            shard: what `encode_client` gave, or `experience`.
            indices: [b], of samples in the shard.
            generator: every draw comes from it, on the CPU.
        """
        if not self.context.augment:
            return self.draw(shard, indices, generator)
        changed = self.augmented(shard, indices, generator)
        return self.draw(changed, np.arange(len(indices)), generator)

    @abstractmethod
    def draw(self, shard: Any, indices: np.ndarray, generator: torch.Generator) -> Any:
        """The same, with nothing changed."""

    def augmented(self, shard: Any, indices: np.ndarray, generator: torch.Generator) -> Any:
        """A shard of these samples alone, changed. Here: of images; a learner of one's own whose samples are
        more, such as images with masks, changes both alike.

        Args:
            shard: what `encode_client` gave.
            indices: [b], of samples in the shard.
            generator: every draw comes from it, on the CPU.
        """
        i = torch.from_numpy(indices).to(shard.images.device)
        return ImageShard(self.changed(shard.images[i], generator), shard.labels[i])

    def changed(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images uint8 [b, c, h, w], changed by each of `data.augment` in its turn.

        Raises:
            ValueError: for what one of them makes of images that is none of their shape.
        """
        for augment in self.augments:
            changed = augment.change(images, generator)
            if changed.shape != images.shape or changed.dtype != torch.uint8:
                got = f"{list(changed.shape)} {changed.dtype} of {list(images.shape)}"
                raise ValueError(
                    f"{augment.section.kind}: got {got}, expected uint8 images of the same shape"
                )
            images = changed
        return images

    @cached_property
    def augments(self) -> list[Augment]:
        """What changes images, in its order. Raises Refused for what does not fit them."""
        channels = self.context.dataset.channels
        return [implementation(each)(each, channels, self.size) for each in self.context.augment]

    def refuse_augment(self, blank: Any) -> None:
        """Raises Refused where samples are to be changed that are no images alone.

        Args:
            blank: a shard without anything in it.
        """
        if not self.context.augment:
            return
        assert self.augments is not None
        if type(self).augmented is Augments.augmented and type(blank) is not ImageShard:
            got = f"{self.context.augment[0].kind} for samples that are no images alone"
            raise Refused("data.augment", got, "none, or a learner that has `augmented`")
