"""What it takes to send a buffer over a link: the base class of every kind of link."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from fedray.network.allocations import Allocation
from fedray.network.geometry import Geometry
from fedray.scenario.kinds import implementation
from fedray.scenario.links import LinkSection

# Mean rates [..., n] in bit/s over shares [..., n] of the band (or one share for all), 0 for pairs that are
# out of reach when each has the second argument's share.
ShareRates = Callable[[np.ndarray | float, float], np.ndarray]


class RoundStart(NamedTuple):
    """A round, and the second since the run's start at which it begins."""

    round_number: int
    time_s: float


class TransferRequests(NamedTuple):
    """Transfers in one direction [n]. Clients by number, the server -1. `share` is each one's share of the
    band, and of a base station's power. `number` counts the transfers of a sender to a receiver in the round
    from 0, and tells apart their draws."""

    sender: np.ndarray
    receiver: np.ndarray
    nbytes: np.ndarray
    messages: np.ndarray  # that each wait for the one before
    share: np.ndarray
    number: np.ndarray

    @property
    def client(self) -> np.ndarray:
        return link_client(self.sender, self.receiver)


class Pace(Protocol):
    """How a transfer that is under way goes on over a link that varies with time."""

    def rest(self, now_s: float, left: float) -> tuple[float, float]:
        """Seconds from `now_s`, and joules, until this part of it is through."""

    def part(self, now_s: float, seconds: float) -> tuple[float, float]:
        """The part of it that goes through in so many seconds from `now_s`, and joules."""


@dataclass(frozen=True)
class TransferCosts:
    """Seconds from the first bit sent to the last received (infinite for a receiver out of reach), joules of
    both radios, and which never arrive [n]; where a link varies with time, `at(i, start_s)` gives seconds and
    joules of transfer i if it starts then. Where its rates depend on shares too, `paces` [n] say how each
    goes on that begins with the round: with them a share may change while it is under way."""

    time_s: np.ndarray
    energy_j: np.ndarray
    lost: np.ndarray
    at: Callable[[int, float], tuple[float, float]] | None = None
    paces: Sequence[Pace] | None = None


@dataclass(frozen=True)
class LinkContext:
    """What a link may need beside its own section.

    Attributes:
        direction: uplink, downlink or sidelink.
        key: where its section stands in the scenario, such as network.uplink.
        clients: how many there are.
        seed: the run's, for keyed draws (fedray.randomness).
        folder: where relative paths start.
        geometry: where clients are, and when; none: the scenario has no cell.
        transmit_dbm: each client's transmit power, or one for all; on a downlink the server's. None: the
            scenario names none.
    """

    direction: str = "uplink"
    key: str = "network.uplink"
    clients: int = 0
    seed: int = 0
    folder: Path = Path()
    geometry: Geometry | None = None
    transmit_dbm: np.ndarray | None = None


