"""Where the devices of a cell are, and when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedray.randomness import SERVER, generator
from fedray.scenario.network import Cell, Disc, Line, RandomWaypoint


class Geometry:
    """Places [clients, 2] in metres around the server at (0, 0). A way is drawn leg by leg, so where somebody is follows from
    the seed and the time alone."""

    from_: np.ndarray  # the leg that each is on
    to: np.ndarray
    leave_s: np.ndarray
    arrive_s: np.ndarray
    asked_s: float

    def __init__(self, cell: Cell, clients: int, seed: int) -> None:
        self.cell, self.clients, self.seed = cell, clients, seed
        self._start()

    def at(self, time_s: float) -> np.ndarray:
        """Nobody moves within a round: these are the places at its start. The same array as long as nobody moves at all."""
        mobility = self.cell.mobility
        if mobility is None:
            return self.from_
        if time_s < self.asked_s:
            self._start()
        self.asked_s = time_s
        while (on := self.arrive_s + mobility.pause_s <= time_s).any():
            self._next_leg(on, mobility)
        way = (time_s - self.leave_s) / np.maximum(self.arrive_s - self.leave_s, 1e-9)
        here: np.ndarray = self.from_ + (self.to - self.from_) * np.clip(way, 0, 1)[:, None]
        return here

    def _start(self) -> None:
        self.asked_s, self.leg = 0.0, 0
        self.from_ = self._placed(0)
        self.to, self.leave_s, self.arrive_s = self.from_, np.zeros(self.clients), np.zeros(self.clients)

    def _next_leg(self, on: np.ndarray, mobility: RandomWaypoint) -> None:
        """Those who are `on` leave for their next place; the leg's draws are everybody's, whoever needs them now."""
        self.leg += 1
        to, speed = self._placed(self.leg), generator(self.seed, self.leg, SERVER, "speed").uniform(*mobility.speed_mps, self.clients)
        leave = self.arrive_s + mobility.pause_s
        self.from_, self.to = np.where(on[:, None], self.to, self.from_), np.where(on[:, None], to, self.to)
        took = np.linalg.norm(self.to - self.from_, axis=1) / speed
        self.leave_s, self.arrive_s = np.where(on, leave, self.leave_s), np.where(on, leave + took, self.arrive_s)

    def _placed(self, leg: int) -> np.ndarray:
        placement, n = self.cell.placement, self.clients
        if isinstance(placement, Line):
            return np.stack([(np.arange(n) - (n - 1) / 2) * placement.spacing_m, np.full(n, placement.offset_m)], 1)
        if isinstance(placement, Disc):
            return disc(placement, n, generator(self.seed, leg, SERVER, "places"))
        return np.array(placement.at, float)


def disc(placement: Disc, n: int, rng: np.random.Generator) -> np.ndarray:
    """Evenly over the area between two circles [n, 2]."""
    radius = np.sqrt(rng.uniform(placement.least_m**2, placement.radius_m**2, n))
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def nearest(places: np.ndarray, clients: Sequence[int] | np.ndarray, groups: int) -> list[list[int]]:
    """Clients in so many groups of neighbours, as equal in size as can be: the area is halved across its longer side, with
    the groups, until each has one (k-d tree, Bentley 1975)."""
    members = np.asarray(clients)
    if groups == 1:
        return [sorted(int(c) for c in members)]
    here = places[members]
    order = members[np.lexsort((members, here[:, int(np.argmax(np.ptp(here, axis=0)))]))]
    sizes = [len(part) for part in np.array_split(members, groups)]
    low = groups // 2
    cut = sum(sizes[:low])
    return nearest(places, order[:cut], low) + nearest(places, order[cut:], groups - low)
