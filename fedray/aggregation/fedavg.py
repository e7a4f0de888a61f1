"""FedAvg (McMahan et al. 2017, Algorithm 1): w_{t+1} = w_t + sum_k n_k (w_k - w_t) / sum_k n_k."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class FedAvg:
    """A sum of weighted updates that comes out the same in any order and any grouping.

    Updates are rounded to a power-of-two grid, so that every partial sum is an integer number of grid steps below 2^53
    and float64 adds it exactly. The grid follows from the round's samples, known before it starts: for 20 samples it is
    2^-38, and a relay's single update in fp16 passes unchanged.
    """

    total: Tensor  # [numel] float64: sum of n_k (w_k - w_t)
    samples: int
    grid: float

    BOUND = 2.0**10  # no weight moves further in a round

    @classmethod
    def zero(cls, numel: int, round_samples: int) -> FedAvg:
        """Nothing added yet, in a round of `round_samples` samples over all its clients."""
        bits = 52 - math.ceil(math.log2(max(2, round_samples))) - int(math.log2(cls.BOUND))
        return cls(torch.zeros(numel, dtype=torch.float64), 0, 2.0**-bits)

    def add(self, local: Tensor, base: Tensor, samples: int) -> None:
        """Adds n_k (w_k - w_t), where `local` is w_k and `base` w_t, [numel] each.

        Raises:
            ValueError: where the update is not finite or too large to be summed exactly; nothing is added then.
        """
        self.refuse_unsummable(local, base)
        for c in _chunks(len(base)):
            step = torch.round((local[c].double() - base[c].double()) / self.grid)
            self.total[c] += step * (self.grid * samples)
        self.samples += samples

    @classmethod
    def refuse_unsummable(cls, local: Tensor, base: Tensor) -> None:
        change = max((float((local[c].double() - base[c].double()).abs().max()) for c in _chunks(len(base))), default=0.0)
        if not change < cls.BOUND:  # NaN is not below it either
            raise ValueError(f"an update changes a weight by {change:g}, expected less than {cls.BOUND:g}")

    def merge(self, other: FedAvg) -> None:
        assert self.grid == other.grid
        self.total += other.total
        self.samples += other.samples

    def finish(self, base: Tensor) -> Tensor:
        """w_{t+1} in `base`'s dtype; w_t itself where nobody sent anything."""
        new = base.clone()
        if self.samples:
            for c in _chunks(len(base)):
                new[c] = (base[c].double() + self.total[c] / self.samples).to(base.dtype)
        return new


def _chunks(numel: int, size: int = 1 << 16) -> Iterator[slice]:
    """Slices that stay in the cache, and keep float64 temporaries small beside a large model."""
    return (slice(i, i + size) for i in range(0, numel, size))
