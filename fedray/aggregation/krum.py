"""Krum and Multi-Krum (Blanchard et al. 2017, Sec. 4): an update's score is the sum of its squared distances
from its n - f - 2 nearest others, and the lowest scores are taken."""

import numpy as np
import torch
from torch import Tensor

from fedray.aggregation.accumulators import Updates
from fedray.aggregation.robust import WholeUpdateRule, mean, squared_distances


def scores(distances: np.ndarray, attackers: int) -> np.ndarray:
    """Krum's score of each of n updates.

    Args:
        distances: squared, of each two of them [n, n].
        attackers: f.

    Returns:
        [n] float64, the lower the better. At least one neighbour counts, where Bulyan has few updates left.
    """
    n = len(distances)
    others = np.sort(distances, axis=1)[:, 1:]  # without the distance from itself, 0
    return others[:, : max(1, n - attackers - 2)].sum(axis=1)


class Krum(WholeUpdateRule):
    """The update with the lowest score; of equal ones the client's with the lowest number."""

    def combine(self, result: Updates) -> Tensor:
        values = result.values[:, 0]
        ranked = scores(squared_distances(values).numpy(), self.section.attackers).argsort(kind="stable")
        return mean(values[torch.from_numpy(np.sort(ranked[: self._selected(len(values))]))])[None]

    def _selected(self, updates: int) -> int:
        """How many the mean is of."""
        return 1


class MultiKrum(Krum):
    """The mean of the `selected` updates with the lowest scores."""

    def _selected(self, updates: int) -> int:
        most = updates - self.section.attackers
        return min(self.section.selected or most, most)
