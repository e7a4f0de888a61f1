"""Which clients take part in a round: one function or class for each way to choose them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fedray.data.census import distance
from fedray.scenario.kinds import implementation
from fedray.scenario.population import SelectionSection


@dataclass(frozen=True)
class SelectionContext:
    """What clients are chosen by.

    Attributes:
        round_number: from 1.
        available: clients that can be selected in this round, sorted [n] int.
        eligible: clients that can be selected in any round, sorted [m] int.
        count: how many are wanted, at most n.
        rate: with what probability each takes part, where chance says how many do; None: `count` do.
        rng: the round's generator for this.
        label_counts: how many samples of each label each client reports [clients, labels]; None: not
            reported.
        finish_times_s: about how long the round of each of some clients takes, as a function of how many
            share each band; None: not known.
        uplink_speedups: how much faster than at its mean rate each of some clients' uplinks of this round is.
        deadline_s: of the round.
    """

    round_number: int
    available: np.ndarray
    eligible: np.ndarray
    count: int
    rng: np.random.Generator
    label_counts: np.ndarray | None = None
    finish_times_s: Callable[[np.ndarray], Callable[[int], np.ndarray]] | None = None
    uplink_speedups: Callable[[np.ndarray, int], np.ndarray] | None = None
    deadline_s: float | None = None
    rate: float | None = None


class Selection(ABC):
    """A way to choose a round's clients, such as those with the largest numbers:

        class Last(fedray.Selection):
            def choose(self, context):
                return context.available[-context.count:]

    Args:
        section: the scenario's `population.selection`.
    """

    Section: ClassVar[type[SelectionSection]] = SelectionSection

    def __init__(self, section: Any) -> None:
        self.section = section

    @abstractmethod
    def choose(self, context: SelectionContext) -> Sequence[int] | np.ndarray:
        """At most `context.count` of `context.available`, each once."""


def choose(selection: Any, context: SelectionContext) -> list[int]:
    """The clients of a round, sorted.

    Args:
        selection: the scenario's `population.selection`.
        context: what they are chosen by.
    """
    if context.count == 0:
        return []
    if isinstance(selection, str):
        chosen = SELECTIONS[selection](context)
    else:
        chosen = implementation(selection)(selection).choose(context)
    return sorted(int(client) for client in chosen)


def random(context: SelectionContext) -> np.ndarray:
    """Each with the same probability; `count` of them, or each by itself."""
    if context.rate is not None:
        return context.available[context.rng.random(len(context.available)) < context.rate]
    return context.rng.choice(context.available, context.count, replace=False)


def round_robin(context: SelectionContext) -> np.ndarray:
    """One after another."""
    first = context.eligible[(context.round_number - 1) * context.count % len(context.eligible)]
    start = np.searchsorted(context.available, first)
    return np.roll(context.available, -start)[: context.count]


def label_cover(context: SelectionContext) -> list[int]:
    """One drawn at random, then always the one with which the labels of all chosen so far come nearest to
    evenly many of each (earth mover's distance, Zhao et al. 2018; of equals, one at random)."""
    counts = context.label_counts
    assert counts is not None
    left = context.rng.permutation(context.available)
    chosen = [int(left[0])]
    together = counts[left[0]].astype(float)
    left = left[1:]
    while len(chosen) < context.count:
        pooled = together + counts[left]
        best = int(np.argmin(distance(pooled, np.ones(counts.shape[1]))))
        chosen.append(int(left[best]))
        together = pooled[best]
        left = np.delete(left, best)
    return chosen


def proportional_fair(context: SelectionContext) -> np.ndarray:
    """Those whose uplink of this round is fastest in proportion to its own mean rate (Yang et al. 2020);
    among equals chance decides."""
    assert context.uplink_speedups is not None
    speedups = context.uplink_speedups(context.available, context.count)
    ties = context.rng.random(len(context.available))
    return context.available[np.lexsort((ties, -speedups))[: context.count]]


def fedcs(context: SelectionContext) -> np.ndarray:
    """Those that finish first, as many as finish before the deadline (Nishio and Yonetani 2019)."""
    assert context.finish_times_s is not None
    takes = context.finish_times_s(context.available)
    fastest = context.available[np.argsort(takes(context.count), kind="stable")[: context.count]]
    takes = context.finish_times_s(fastest)
    deadline_s = context.deadline_s or np.inf
    # the more there are, the less of the band has each
    low = 1
    high = context.count
    while low < high:
        middle = (low + high + 1) // 2
        if takes(middle)[:middle].max() <= deadline_s:
            low = middle
        else:
            high = middle - 1
    return fastest[:low]


SELECTIONS: dict[str, Callable[[SelectionContext], Any]] = {
    "random": random,
    "label_cover": label_cover,
    "round_robin": round_robin,
    "proportional_fair": proportional_fair,
    "fedcs": fedcs,
}
