"""Krum and Multi-Krum (Blanchard et al. 2017, Sec. 4): an update's score is the sum of its squared distances
from its n - f - 2 nearest others, and the lowest scores are taken."""

import numpy as np
import torch
from torch import Tensor

from fedray.aggregation.accumulators import Updates
from fedray.aggregation.robust import WholeUpdateRule, mean, squared_distances


def scores(distances: np.ndarray, attackers: int) -> np.ndarray:
    """Krum's score of each of n updates, the lower the better.

    Args:
        distances: squared, of each two of them [n, n].
        attackers: f.

    Returns:
        [n] float64. At least one neighbour counts, where Bulyan has few updates left.
    """
    return _from_others(distances)[:, : max(1, len(distances) - attackers - 2)].sum(axis=1)


def ranking(distances: np.ndarray, attackers: int) -> np.ndarray:
    """The updates from the lowest score to the highest. Two whose only neighbour is the other have equal
    scores; then the one that is nearer to all others goes first, and of two equal ones the first.

    Args:
        distances: squared, of each two of them [n, n].
        attackers: f.
    """
    return np.lexsort((_from_others(distances).sum(axis=1), scores(distances, attackers)))


def _from_others(distances: np.ndarray) -> np.ndarray:
    """The distances of each update from the n - 1 others, sorted."""
    return np.sort(distances, axis=1)[:, 1:]  # the first is that from itself, 0


class Krum(WholeUpdateRule):
    """The update with the lowest score."""

    def combine(self, result: Updates) -> Tensor:
        values = result.values[:, 0]
        ranked = ranking(squared_distances(values).numpy(), self.section.attackers)
        return mean(values[torch.from_numpy(np.sort(ranked[: self._selected(len(values))]))])[None]

    def _selected(self, updates: int) -> int:
        """How many the mean is of."""
        return 1


class MultiKrum(Krum):
    """The mean of the `selected` updates with the lowest scores."""

    def _selected(self, updates: int) -> int:
        most = updates - self.section.attackers
        return min(self.section.selected or most, most)
