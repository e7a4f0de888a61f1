"""Kinds of allocation: how a band is shared among those that send at once."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fedray.network import allocation
from fedray.network.least_energy import Tasks, Uploads, least_energy
from fedray.scenario.allocation import AllocationSection
from fedray.scenario.kinds import implementation


@dataclass(frozen=True)
class Senders:
    """Those that send at once in one direction of a network [n].

    Attributes:
        clients: by number; on a downlink those that are sent to.
        bits: that each sends.
        rate: bits a second of each for shares [..., n] of the band; 0 for one that an equal share does not
            reach.
        equal_shares: gives the share of each where all have the same.
        ready_s: gives when each is ready to send, in seconds since the round's start, where its device
            computes at its highest frequency.
        tasks: gives what each device does before it has sent, where devices may choose their frequencies.
    """

    clients: np.ndarray
    bits: np.ndarray
    rate: allocation.Rate
    equal_shares: Callable[[], np.ndarray]
    ready_s: Callable[[], np.ndarray]
    tasks: Callable[[], Tasks]


class Allocation(ABC):
    """How a band is shared. One of one's own in which shares grow with what is sent:

    >>> class ByBits(Allocation):
    ...     def shares(self, senders):
    ...         return senders.bits / senders.bits.sum()
    >>> one = ByBits(AllocationSection(kind="mine:ByBits"))
    >>> nothing = lambda: np.zeros(2)
    >>> of_two = Senders(np.arange(2), np.array([1e6, 3e6]), lambda share: share, nothing, nothing, nothing)
    >>> one.shares(of_two).tolist()
    [0.25, 0.75]

    Args:
        section: of the scenario, the link's `allocation`.
    """

    Section: ClassVar[type[AllocationSection]] = AllocationSection

    def __init__(self, section: Any) -> None:
        self.section = section

    @abstractmethod
    def shares(self, senders: Senders) -> np.ndarray:
        """Each one's share of the band [n], above 0; those that send at the same time have at most 1
        together."""


class EqualAllocation(Allocation):
    """The same share for all."""

    def shares(self, senders: Senders) -> np.ndarray:
        return senders.equal_shares()


class WholeBand(Allocation):
    """All receive the whole band."""

    def shares(self, senders: Senders) -> np.ndarray:
        return np.ones(len(senders.clients))


class MinMaxAllocation(Allocation):
    """All finish together."""

    def shares(self, senders: Senders) -> np.ndarray:
        return allocation.min_max(senders.bits, senders.ready_s(), senders.rate)


class ProportionalFairAllocation(Allocation):
    """The greatest product of rates."""

    def shares(self, senders: Senders) -> np.ndarray:
        return allocation.proportional_fair(senders.rate, len(senders.clients))


class LeastEnergyAllocation(Allocation):
    """The least energy of all before the deadline. One that nothing brings there in time has an equal
    share."""

    def shares(self, senders: Senders) -> np.ndarray:
        n = len(senders.clients)
        share = np.full(n, 1 / n)
        uploads = Uploads.of_rate(senders.bits, senders.rate)
        tasks = senders.tasks()
        able = np.isfinite(uploads.least_share(tasks.spare_s))
        best = least_energy(tasks.of(able), uploads.of(able), band=float(able.mean())) if able.any() else None
        if best is not None:
            share[able] = best.share
        return share


def open_allocation(section: AllocationSection) -> Allocation:
    """The allocation that a section of the scenario names."""
    opened: Allocation = implementation(section)(section)
    return opened
