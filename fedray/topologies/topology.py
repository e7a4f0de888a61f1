"""What every topology offers: it writes a round down as a schedule. It trains and moves nothing."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from fedray.scenario.base import Refused
from fedray.scenario.topology_section import TopologySection
from fedray.schedule import Schedule


class Sidelinks(Protocol):
    """What a topology may ask of the links between clients in its round."""

    @property
    def reaches_all(self) -> bool:
        """Whether every client reaches every other."""

    def rates_bps(self, sender: int, receivers: Collection[int]) -> np.ndarray:
        """Mean rates from one client to others; 0 for one out of range."""

    def in_range(self, sender: int, receivers: Collection[int]) -> np.ndarray:
        """Whom of others a client can reach at all, bool."""

    def arrives(self, sender: int, receiver: int, share: float, buffers: int = 1) -> bool:
        """Whether the round's first hop between two arrives.

        Args:
            sender: a client.
            receiver: another one.
            share: of the band that it has.
            buffers: how many of the model's size it carries.
        """

    def nearest_groups(self, clients: Sequence[int], n: int) -> list[list[int]]:
        """The clients in so many groups of neighbours."""

    def refuse_alone(self, client: int, others: Sequence[int]) -> Refused:
        """What is said of a client that reaches nobody."""


@dataclass(frozen=True)
class Sharing:
    """Who shares masks and keys with whom, and how many holders give a secret back."""

    neighbours: Mapping[int, tuple[int, ...]]
    threshold: int


@dataclass(frozen=True)
class Cells:
    """The cells of the uplink.

    Attributes:
        serving: the cell of each client of the population, as the round begins.
        count: how many there are.
        idle: those that serve nobody at any time.
    """

    serving: Sequence[int]
    count: int
    idle: Sequence[int] = ()


@dataclass(frozen=True)
class RoundContext:
    """What a round is written down from.

    Attributes:
        round_number: from 1.
        clients: that take part, sorted.
        rng: makes the round's generator for orders and groups.
        batches: sizes of the batches of a client's local update.
        deadline_s: seconds after which the server aggregates what is there; None: it waits for all.
        min_updates: with how many updates it aggregates; None: with all.
        sidelinks: between clients.
        first: of these clients, those that come before all others of their chain.
        last: those that come behind all others.
        sharing: for secure aggregation; None: without it.
        order: in which these clients train one after another; empty: the topology's own.
        population: how many clients there are, whether or not they take part.
        weights: what each client of the population weighs in a mean; empty: all the same.
        neighbours: of each client of the population those that it sends to, where a file says so.
        cells: which cell serves whom.
    """

    round_number: int
    clients: Sequence[int]
    rng: Callable[[], np.random.Generator] = field(default=np.random.default_rng)
    batches: Callable[[int], Sequence[int]] = lambda client: []
    deadline_s: float | None = None
    min_updates: int | None = None
    sidelinks: Sidelinks | None = None
    first: Collection[int] = ()
    last: Collection[int] = ()
    sharing: Sharing | None = None
    order: Sequence[int] = ()
    population: int = 0
    weights: Sequence[int] = ()
    neighbours: Mapping[int, Sequence[int]] | None = None
    cells: Callable[[], Cells] = lambda: Cells((), 0)


class Topology(ABC):
    """Who sends what to whom, and when. A topology of one's own in which clients send their updates one after
    another:

        class OneByOne(fedray.Topology):
            def schedule(self, context):
                steps, ups = [], []
                for k in context.clients:
                    down = fedray.Send(f"down-{k}", fedray.SERVER_ID, k, "downlink")
                    train = fedray.Train(f"train-{k}", k, (down.id,))
                    up = fedray.Send(f"up-{k}", k, fedray.SERVER_ID, "uplink", (train.id, *ups[-1:]))
                    steps += [down, train, up]
                    ups.append(up.id)
                aggregate = fedray.Aggregate("aggregate", tuple(ups))
                return fedray.Schedule(context.round_number, (*steps, aggregate))

    Args:
        section: the scenario's `topology`.
    """

    Section: ClassVar[type[TopologySection]] = TopologySection

    def __init__(self, section: Any) -> None:
        self.section = section

    @abstractmethod
    def schedule(self, context: RoundContext) -> Schedule:
        """One round: its steps, and what each waits for. The first step that a step waits for leaves the
        buffer that it takes.

        Raises:
            Refused: for a round that cannot be.
        """
