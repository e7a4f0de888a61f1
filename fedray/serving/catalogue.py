"""What users ask edges for: adapters over bases, how large each is and how often it is requested."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Catalogue:
    """Adapters over bases. A request names an adapter, and is a hit where both it and its base are cached.

    Items are what is cached: first the bases, then the adapters.

    Attributes:
        base_bytes: of each base [bases].
        adapter_bytes: of each adapter [adapters].
        base_of: the base that each adapter belongs to [adapters] int.
        popularity: the share of requests that name each adapter; adds up to 1 [adapters].
    """

    base_bytes: np.ndarray
    adapter_bytes: np.ndarray
    base_of: np.ndarray
    popularity: np.ndarray

    def __post_init__(self) -> None:
        """Raises ValueError where a size is below zero, or an adapter's base is none."""
        if not (min(self.base_bytes, default=0) >= 0 and min(self.adapter_bytes, default=0) >= 0):
            raise ValueError("sizes: got one below 0 bytes, expected at least 0")
        known = (self.base_of >= 0) & (self.base_of < len(self.base_bytes))
        if not known.all():
            got = self.base_of[~known].tolist()
            raise ValueError(f"base_of: got {got}, expected 0 to {len(self.base_bytes) - 1}")

    @property
    def bases(self) -> int:
        """How many bases there are."""
        return len(self.base_bytes)

    @cached_property
    def item_bytes(self) -> np.ndarray:
        """Of each base, then of each adapter [items]."""
        return np.concatenate([self.base_bytes, self.adapter_bytes]).astype(float)

    def items_of(self, adapter: int) -> np.ndarray:
        """What a request for an adapter needs: its base's item and its own [2]."""
        return np.array([self.base_of[adapter], self.bases + adapter])

    def hits(self, cached: np.ndarray) -> np.ndarray:
        """Which adapters are cached with their base [adapters] bool. `cached`: which items are
        [items] bool."""
        return cached[self.bases :] & cached[: self.bases][self.base_of]

    def hit_ratio(self, cached: np.ndarray) -> float:
        """The share of requests that are hits. `cached`: which items are [items] bool."""
        return float(self.popularity @ self.hits(cached))

    def merged(self) -> "Catalogue":
        """The same models as copies with their adapter merged in: each has the bytes of its base and of its
        adapter, and shares nothing (one base of no bytes)."""
        copies = self.adapter_bytes + self.base_bytes[self.base_of]
        return Catalogue(np.zeros(1), copies, np.zeros(len(copies), np.int64), self.popularity)


def zipf(n: int, alpha: float) -> np.ndarray:
    """Shares of requests that fall with the rank as rank^-alpha, and add up to 1 [n] (Zipf's law).

    Args:
        n: how many ranks.
        alpha: 0: all alike.
    """
    weights = np.arange(1, n + 1) ** -float(alpha)
    shares: np.ndarray = weights / weights.sum()
    return shares