class Link(ABC):
    """One direction of a network. A kind of link gives `rates_bps` and `transfers`, such as one that sends at
    the rates of a table and takes a watt:

    >>> class TableLink(Link):
    ...     def rates_bps(self, start, sender, receiver):
    ...         return np.array([1e6, 2e6, 4e6])[link_client(sender, receiver)]
    ...
    ...     def transfers(self, start, requests):
    ...         time_s = 8 * requests.nbytes / self.rates_bps(start, requests.sender, requests.receiver)
    ...         return TransferCosts(time_s, 1.0 * time_s, np.zeros(len(time_s), bool))
    >>> link = TableLink(None, LinkContext())
    >>> link.rates_bps(RoundStart(1, 0.0), np.array([2, 0]), np.array([-1, -1])).tolist()
    [4000000.0, 1000000.0]
    """

    Section: ClassVar[type[LinkSection]] = LinkSection
    reaches_all = True  # whether every pair is in reach, in every round
    fades = False  # whether transfers of the same size over the same path differ by their own fades
    adjusts_power = False  # whether `rates_at_power` is there
    cell_count = 1  # of a Section with `several_cells`
    allocation: Allocation | None = None  # how those that send at once share the band; none: they do not

    def __init__(self, section: Any, context: LinkContext) -> None:
        self.section = section
        self.context = context

    @abstractmethod
    def rates_bps(self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
        """Mean rates over the whole band [n]; 0 for pairs out of reach."""

    @abstractmethod
    def transfers(self, start: RoundStart, requests: TransferRequests) -> TransferCosts:
        """What every transfer of a direction takes in a round."""

    @property
    def latency_s(self) -> float:
        return float(getattr(self.section, "latency_s", 0.0))

    def sending_w(self, sender: np.ndarray) -> np.ndarray:
        """Watts of both radios while a device sends over an uplink [n], for allocations that weigh them."""
        return np.zeros(len(sender))

    def in_reach(self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
        """Which receivers the senders reach at all [n], bool."""
        return np.ones(np.broadcast(sender, receiver).shape, bool)

    def cells(self, start: RoundStart, clients: np.ndarray) -> np.ndarray:
        """The cell that serves each of these clients [n]; those of one cell share a band."""
        return np.zeros(clients.shape, np.int64)

    def idle_cells(self) -> list[int]:
        """The cells that serve none of the clients at any time."""
        return []

    def share_rates(self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray) -> ShareRates:
        """Mean rates of these pairs as a function of their shares of the band."""
        rates = self.rates_bps(start, sender, receiver)
        return lambda share, fair_share: np.broadcast_to(
            rates, np.broadcast_shapes(np.shape(share), rates.shape)
        )

    def fading_speedup(self, start: RoundStart, requests: TransferRequests) -> np.ndarray:
        """How much faster than at its mean rate each transfer is as it fades [n]; 0 for one out of reach."""
        return np.ones(len(requests.sender))

    def symbol_transfers(
        self, start: RoundStart, requests: TransferRequests, symbols: np.ndarray
    ) -> TransferCosts:
        """What transfers take that go on the air as they are, uncoded: so many complex symbols [n] each, and
        no bytes. For a Section with `carries_symbols`."""
        raise NotImplementedError(f"{type(self).__name__} carries no symbols")

    def mean_snr_db(self, start: RoundStart, requests: TransferRequests) -> np.ndarray:
        """The mean signal-to-noise ratio of each transfer in dB, over its share of the band [n]. For a
        Section with `carries_symbols`."""
        raise NotImplementedError(f"{type(self).__name__} knows no signal-to-noise ratio")

    def receive_snr(self, start: RoundStart, requests: TransferRequests) -> float:
        """The signal-to-noise ratio, linear, with which the loudest of these clients' symbols arrive, whose
        signals add up. For a Section with `superposes`."""
        raise NotImplementedError(f"{type(self).__name__} does not add signals up")

    def rates_at_power(
        self, start: RoundStart, pair: tuple[int, int], share: float, fractions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean rates in bit/s [fractions] where a sender transmits with fractions of its power, and the watts
        that both radios take [fractions].

        Args:
            start: the round.
            pair: the sender and the receiver.
            share: of the band.
            fractions: of the sender's power, up to 1.
        """
        raise NotImplementedError(f"{type(self).__name__} does not adjust its power")


def open_link(section: LinkSection, context: LinkContext) -> Link:
    """The link that a section of the scenario names."""
    link: Link = implementation(section)(section, context)
    return link


def link_client(sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
    """The client whose link it is: the one at an end, or the sender of two."""
    return np.where(sender >= 0, sender, receiver)


def pair_numbers(sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
    """How many transfers from the same sender to the same receiver stand before each one [n]."""
    pair = (sender + 1) * (receiver.max(initial=0) + 2) + receiver + 1
    order = np.argsort(pair, kind="stable")
    first = np.flatnonzero(np.diff(pair[order], prepend=-1))  # of each pair's transfers, in that order
    numbers = np.empty(len(pair), np.int64)
    numbers[order] = np.arange(len(pair)) - np.repeat(first, np.diff(first, append=len(pair)))
    return numbers
