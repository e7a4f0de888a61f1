"""A cache of bases and adapters, and the policies that say what it keeps."""

from copy import copy
from typing import Any, ClassVar

import numpy as np

from fedray.scenario.cache import CachePolicySection
from fedray.serving.catalogue import Catalogue
from fedray.serving.placement import greedy_placement, optimal_placement


class CachePolicy:
    """Which bases and adapters a cache keeps, such as those that came last, as in a queue:

        class FirstInFirstOut(fedray.CachePolicy):
            def worth(self, cache):
                return cache.fetched_at

    A policy has placement or worth, or both.

    Args:
        section: the policy's, of the scenario's `cache`.
    """

    Section: ClassVar[type[CachePolicySection]] = CachePolicySection

    def __init__(self, section: Any) -> None:
        self.section = section

    def placement(self, catalogue: Catalogue, capacity_bytes: float) -> np.ndarray:
        """The items that are cached before the first request [items] bool. Here: none.

        Args:
            catalogue: of what is requested, and how often.
            capacity_bytes: of the cache.
        """
        return np.zeros(len(catalogue.item_bytes), bool)

    def worth(self, cache: "Cache") -> np.ndarray | None:
        """What each item is worth keeping [items]: an item that was missed gets room from those of less or
        equal worth, the least first; one of infinite worth stays. None, as here: what is cached stays, and
        nothing else is kept.

        Args:
            cache: with the request that is being served counted in.
        """
        return None


class Cache:
    """What one edge has cached, from request to request.

    Args:
        catalogue: of what is requested.
        capacity_bytes: how much fits.
        policy: what is kept.

    Attributes:
        cached: which items are there [items] bool: first the bases, then the adapters.
        requests: how often each item has been needed [items].
        used_at: the number of the request, from 1, that needed each item last; 0: none has [items].
        fetched_at: the number of the request for which each item was fetched last; 0: none has [items].
    """

    def __init__(self, catalogue: Catalogue, capacity_bytes: float, policy: CachePolicy) -> None:
        self.catalogue = catalogue
        self.capacity_bytes = capacity_bytes
        self.policy = policy
        self.cached = policy.placement(catalogue, capacity_bytes).copy()
        used = float(catalogue.item_bytes[self.cached].sum())
        if used > capacity_bytes * (1 + 1e-6):
            raise ValueError(f"placement: got {used:.0f} bytes, expected at most {capacity_bytes:.0f}")
        self.count = 0
        items = len(catalogue.item_bytes)
        self.requests = np.zeros(items)
        self.used_at = np.zeros(items)
        self.fetched_at = np.zeros(items)

    def copied(self, cached: np.ndarray) -> "Cache":
        """Another cache in the same state. `cached`: the array in which it has its items [items] bool."""
        cached[:] = self.cached
        other = copy(self)
        other.cached = cached
        other.requests = self.requests.copy()
        other.used_at = self.used_at.copy()
        other.fetched_at = self.fetched_at.copy()
        return other

    def request(self, adapter: int) -> float:
        """Serves a request for an adapter, and keeps what the policy says.

        Returns:
            bytes that had to be fetched; 0: a hit.
        """
        self.count += 1
        needed = self.catalogue.items_of(adapter)
        self.requests[needed] += 1
        self.used_at[needed] = self.count
        fetched = needed[~self.cached[needed]]
        if len(fetched):
            self.fetched_at[fetched] = self.count
            self._keep(fetched, needed)
        return float(self.catalogue.item_bytes[fetched].sum())

    def _keep(self, fetched: np.ndarray, needed: np.ndarray) -> None:
        """Keeps what was fetched, where there is room or the policy makes some.

        Args:
            fetched: items that were missing.
            needed: all items of the request, which make no room.
        """
        worth = self.policy.worth(self)
        if worth is None:
            return
        sizes = self.catalogue.item_bytes
        free = self.capacity_bytes - sizes[self.cached].sum()
        lacking = sizes[fetched].sum() - free
        limit = np.min(worth[fetched])
        removable = self.cached & (worth <= limit) & np.isfinite(worth)
        removable[needed] = False
        order = np.flatnonzero(removable)
        order = order[np.argsort(worth[order], kind="stable")]
        room = np.concatenate([[0.0], np.cumsum(sizes[order])])
        enough = np.flatnonzero(room >= lacking)
        if len(enough):
            self.cached[order[: enough[0]]] = False
            self.cached[fetched] = True


class Optimal(CachePolicy):
    """The highest hit ratio that fits, by integer programming."""

    def placement(self, catalogue: Catalogue, capacity_bytes: float) -> np.ndarray:
        return optimal_placement(catalogue, capacity_bytes)


class Greedy(CachePolicy):
    """By popularity per byte, each adapter with its base."""

    def placement(self, catalogue: Catalogue, capacity_bytes: float) -> np.ndarray:
        return greedy_placement(catalogue, capacity_bytes)


class Lfu(CachePolicy):
    """The least frequently used makes room."""

    def worth(self, cache: Cache) -> np.ndarray:
        return cache.requests


class Lru(CachePolicy):
    """The least recently used makes room."""

    def worth(self, cache: Cache) -> np.ndarray:
        return cache.used_at


class HitsPerByte(CachePolicy):
    """The fewest requests per byte makes room, but never a base in use."""

    def worth(self, cache: Cache) -> np.ndarray:
        worth = cache.requests / np.maximum(cache.catalogue.item_bytes, 1.0)
        worth[cache.catalogue.base_of[cache.cached[cache.catalogue.bases :]]] = np.inf
        return worth
