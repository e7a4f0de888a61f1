"""The simulated clock of clients in tiers: those of a tier begin together, and the server takes its step when
all of them have ended."""

from collections.abc import Callable, Sequence

import numpy as np

from fedray.network.asynchronous import Arrival, Steps, Timeline
from fedray.network.flights import Flight, ServerStep
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.work import Loads
from fedray.schedule import Tier

ChooseClients = Callable[[RoundStart, int], list[int]]  # that begin, of a round, at a second, and a tier
ChooseTier = Callable[[int, Sequence[int]], int]  # that is next, of a round and the tiers that may be


class TierTimeline(Timeline):
    """One timeline across all rounds, for clients in tiers.

    Args:
        steps: when the server takes its step.
        work: what each step of a schedule does.
        radio: links and devices.
        choose: which clients of a tier begin.
        choose_tier: which tier is next, where only one is under way; None: all are.
        tiers: how many there are.
        start_s: when it begins.
        encodes: whether clients encode their samples in their first local update.
        next_s: when somebody is there.
    """

    def __init__(
        self,
        steps: Steps,
        work: Loads,
        radio: Radio,
        choose: ChooseClients,
        choose_tier: ChooseTier | None,
        tiers: int,
        start_s: float,
        encodes: bool,
        next_s: Arrival = lambda now_s: now_s,
    ) -> None:
        super().__init__(steps, work, radio, lambda *_: None, start_s, encodes, next_s)
        self.choose_clients = choose
        self.choose_tier = choose_tier
        self.tier_of: dict[int, int] = {}  # of each client under way, or whose tier has not ended
        self.ended: list[list[Flight]] = [[] for _ in range(tiers)]
        self.taken = [0] * tiers  # steps of each tier

    def next_step(self) -> ServerStep:
        """The next round: a tier's clients have all ended."""
        self.round += 1
        while True:
            if self.now_s >= self.open_s:
                self._start_tiers()
                if not self.flights:
                    if self._wait():
                        continue
                    return self._server_step([])
            flight = self._advance()
            if flight is None:
                continue
            tier = self.tier_of[flight.client]
            self.ended[tier].append(flight)
            if not any(self.tier_of.get(client) == tier for client in self.flights):
                return self._step_of(tier)

    def _step_of(self, tier: int) -> ServerStep:
        arrived = self.ended[tier]
        self.ended[tier] = []
        for flight in arrived:
            del self.tier_of[flight.client]
        self.taken[tier] += any(flight.outcome == "done" for flight in arrived)
        return self._server_step(arrived)._replace(tier=Tier(tier, tuple(self.taken)))

    def _start_tiers(self) -> None:
        """Those that are not under way begin; where only one is at a time, one of them."""
        idle = [tier for tier in range(len(self.taken)) if tier not in self.tier_of.values()]
        if self.choose_tier is not None:
            idle = [self.choose_tier(self.round, idle)] if len(idle) == len(self.taken) else []
        for tier in idle:
            for client in self.choose_clients(RoundStart(self.round, self.now_s), tier):
                self.tier_of[client] = tier
                self._begin(client)


def in_tiers(finish_s: np.ndarray, clients: np.ndarray, tiers: int) -> list[np.ndarray]:
    """Clients by how long their rounds take, the fastest first, in so many parts of the same size (or one
    more); of equals the first.

    Args:
        finish_s: about how long each one's round takes [n].
        clients: by number [n].
        tiers: how many parts.
    """
    return [np.sort(part) for part in np.array_split(clients[np.argsort(finish_s, kind="stable")], tiers)]
