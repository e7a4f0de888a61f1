"""What each player adds to what a coalition is worth, such as each update to the quality of a global model
(Song et al. 2019; Wang et al. 2020)."""

from collections.abc import Callable
from itertools import combinations
from math import comb

import numpy as np

Worth = Callable[[tuple[int, ...]], float]  # of a coalition: its players' numbers, ascending


def leave_one_out(players: int, worth: Worth) -> np.ndarray:
    """What all players together are worth, less what they are without each one of them [players].

    Args:
        players: how many there are.
        worth: of a coalition.
    """
    everybody = tuple(range(players))
    whole = worth(everybody) if players else 0.0
    return np.array([whole - worth((*everybody[:i], *everybody[i + 1 :])) for i in everybody])


def shapley_values(players: int, worth: Worth) -> np.ndarray:
    """What each player adds on average over all orders in which they may join [players]: the sum over the
    coalitions S without it of |S|! (n - |S| - 1)! / n! (v(S and it) - v(S)) (Shapley 1953). They add up to
    what all are worth less what nobody is. Each of the 2^n coalitions is looked at once.

    Args:
        players: n.
        worth: v, of a coalition.
    """
    worths = {s: worth(s) for k in range(players + 1) for s in combinations(range(players), k)}
    values = np.zeros(players)
    for coalition, value in worths.items():
        n = len(coalition)
        for i in set(range(players)).difference(coalition):
            added = worths[tuple(sorted((*coalition, i)))] - value
            values[i] += added / (players * comb(players - 1, n))
    return values
