"""The simulated clock: times a schedule's steps before anything trains. No wall-clock reading reaches it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from typing import Any

import simpy

from fedray.network.devices import Device
from fedray.network.links import Fixed, Link
from fedray.randomness import SERVER as SERVER_NUMBER
from fedray.scenario.network import Network
from fedray.schedule import SERVER, Generate, Schedule, Send, Server, Step, Train


@dataclass(frozen=True)
class Event:
    """One step with its cost: a line of timeline.jsonl. Times since the run's start, in seconds."""

    round: int
    id: str
    after: tuple[str, ...]
    event: str  # train, generate, send, aggregate
    node: str
    peer: str | None
    direction: str | None
    flops: float
    bytes: int
    t0_s: float
    t1_s: float
    energy_j: float
    outcome: str = "done"

    def row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Work:
    """What each step of a schedule does, known before it is done."""

    train_flops: Callable[[int, int], float]  # of a client's turn, with so many generated pictures
    send_bytes: Callable[[str, int], int]  # of a whole buffer, in this direction, to or from (uplink, sidelink) this client
    aggregate_flops: Callable[[int], float]  # of so many updates
    generate_flops: float = 0.0  # of a picture
    picture_bytes: int = 0


class Radio:
    """Links and devices of a `network` section."""

    def __init__(self, section: Network) -> None:
        self.links: dict[str, Link] = {d: Fixed(getattr(section, d)) for d in ("uplink", "downlink", "sidelink")}
        self.device, self.server = Device(section.device), Device(section.server)

    def sidelink_rate_bps(self, sender: int, receiver: int) -> float:
        return self.links["sidelink"].rate_bps(sender, receiver)


def time_round(schedule: Schedule, work: Work, radio: Radio, start_s: float) -> list[Event]:
    """Every step's start, end and energy, in the schedule's order, as a discrete-event simulation (SimPy).

    A step starts when all it waits for have ended and its node is free: a device computes one thing at a time.
    """
    env = simpy.Environment()
    computing = {step.node: simpy.Resource(env, 1) for step in schedule if not isinstance(step, Send)}
    ended: dict[str, simpy.Process] = {}
    events: dict[str, Event] = {}

    def run(step: Step) -> Generator[simpy.Event, Any, None]:
        yield env.all_of([ended[i] for i in step.after])
        if isinstance(step, Send):
            t0 = env.now
            sender, receiver = _number(step.node), _number(step.peer)
            whole = work.send_bytes(step.direction, receiver if step.node == SERVER else sender)
            nbytes = round(step.share * whole) if step.pictures is None else step.pictures * work.picture_bytes
            transfer = radio.links[step.direction].transfer(sender, receiver, nbytes, step.messages)
            yield env.timeout(transfer.time_s)
            note(step, t0, transfer.energy_j, nbytes=nbytes)
            return
        with computing[step.node].request() as turn:
            yield turn
            t0 = env.now
            device = radio.server if step.node == SERVER else radio.device
            flops = _flops(step, work)
            yield env.timeout(device.time_s(flops))
            note(step, t0, device.energy_j(flops), flops=flops)

    def note(step: Step, t0: float, energy_j: float, flops: float = 0.0, nbytes: int = 0) -> None:
        kind = {Train: "train", Generate: "generate", Send: "send", Server: "aggregate"}[type(step)]
        peer, direction = (step.peer, step.direction) if isinstance(step, Send) else (None, None)
        t1 = start_s + env.now
        events[step.id] = Event(
            schedule.round, step.id, step.after, kind, step.node, peer, direction, flops, nbytes, start_s + t0, t1, energy_j
        )

    for step in schedule:
        ended[step.id] = env.process(run(step))
    env.run()
    return [events[step.id] for step in schedule]


def _flops(step: Train | Generate | Server, work: Work) -> float:
    if isinstance(step, Train):
        return work.train_flops(step.client, step.pictures)
    return step.pictures * work.generate_flops if isinstance(step, Generate) else work.aggregate_flops(len(step.after))


def _number(node: str) -> int:
    return SERVER_NUMBER if node == SERVER else int(node.removeprefix("client-"))


@dataclass(frozen=True)
class Ledger:
    """Running totals of a run: bytes on the air, simulated seconds, joules."""

    transfers: int = 0
    bytes_uplink: int = 0
    bytes_downlink: int = 0
    bytes_sidelink: int = 0
    sim_time_s: float = 0.0
    energy_j: float = 0.0

    def add(self, events: list[Event]) -> Ledger:
        sent = {d: sum(e.bytes for e in events if e.direction == d) for d in ("uplink", "downlink", "sidelink")}
        return Ledger(
            self.transfers + sum(e.event == "send" for e in events),
            self.bytes_uplink + sent["uplink"],
            self.bytes_downlink + sent["downlink"],
            self.bytes_sidelink + sent["sidelink"],
            max([self.sim_time_s, *(e.t1_s for e in events)]),
            self.energy_j + sum(e.energy_j for e in events),
        )
