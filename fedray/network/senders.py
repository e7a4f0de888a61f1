"""What those that share a band do before they send, as an allocation may ask for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from fedray.network.allocations import Senders
from fedray.network.least_energy import Tasks
from fedray.network.links import RoundStart, TransferRequests
from fedray.network.radio import Radio
from fedray.network.simulation import Simulation
from fedray.schedule import Schedule
from fedray.steps import Send


class Transfer(Protocol):
    """A transfer that is known."""

    def starting_at(self, start_s: float) -> tuple[float, float]:
        """Seconds and joules of one that starts at a second."""


@dataclass(frozen=True)
class KnownRound:
    """A round of which some transfers are known.

    Attributes:
        schedule: its steps.
        loads: of each step, in bytes or floating-point operations.
        radio: the links and devices.
        start: the round.
        transfers: those that are known, by their places; the others take no time.
        waits_s: of steps that wait beside their work.
    """

    schedule: Schedule
    loads: Sequence[float]
    radio: Radio
    start: RoundStart
    transfers: Mapping[int, Transfer]
    waits_s: Mapping[int, float]

    def starts_s(self, without: frozenset[int] = frozenset()) -> list[float]:
        """When each step would start, in seconds since the round's start, if the computing `without`, by its
        places, took no longer than it waits."""

        def duration_s(i: int, now_s: float) -> float:
            if i in self.schedule.computing:
                device = self.radio.device(self.schedule.computing[i])
                busy_s = 0.0 if i in without else device.time_s(self.loads[i])
                return busy_s + self.waits_s.get(i, 0.0)
            known = self.transfers.get(i)
            return 0.0 if known is None else known.starting_at(self.start.time_s + now_s)[0]

        return Simulation(self.schedule, duration_s).run().start_s

    def own_computing(self, place: int) -> list[int]:
        """The places of what a sender computes before a send step."""
        client = cast(Send, self.schedule.steps[place]).sender
        waiting = [place]
        seen: set[int] = set()
        while waiting:
            new = [i for i in self.schedule.before[waiting.pop()] if i not in seen]
            seen.update(new)
            waiting += new
        return sorted(i for i in seen if self.schedule.computing.get(i) == client)

    def slowed(self, places: Sequence[int]) -> tuple[list[list[int]], np.ndarray]:
        """What the sender of each send step computes before it, and when all else is there that it waits for
        [n], in seconds since the round's start: from then on it may compute as slowly as it likes. What it
        computes earlier than that only makes it ready sooner."""
        own = [self.own_computing(place) for place in places]
        starts_s = self.starts_s(frozenset(i for steps in own for i in steps))
        return own, np.array([starts_s[place] for place in places])

    def tasks(self, places: Sequence[int], requests: TransferRequests) -> Tasks:
        """What the senders of these send steps do, with what the network's deadline leaves them."""
        deadline_s = self.radio.section.deadline_s
        assert deadline_s is not None
        own, ready_s = self.slowed(places)
        devices = [self.radio.device(client) for client in requests.sender.tolist()]
        flops = [sum(self.loads[i] for i in steps) for steps in own]
        most_hz = np.array([device.frequency_hz for device in devices])
        cycle = np.array([device.cycles(1.0) for device in devices])
        joules = np.array([device.energy_j(1.0, device.frequency_hz) for device in devices])
        link = self.radio.links["uplink"]
        return Tasks(
            cycles=cycle * np.array(flops),
            capacitance=joules / (cycle * most_hz**2),
            most_hz=most_hz,
            left_s=deadline_s - ready_s - link.latency_s * requests.messages,
            power_w=link.sending_w(requests.sender),
        )

    def senders(
        self, places: Sequence[int], requests: TransferRequests, equal_shares: Callable[[], np.ndarray]
    ) -> Senders:
        """Those of one direction's send steps.

        Args:
            places: of the steps.
            requests: of these transfers.
            equal_shares: gives the share of each where all have the same.
        """
        direction = cast(Send, self.schedule.steps[places[0]]).direction
        rates = self.radio.links[direction].share_rates(self.start, requests.sender, requests.receiver)

        def ready_s() -> np.ndarray:
            starts_s = self.starts_s()
            return np.array([starts_s[place] for place in places])

        return Senders(
            requests.client,
            8.0 * requests.nbytes,
            lambda share: rates(share, 1 / len(places)),
            equal_shares,
            ready_s,
            lambda: self.tasks(places, requests),
        )
