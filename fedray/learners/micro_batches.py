"""A step's batch in micro-batches, whose gradients add up to its own (`training.accumulate`)."""

from collections.abc import Iterator
from copy import copy
from typing import Any

from torch import Tensor


class TakesMicroBatches:
    """What a learner says for its batches to be cut."""

    def counted(self, batch: Any, samples: int) -> float:
        """What a batch's `loss` is a mean over, so that micro-batches add up to the mean over all of it
        (`training.accumulate`). Here: its samples; of a mean over tokens, the tokens that are judged.

        Args:
            batch: a step's inputs, or a part of one's.
            samples: that it has.
        """
        return float(samples)


def micro_batches(
    learner: TakesMicroBatches, batch: Any, size: int, most: int
) -> Iterator[tuple[Any, float]]:
    """A batch's micro-batches in their order, each with its share of the loss: as many shares as there are
    samples, or whatever else the learner's loss is a mean over.

    Args:
        learner: whose loss it is.
        batch: a step's inputs, every draw made: a tensor of so many samples, or an object of such tensors.
        size: of the batch, in samples.
        most: samples of a micro-batch.
    """
    if size <= most:
        yield batch, 1.0
        return
    counted = learner.counted(batch, size)
    for start in range(0, size, most):
        piece = part_of(batch, slice(start, min(start + most, size)))
        yield piece, learner.counted(piece, min(most, size - start)) / counted


def part_of(batch: Any, samples: slice) -> Any:
    """Some of the samples of a batch, which is a tensor, or an object of tensors."""
    if isinstance(batch, Tensor):
        return batch[samples]
    piece = copy(batch)
    vars(piece).update({name: v[samples] for name, v in vars(batch).items() if isinstance(v, Tensor)})
    return piece
