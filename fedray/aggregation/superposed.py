"""A sum that the channel makes of signals that are sent at once, with the receiver's noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from fedray.aggregation.accumulators import ExactSum, chunks
from fedray.randomness import SERVER, key


class SuperposedSum(ExactSum):
    """Weighted updates that are added on the air. The sum is exact until the server receives it: then each
    number has Gaussian noise.

    Client k sends a w_k u_k, two numbers a complex symbol, with the same a for all: that with which the
    loudest, whose w_k rms(u_k) is the largest, c, arrives with the receive signal-to-noise ratio SNR. So the
    sum of w_k u_k has noise of standard deviation c / sqrt(SNR), a number. (A symbol of two numbers of mean
    square a^2 c^2 arrives with power 2 a^2 c^2 = SNR N, for noise of power N, half of it on each number:
    sqrt(N / 2) / a = c / sqrt(SNR).)
    """

    def __init__(self, numel: int, round_weight: int, total: Tensor | None = None) -> None:
        super().__init__(numel, round_weight, total)
        self.loudest = 0.0  # c: the largest root mean square of a weighted update

    def _add(self, update: Tensor, weight: int, client: int, base: Tensor | None) -> None:
        assert base is None, "only updates that are sent as they are add up on the air"
        super()._add(update, weight, client, base)
        length = float(torch.linalg.vector_norm(update, dtype=torch.float64))
        self.loudest = max(self.loudest, weight * length / math.sqrt(max(1, self.numel)))

    def _merge(self, other: Self) -> None:
        super()._merge(other)
        self.loudest = max(self.loudest, other.loudest)

    def received(self, snr: float, seed: int, round_number: int) -> ExactSum:
        """What the server has of it.

        Args:
            snr: the receive signal-to-noise ratio, linear.
            seed: the run's.
            round_number: from 1; noise is drawn with a key for each part of the numbers.
        """
        deviation = self.loudest / math.sqrt(snr)
        total = self.total.clone()
        for part in chunks(self.numel):
            draws = key(seed, round_number, SERVER, f"over the air {part.start}")
            generator = torch.Generator().manual_seed(draws)
            noise = torch.randn(part.stop - part.start, generator=generator, dtype=torch.float64)
            total[part].add_(noise, alpha=deviation)
        noisy = self._with(total, self.weight, self.added)
        noisy.counts = self.counts
        noisy.directions = self.directions
        return noisy

    def __reduce__(self) -> tuple[Any, ...]:
        whole, (total, *facts) = super().__reduce__()
        return _rebuilt, (self.loudest, whole, total, *facts)


def _rebuilt(loudest: float, whole: Callable[..., ExactSum], total: np.ndarray, *facts: Any) -> SuperposedSum:
    plain = whole(total, *facts)
    rebuilt = SuperposedSum(plain.numel, plain.round_weight)._with(plain.total, plain.weight, plain.added)
    rebuilt.counts = plain.counts
    rebuilt.directions = plain.directions
    rebuilt.loudest = loudest
    return rebuilt
