"""Gaussian noise, from the scenario's seed or from the operating system."""

import os

import numpy as np
import torch
from torch import Tensor

from fedray.scenario.privacy import Noise

AT_ONCE = 1 << 18  # numbers, so that the bytes they are made of stay few


def gaussian(n: int, source: Noise, key: int) -> Tensor:
    """Independent normal numbers [n] float64, of mean 0 and variance 1.

    Args:
        n: how many.
        source: seed: from `key`. secret: from the operating system; no two calls give the same.
        key: of the draw.
    """
    if source == "seed":
        return torch.randn(n, generator=torch.Generator().manual_seed(key), dtype=torch.float64)
    parts = [_secret(min(AT_ONCE, n - start)) for start in range(0, n, AT_ONCE)]
    return torch.cat([torch.empty(0, dtype=torch.float64), *parts])


def _secret(n: int) -> Tensor:
    """By the inverse of the normal distribution, of 53 random bits each."""
    from scipy.special import ndtri

    bits = np.frombuffer(os.urandom(8 * n), np.uint64) >> np.uint64(11)
    return torch.from_numpy(ndtri((bits.astype(np.float64) + 0.5) * 2.0**-53))


def clipped(update: Tensor, norm: float) -> tuple[Tensor, bool]:
    """A vector [n] scaled down to a Euclidean norm where it is longer, and whether it was no longer."""
    length = float(torch.linalg.vector_norm(update, dtype=torch.float64))
    if length <= norm:
        return update, True
    return update * (norm / length), False
