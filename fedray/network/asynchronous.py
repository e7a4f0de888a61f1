"""The simulated clock of rounds in which clients do not wait for each other: one timeline across rounds. A
round is a server step; who is under way when it is taken stays under way."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from fedray.network.block_band import BlockBand, BlockTransfer
from fedray.network.clock import waiting
from fedray.network.ledger import Event
from fedray.network.links import Link, RoundStart, TransferRequests
from fedray.network.radio import Radio
from fedray.network.shared_band import SharedBand, SharedTransfer
from fedray.network.work import Loads
from fedray.randomness import SERVER_ID
from fedray.schedule import Tier
from fedray.steps import SERVER_NODE, Aggregate, Send, Train

# Which client begins next: of a round, without those that may not; None: nobody.
Choose = Callable[[int, Collection[int]], int | None]


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


class Stage(NamedTuple):
    """A transfer or a local update of a client under way."""

    load: float  # bytes or floating-point operations
    start_s: float
    end_s: float
    joules: float
    outcome: str  # as in Event
    waits_s: float = 0.0


@dataclass
class Flight:
    """A client from the second at which the server begins to send it a model until its update has arrived.

    Attributes:
        client: by number.
        version: of the model that it gets: how many server steps made it.
        steps: downlink, local update, uplink.
        stages: what has been done of them.
    """

    client: int
    version: int
    steps: tuple[Send, Train, Send]
    stages: list[Stage] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """Of the last stage."""
        return self.stages[-1].outcome

    @property
    def end_s(self) -> float:
        return self.stages[-1].end_s


class Band(Protocol):
    """What all transfers of a direction that are under way share, whenever they begin."""

    def begin(self, now_s: float, round_number: int, ends: tuple[int, int], nbytes: float) -> None: ...

    def next_end(self) -> tuple[float, int] | None: ...

    def end(self, now_s: float, client: int) -> SharedTransfer | BlockTransfer: ...


def _band(link: Link, most: int) -> Band | None:
    """The band of a link of which so many transfers may be under way; None: each has its own rate."""
    if link.allocation is None:
        return None
    if link.allocation.section.by_blocks:
        return BlockBand(link)
    return SharedBand(link, most) if link.allocation.section.shares_equally else None


class ServerStep(NamedTuple):
    """A round: who has arrived, in the order of (time, client), and the server's own step."""

    flights: list[Flight]
    aggregate: Aggregate
    stage: Stage
    versions: frozenset[int]  # of the models that clients under way had from the server
    tier: Tier | None = None  # whose clients they are, where groups of clients begin together


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
    """

    def __init__(
        self, steps: Steps, work: Loads, radio: Radio, choose: Choose, start_s: float, encoded: bool
    ) -> None:
        self.steps = steps
        self.work = work
        self.radio = radio
        self.choose = choose
        self.now_s = start_s
        self.round = 0  # the server step that is awaited, or was the last
        self.encodes = encoded
        self.encoded: set[int] = set()
        self.flights: dict[int, Flight] = {}
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
                    break
            flight = self._advance()
            if flight is not None:
                arrived.append(flight)
                done += flight.outcome == "done"
        return self._server_step(arrived)

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
            client = self.choose(self.round, ended | self.flights.keys())
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

    def _ended(self, flight: Flight) -> Flight:
        """A flight that is over; what comes too stale is not taken."""
        del self.flights[flight.client]
        most = self.steps.stalest
        if flight.outcome == "done" and most is not None and self.round - 1 - flight.version > most:
            flight.stages[-1] = flight.stages[-1]._replace(outcome="stale")
        return flight


def events_of(round_number: int, step: ServerStep, started_s: float, radio: Radio) -> list[Event]:
    """Lines of the timeline of a server step: those of clients that have ended in it, who may have begun
    before it, and its own.

    Args:
        round_number: of the step.
        step: what has ended in it.
        started_s: when the step before it had ended.
        radio: the devices.
    """
    events = [
        event
        for flight in step.flights
        for event in (_event(round_number, flight, i) for i in range(len(flight.steps)))
    ]
    stage = step.stage
    own = Event(
        round_number, step.aggregate.id, step.aggregate.after, "aggregate", SERVER_NODE, None, None,
        stage.load, 0, stage.start_s, stage.end_s, stage.joules,
    )  # fmt: skip
    idle_s = stage.start_s - started_s
    joules = radio.server.section.idle_w * idle_s
    return [
        *events,
        own,
        *([waiting(round_number, SERVER_ID, stage.start_s, idle_s, joules)] if joules else []),
    ]


def _event(round_number: int, flight: Flight, i: int) -> Event:
    """A line of the timeline of one of a flight's steps; of one that was never begun, as skipped."""
    step = flight.steps[i]
    skipped = Stage(0.0, flight.end_s, flight.end_s, 0.0, "skipped")
    stage = flight.stages[i] if i < len(flight.stages) else skipped
    sends = isinstance(step, Send)
    return Event(
        round=round_number,
        id=step.id,
        after=step.after,
        event="send" if sends else "train",
        node=step.node,
        peer=getattr(step, "peer", None),
        direction=getattr(step, "direction", None),
        flops=0.0 if sends else stage.load,
        bytes=int(stage.load) if sends else 0,
        t0_s=stage.start_s,
        t1_s=stage.end_s,
        energy_j=stage.joules,
        outcome=stage.outcome,
        encoded=getattr(step, "encodes", False),
        client=flight.client,
        waits_s=stage.waits_s,
    )
