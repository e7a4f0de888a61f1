"""A sum of weighted updates that comes out the same in any order and any grouping."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BOUND = 2.0**10  # no weight moves further in a round
CHUNK = 1 << 18  # numbers at a time: float64 temporaries stay small beside a large model


@dataclass
class ExactSum:
    """Updates are rounded to a power-of-two grid, so that every partial sum is an integer number of grid
    steps below 2^53 and float64 adds it exactly. The grid follows from the round's whole weight, known before
    it starts: for 20 samples it is 2^-37, and a relay's single update in fp16 passes unchanged.
    """

    total: Tensor  # [numel] float64: sum of n_k u_k
    weight: int  # sum of n_k
    round_weight: int  # that of all who might be added in this round
    added: int = 0  # updates

    @classmethod
    def zero(cls, numel: int, round_weight: int) -> ExactSum:
        return cls(torch.zeros(numel, dtype=torch.float64), 0, round_weight)

    @property
    def grid(self) -> float:
        return 2.0 ** -(52 - math.ceil(math.log2(max(2, self.round_weight))) - int(math.log2(BOUND)))

    def add(self, update: Tensor, weight: int, base: Tensor | None = None) -> None:
        """Adds n u, or n (u - base), for tensors [numel] of any floating dtype.

        Raises:
            ValueError: where the update is not finite or too large to be summed exactly; nothing is added
                then.
        """
        self.refuse_unsummable(update, base)
        # Adding and taking away a number whose last bit is the grid rounds to the grid, in float64's own
        # rounding.
        rounder = 1.5 * 2.0**52 * self.grid
        for c in chunks(len(self.total)):
            step = _scratch(c.stop - c.start, torch.float64).copy_(update[c])
            if base is not None:
                step -= base[c]
            self.total[c].add_(step.add_(rounder).sub_(rounder), alpha=weight)
        self.weight += weight
        self.added += 1

    @staticmethod
    def refuse_unsummable(update: Tensor, base: Tensor | None = None) -> None:
        for c in chunks(len(update)):
            part = update[c]
            if base is None and part.dtype == torch.float32 and torch.dot(part, part).item() < BOUND**2:
                continue  # no number is larger than all together, and this is twice as fast
            if base is not None:
                part = _scratch(c.stop - c.start, torch.float32).copy_(part)
                part -= base[c]
            low, high = torch.aminmax(part)
            if not (change := max(-low.item(), high.item())) < BOUND:  # NaN is not below it either
                raise ValueError(f"an update changes a weight by {change:g}, expected less than {BOUND:g}")

    def merge(self, other: ExactSum) -> None:
        """Into memory of its own: what came from another process can only be read."""
        assert self.round_weight == other.round_weight
        self.total = self.total + other.total
        self.weight += other.weight
        self.added += other.added

    def __reduce__(self):
        """As numpy, which Ray's object store passes on without a copy."""
        return _rebuilt, (self.total.numpy(), self.weight, self.round_weight, self.added)


def _rebuilt(total: np.ndarray, weight: int, round_weight: int, added: int) -> ExactSum:
    return ExactSum(torch.from_numpy(total), weight, round_weight, added)


_memory: dict[torch.dtype, Tensor] = {}


def _scratch(n: int, dtype: torch.dtype) -> Tensor:
    """Memory for n numbers, the same each time: fresh pages cost more than the sums."""
    if dtype not in _memory:
        _memory[dtype] = torch.empty(CHUNK, dtype=dtype)
    return _memory[dtype][:n]


def chunks(numel: int) -> Iterator[slice]:
    return (slice(i, min(i + CHUNK, numel)) for i in range(0, numel, CHUNK))
