"""The simulated clock of rounds in which clients do not wait for each other: one timeline across rounds. A
round is a server step; who is under way when it is taken stays under way."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection
from typing import Protocol

import numpy as np

from fedray.network.block_band import BlockBand, BlockTransfer
from fedray.network.flights import Flight, ServerStep, Stage
from fedray.network.links import Link, RoundStart, TransferRequests
from fedray.network.radio import Radio
from fedray.network.shared_band import SharedBand, SharedTransfer
from fedray.network.work import Loads
from fedray.randomness import SERVER_ID
from fedray.steps import Aggregate, Send, Train

# Which client begins next: of a round, at a second, without those that may not; None: nobody.
Choose = Callable[[RoundStart, Collection[int]], int | None]
Arrival = Callable[[float], float]  # the first second, from one on, at which a client is there


class Steps(Protocol):
    """When the server takes its step."""

    @property
    def at_once(self) -> int:
        """How many clients are under way at the same time, at most."""

    @property
    def updates_per_step(self) -> int:
        """With how many updates it takes its step."""

    @property
    def stalest(self) -> int | None:
        """The staleness of the oldest update that is taken; None: all are."""


class Band(Protocol):
    """What all transfers of a direction that are under way share, whenever they begin."""

    def begin(self, now_s: float, round_number: int, ends: tuple[int, int], nbytes: float) -> None: ...

    def next_end(self) -> tuple[float, int] | None: ...

    def end(self, now_s: float, client: int) -> SharedTransfer | BlockTransfer: ...

    def leave(self, now_s: float, client: int) -> SharedTransfer | BlockTransfer: ...


def _band(link: Link, most: int) -> Band | None:
    """The band of a link of which so many transfers may be under way; None: each has its own rate."""
    if link.allocation is None:
        return None
    if link.allocation.section.by_blocks:
        return BlockBand(link)
    return SharedBand(link, most) if link.allocation.section.shares_equally else None


class Timeline:
    """One timeline across all rounds. Transfers over links whose band is shared, equally or by blocks, share
    it with whoever sends at the same time; over others each has its own rate.

    Args:
        steps: when the server takes its step.
        work: what each step of a schedule does.
        radio: links and devices.
        choose: who begins next.
        start_s: when it begins.
        encoded: whether clients encode their samples in their first local update.
        next_s: when somebody is there.
    """

    def __init__(
        self,
        steps: Steps,
        work: Loads,
        radio: Radio,
        choose: Choose,
        start_s: float,
        encoded: bool,
        next_s: Arrival = lambda now_s: now_s,
    ) -> None:
        self.steps = steps
        self.work = work
        self.radio = radio
        self.choose = choose
        self.next_s = next_s
        self.now_s = start_s
        self.round = 0  # the server step that is awaited, or was the last
        self.encodes = encoded
        self.encoded: set[int] = set()
        self.flights: dict[int, Flight] = {}
        self.leaves_s: dict[int, float] = {}  # when those under way leave who do
        self.ends: list[tuple[float, int]] = []  # of stages whose ends are known, with their clients
        self.open_s = start_s  # when the server has taken its last step
        bands = {d: _band(radio.links[d], steps.at_once) for d in ("downlink", "uplink")}
        self.bands = {direction: band for direction, band in bands.items() if band is not None}

    def next_step(self) -> ServerStep:
        """The next round."""
        self.round += 1
        arrived: list[Flight] = []
        done = 0
        while done < self.steps.updates_per_step:
            if self.now_s >= self.open_s:
                self._fill({flight.client for flight in arrived})
                if not self.flights:
                    if self._wait():
                        continue
                    break
            flight = self._advance()
            if flight is not None:
                arrived.append(flight)
                done += flight.outcome == "done"
        return self._server_step(arrived)

    def _wait(self) -> bool:
        """Where nobody is there, time goes on until somebody is; whether it did."""
        before_s = self.now_s
        self.now_s = self.next_s(before_s)
        return self.now_s > before_s

    def _server_step(self, arrived: list[Flight]) -> ServerStep:
        aggregate = Aggregate("aggregate", tuple(flight.steps[2].id for flight in arrived))
        used = tuple(flight.steps[2].id for flight in arrived if flight.outcome == "done")
        flops = self.work.load(Aggregate("aggregate", used))
        start_s = max(self.now_s, self.open_s)
        server = self.radio.server
        self.open_s = start_s + server.time_s(flops)
        heapq.heappush(self.ends, (self.open_s, SERVER_ID))
        stage = Stage(flops, start_s, self.open_s, server.energy_j(flops), "done")
        versions = frozenset(flight.version for flight in self.flights.values())
        return ServerStep(arrived, aggregate, stage, versions)

    def _fill(self, ended: set[int]) -> None:
        """Clients begin until enough are under way."""
        while len(self.flights) < self.steps.at_once:
            client = self.choose(RoundStart(self.round, self.now_s), ended | self.flights.keys())
            if client is None:
                return
            self._begin(client)

    def _begin(self, client: int) -> None:
        """A client begins, with the newest model."""
        encodes = self.encodes and client not in self.encoded
        self.encoded.add(client)
        down = Send(f"down-{client}", SERVER_ID, client, "downlink")
        train = Train(f"train-{client}", client, (down.id,), encodes=encodes)
        up = Send(f"up-{client}", client, SERVER_ID, "uplink", (train.id,))
        flight = Flight(client, self.round - 1, (down, train, up))
        self.flights[client] = flight
        if math.isfinite(leaves_s := self.radio.devices.leaves_s(self.now_s, client)):
            self.leaves_s[client] = leaves_s
        self._send(flight, down)

    def _send(self, flight: Flight, step: Send) -> None:
        nbytes = self.work.load(step)
        round_number = flight.version + 1
        if step.direction in self.bands:
            ends = (step.sender, step.receiver)
            self.bands[step.direction].begin(self.now_s, round_number, ends, nbytes)
            flight.stages.append(Stage(nbytes, self.now_s, self.now_s, 0.0, "done"))
            return
        values = (step.sender, step.receiver, nbytes, 1, 1.0, 0)
        requests = TransferRequests(*(np.array([value]) for value in values))
        start = RoundStart(round_number, self.now_s)
        costs = self.radio.links[step.direction].transfers(start, requests)
        seconds = float(costs.time_s[0])
        joules = float(costs.energy_j[0])
        if costs.at is not None:
            seconds, joules = costs.at(0, self.now_s)
        outcome = "lost" if costs.lost[0] or not np.isfinite(seconds) else "done"
        if not np.isfinite(seconds):  # nothing is sent to a receiver out of reach
            nbytes = seconds = joules = 0.0
        self._push(flight, Stage(nbytes, self.now_s, self.now_s + seconds, joules, outcome))

    def _train(self, flight: Flight) -> None:
        step = flight.steps[1]
        flops = self.work.load(step)
        waits_s = self.work.wait_s(step)
        drops = self.radio.devices.drops(flight.version + 1, np.array([flight.client]))
        part = drops.get(flight.client, 1.0)
        device = self.radio.device(flight.client)
        flops *= part
        waits_s *= part
        seconds = device.time_s(flops) + waits_s
        joules = device.energy_j(flops) + device.section.idle_w * waits_s
        outcome = "dropped" if flight.client in drops else "done"
        self._push(flight, Stage(flops, self.now_s, self.now_s + seconds, joules, outcome, waits_s))

    def _push(self, flight: Flight, stage: Stage) -> None:
        flight.stages.append(stage)
        heapq.heappush(self.ends, (stage.end_s, flight.client))

    def _advance(self) -> Flight | None:
        """Goes on to the end of the next stage, of those at the same second the first client's; the flight
        that has ended with it, where one has."""
        time_s, client, direction = self._next_end()
        leave_s, leaving = min(((at, c) for c, at in self.leaves_s.items()), default=(math.inf, client))
        if leave_s < time_s:
            return self._leave(self.flights[leaving], max(self.now_s, leave_s))
        self.now_s = max(self.now_s, time_s)
        if direction is None:
            heapq.heappop(self.ends)
            if client == SERVER_ID:
                return None
        flight = self.flights[client]
        if direction is not None:
            transfer = self.bands[direction].end(self.now_s, client)
            outcome = "lost" if transfer.lost else "done"
            begun = flight.stages[-1]
            flight.stages[-1] = begun._replace(end_s=self.now_s, joules=transfer.joules, outcome=outcome)
        if flight.outcome == "done" and len(flight.stages) == 1:
            self._train(flight)
            return None
        if flight.outcome == "done" and len(flight.stages) == 2:
            self._send(flight, flight.steps[2])
            return None
        return self._ended(flight)

    def _next_end(self) -> tuple[float, int, str | None]:
        """The second, the client, and the direction where its band is shared."""
        ends: list[tuple[float, int, str | None]] = [(*self.ends[0], None)] if self.ends else []
        for direction, band in self.bands.items():
            if (end := band.next_end()) is not None:
                ends.append((*end, direction))
        return min(ends, key=lambda end: end[:2])

    def _leave(self, flight: Flight, now_s: float) -> Flight:
        """A client leaves: what it was about comes to nothing, and so does the flight."""
        self.now_s = now_s
        stage = flight.stages[-1]
        step = flight.steps[len(flight.stages) - 1]
        if isinstance(step, Send) and step.direction in self.bands:
            transfer = self.bands[step.direction].leave(now_s, flight.client)
            part = 1 - transfer.left
            joules = transfer.joules
        else:
            self.ends = [end for end in self.ends if end[1] != flight.client]
            heapq.heapify(self.ends)
            part = (now_s - stage.start_s) / (stage.end_s - stage.start_s)
            joules = part * stage.joules
        flight.stages[-1] = stage._replace(
            load=part * stage.load,
            end_s=now_s,
            joules=joules,
            outcome="lost" if isinstance(step, Send) else "dropped",
            waits_s=part * stage.waits_s,
        )
        return self._ended(flight)

    def _ended(self, flight: Flight) -> Flight:
        """A flight that is over; what comes too stale is not taken."""
        del self.flights[flight.client]
        self.leaves_s.pop(flight.client, None)
        most = self.steps.stalest
        if flight.outcome == "done" and most is not None and self.round - 1 - flight.version > most:
            flight.stages[-1] = flight.stages[-1]._replace(outcome="stale")
        return flight
