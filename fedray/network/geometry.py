"""Where the devices of a cell are, and when."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fedray.lazy import resolve
from fedray.network.movement import Movement
from fedray.randomness import uniforms
from fedray.scenario.cell import Cell, Disc, Line, Places, RandomWaypoint

Function = TypeVar("Function", bound=Callable[..., Any])


def cache_last_call(function: Function) -> Function:
    """`function(places, ...)` gives its last answer again for the same arguments (the same array of places,
    not an equal one): both directions of a cell ask for the same."""
    last_places: np.ndarray | None = None
    last_others: tuple[Any, ...] = ()
    answer: Any = None

    @wraps(function)
    def cached(places: np.ndarray, *others: Any) -> Any:
        nonlocal last_places, last_others, answer
        if places is not last_places or not _same(others, last_others):
            last_places = places
            last_others = others
            answer = function(places, *others)
        return answer

    return cached  # type: ignore[return-value]


def _same(some: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """Whether all are equal; arrays have to be the same."""
    pairs = zip(some, others, strict=False)
    return all(a is b or (not isinstance(a, np.ndarray) and a == b) for a, b in pairs)


class Geometry:
    """Positions [clients, 2] in metres around the server at (0, 0). A way is a file's or drawn leg by leg, so
    where a client is follows from the seed and the time alone."""

    leg: np.ndarray  # the number of each client's leg, where it leads, and when it is left and ended
    from_: np.ndarray
    to: np.ndarray
    leave_s: np.ndarray
    arrive_s: np.ndarray
    time_s: float
    positions: np.ndarray | None  # at that time

    def __init__(self, cell: Cell, clients: int, seed: int, folder: Path = Path()) -> None:
        """
        Args:
            cell: of the scenario.
            clients: how many there are.
            seed: the run's.
            folder: where relative paths start.
        """
        self.cell = cell
        self.seed = seed
        self.clients = np.arange(clients)
        self.movement: Movement | None = None
        if (read := cell.placement.read_movement) is not None:
            self.movement = resolve(read)(cell.placement, folder, "network.cell.placement.path", clients)
        self._start()
        self.initial_positions = self.from_.copy()

    @property
    def moves(self) -> bool:
        """Whether anybody does."""
        return self.movement is not None or self.cell.mobility is not None

    def at(self, time_s: float) -> np.ndarray:
        """The positions at a round's start, within which nobody moves. The same array for the same time, and
        as long as nobody moves at all."""
        mobility = self.cell.mobility
        if not self.moves:
            return self.from_
        if time_s == self.time_s and self.positions is not None:
            return self.positions
        if self.movement is not None:
            self.time_s = time_s
            self.positions = self.movement.at(time_s)
            return self.positions
        assert mobility is not None
        if time_s < self.time_s:
            self._start()
        self.time_s = time_s
        while len(moving := np.flatnonzero(self.arrive_s + mobility.pause_s <= time_s)):
            self._next_leg(moving, mobility)
        way = (time_s - self.leave_s) / np.maximum(self.arrive_s - self.leave_s, 1e-9)
        self.positions = self.from_ + (self.to - self.from_) * np.clip(way, 0, 1)[:, None]
        return self.positions

    def _start(self) -> None:
        n = len(self.clients)
        self.time_s = 0.0
        self.positions = None
        self.leg = np.zeros(n, int)
        self.from_ = self._placed(self.clients, self.leg)
        self.to = self.from_.copy()
        self.leave_s = np.zeros(n)
        self.arrive_s = np.zeros(n)

    def _next_leg(self, moving: np.ndarray, mobility: RandomWaypoint) -> None:
        slow, fast = mobility.speed_mps
        self.from_[moving] = self.to[moving]
        self.leave_s[moving] = self.arrive_s[moving] + mobility.pause_s
        barred = moving
        while len(barred):  # a way through the inner circle is not taken: another place is drawn
            self.leg[barred] += 1
            self.to[barred] = self._placed(barred, self.leg[barred])
            barred = barred[self._passed_m(barred) < getattr(self.cell.placement, "least_m", 0.0)]
        speed = slow + (fast - slow) * uniforms(self.seed, 0, "speed", moving, self.leg[moving])
        self.arrive_s[moving] = (
            self.leave_s[moving] + np.linalg.norm(self.to[moving] - self.from_[moving], axis=1) / speed
        )

    def _passed_m(self, clients: np.ndarray) -> np.ndarray:
        """How near to the server their ways lead."""
        start = self.from_[clients]
        way = self.to[clients] - self.from_[clients]
        part = -(start * way).sum(1) / np.maximum((way * way).sum(1), 1e-9)
        return np.linalg.norm(start + np.clip(part, 0.0, 1.0)[:, None] * way, axis=1)

    def _placed(self, clients: np.ndarray, leg: np.ndarray) -> np.ndarray:
        placement = self.cell.placement
        n = len(self.clients)
        if self.movement is not None:
            return self.movement.at(0.0)
        if isinstance(placement, Line):
            return np.stack(
                [(clients - (n - 1) / 2) * placement.spacing_m, np.full(len(clients), placement.offset_m)], 1
            )
        if isinstance(placement, Disc):
            return disc(
                placement,
                uniforms(self.seed, 0, "distance", clients, leg),
                uniforms(self.seed, 0, "angle", clients, leg),
            )
        assert isinstance(placement, Places)
        return np.array(placement.at, float)


def disc(placement: Disc, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Evenly over the area between two circles [n, 2], of two uniform draws each."""
    radius = np.sqrt(placement.least_m**2 + (placement.radius_m**2 - placement.least_m**2) * u)
    return np.stack([radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)], 1)


def nearest_groups(
    positions: np.ndarray, clients: Sequence[int] | np.ndarray, groups: int
) -> list[list[int]]:
    """Clients in so many groups of neighbours, as equal in size as can be: the area is halved across its
    longer side, with the groups, until each has one (k-d tree, Bentley 1975)."""
    members = np.asarray(clients)
    if groups == 1:
        return [sorted(int(c) for c in members)]
    own = positions[members]
    order = members[np.lexsort((members, own[:, int(np.argmax(np.ptp(own, axis=0)))]))]
    sizes = [len(part) for part in np.array_split(members, groups)]
    low = groups // 2
    cut = sum(sizes[:low])
    return nearest_groups(positions, order[:cut], low) + nearest_groups(positions, order[cut:], groups - low)
