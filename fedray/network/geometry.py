"""Where the devices of a cell are, and when."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from fedray.randomness import uniforms
from fedray.scenario.cell import Cell, Disc, Line, RandomWaypoint

Found = TypeVar("Found", bound=Callable[..., Any])


def remembered(find: Found) -> Found:
    """`find(places, ...)` gives its last answer again for the same array of places: both directions of a cell
    ask."""
    last: list[Any] = [None, (), None]

    @wraps(find)
    def found(places: np.ndarray, *others: Any) -> Any:
        if last[0] is not places or any(
            a is not b and (isinstance(a, np.ndarray) or a != b)
            for a, b in zip(last[1], others, strict=False)
        ):
            last[:] = places, others, find(places, *others)
        return last[2]

    return found  # type: ignore[return-value]


class Geometry:
    """Places [clients, 2] in metres around the server at (0, 0). A way is drawn leg by leg, so where somebody
    is follows from the seed and the time alone."""

    leg: np.ndarray  # each one's own, and when it is left and ended
    from_: np.ndarray
    to: np.ndarray
    leave_s: np.ndarray
    arrive_s: np.ndarray
    asked_s: float
    here: np.ndarray | None  # where they are then

    def __init__(self, cell: Cell, clients: int, seed: int) -> None:
        self.cell, self.seed, self.everybody = cell, seed, np.arange(clients)
        self._start()
        self.began = self.from_.copy()  # where everybody was first

    def at(self, time_s: float) -> np.ndarray:
        """Nobody moves within a round: these are the places at its start. The same array for the same time,
        and as long as nobody moves at all."""
        mobility = self.cell.mobility
        if mobility is None:
            return self.from_
        if time_s == self.asked_s and self.here is not None:
            return self.here
        if time_s < self.asked_s:
            self._start()
        self.asked_s = time_s
        while len(on := np.flatnonzero(self.arrive_s + mobility.pause_s <= time_s)):
            self._next_leg(on, mobility)
        way = (time_s - self.leave_s) / np.maximum(self.arrive_s - self.leave_s, 1e-9)
        self.here = self.from_ + (self.to - self.from_) * np.clip(way, 0, 1)[:, None]
        return self.here

    def _start(self) -> None:
        n = len(self.everybody)
        self.asked_s, self.here, self.leg = 0.0, None, np.zeros(n, int)
        self.from_ = self._placed(self.everybody, self.leg)
        self.to, self.leave_s, self.arrive_s = self.from_.copy(), np.zeros(n), np.zeros(n)

    def _next_leg(self, on: np.ndarray, mobility: RandomWaypoint) -> None:
        slow, fast = mobility.speed_mps
        self.from_[on], self.leave_s[on] = self.to[on], self.arrive_s[on] + mobility.pause_s
        barred = on
        while len(barred):  # a way through the inner circle is not taken: another place is drawn
            self.leg[barred] += 1
            self.to[barred] = self._placed(barred, self.leg[barred])
            barred = barred[self._passed_m(barred) < getattr(self.cell.placement, "least_m", 0.0)]
        speed = slow + (fast - slow) * uniforms(self.seed, 0, "speed", on, self.leg[on])
        self.arrive_s[on] = self.leave_s[on] + np.linalg.norm(self.to[on] - self.from_[on], axis=1) / speed

    def _passed_m(self, who: np.ndarray) -> np.ndarray:
        """How near to the server their ways lead."""
        start, way = self.from_[who], self.to[who] - self.from_[who]
        part = -(start * way).sum(1) / np.maximum((way * way).sum(1), 1e-9)
        return np.linalg.norm(start + np.clip(part, 0.0, 1.0)[:, None] * way, axis=1)

    def _placed(self, who: np.ndarray, leg: np.ndarray) -> np.ndarray:
        placement, n = self.cell.placement, len(self.everybody)
        if isinstance(placement, Line):
            return np.stack(
                [(who - (n - 1) / 2) * placement.spacing_m, np.full(len(who), placement.offset_m)], 1
            )
        if isinstance(placement, Disc):
            return disc(
                placement,
                uniforms(self.seed, 0, "distance", who, leg),
                uniforms(self.seed, 0, "angle", who, leg),
            )
        return np.array(placement.at, float)


def disc(placement: Disc, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Evenly over the area between two circles [n, 2], of two uniform draws each."""
    radius = np.sqrt(placement.least_m**2 + (placement.radius_m**2 - placement.least_m**2) * u)
    return np.stack([radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)], 1)


def nearest(places: np.ndarray, clients: Sequence[int] | np.ndarray, groups: int) -> list[list[int]]:
    """Clients in so many groups of neighbours, as equal in size as can be: the area is halved across its
    longer side, with the groups, until each has one (k-d tree, Bentley 1975)."""
    members = np.asarray(clients)
    if groups == 1:
        return [sorted(int(c) for c in members)]
    here = places[members]
    order = members[np.lexsort((members, here[:, int(np.argmax(np.ptp(here, axis=0)))]))]
    sizes = [len(part) for part in np.array_split(members, groups)]
    low = groups // 2
    cut = sum(sizes[:low])
    return nearest(places, order[:cut], low) + nearest(places, order[cut:], groups - low)
