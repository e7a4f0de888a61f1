"""Bulyan (El Mhamdi et al. 2018, Sec. 4), over Krum."""

import numpy as np
import torch
from torch import Tensor

from fedray.aggregation.accumulators import Updates
from fedray.aggregation.krum import ranking
from fedray.aggregation.robust import WholeUpdateRule, parts, squared_distances


class Bulyan(WholeUpdateRule):
    """Krum selects theta = n - 2 f updates, one after another from those that are left. Of each number, the
    mean of the beta = theta - 2 f values nearest to their median is taken."""

    def combine(self, result: Updates) -> Tensor:
        values = result.values[:, 0]
        attackers = self.section.attackers
        chosen = selected(squared_distances(values).numpy(), attackers)
        values = values[torch.from_numpy(chosen)]
        count = len(chosen) - 2 * attackers
        return torch.cat([mean_near_median(values[:, part].double(), count) for part in parts(values)])[None]


def selected(distances: np.ndarray, attackers: int) -> np.ndarray:
    """Which n - 2 f updates Krum takes one by one, sorted.

    Args:
        distances: squared, of each two of n updates [n, n].
        attackers: f.
    """
    left = np.arange(len(distances))
    chosen: list[int] = []
    while len(chosen) < len(distances) - 2 * attackers:
        best = ranking(distances[np.ix_(left, left)], attackers)[0]
        chosen.append(int(left[best]))
        left = np.delete(left, best)
    return np.sort(np.array(chosen))


def mean_near_median(values: Tensor, count: int) -> Tensor:
    """Of each number [n, numbers] the mean of the `count` values nearest to its median; of two that are
    equally near, the smaller."""
    ordered = values.sort(dim=0).values
    n = len(ordered)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    nearest = (ordered - median).abs().argsort(dim=0, stable=True)[:count]
    return ordered.gather(0, nearest).mean(0)
