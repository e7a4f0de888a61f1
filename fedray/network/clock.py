"""The simulated clock: times a schedule's steps before anything trains. No wall-clock reading reaches it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import simpy

from fedray.network import allocation
from fedray.network.devices import Devices, Processor
from fedray.network.geometry import Geometry
from fedray.network.links import Fixed, Link, Sends, Trace, Transfers, When, ids
from fedray.network.radio import RadioLink
from fedray.network.rates import efficiency, linear
from fedray.randomness import SERVER as SERVER_NUMBER
from fedray.scenario.network import DIRECTIONS, FixedLink, Network, TraceLink
from fedray.schedule import SERVER, Generate, Schedule, Send, Server, Step, Train

KINDS = {Train: "train", Generate: "generate", Send: "send", Server: "aggregate"}
SAVINGS = 128  # powers that a client chooses from


class Event(NamedTuple):
    """One step with its cost: a line of timeline.jsonl. Times since the run's start, in seconds."""

    round: int
    id: str
    after: tuple[str, ...]
    event: str  # train, generate, send, aggregate; wait: a device that has nothing to do
    node: str
    peer: str | None
    direction: str | None
    flops: float
    bytes: int
    t0_s: float
    t1_s: float
    energy_j: float
    outcome: str = "done"  # lost: never arrived; late: after the round had closed; dropped: the device vanished; skipped
    messages: int = 1

    def row(self) -> dict[str, Any]:
        return self._asdict()


class Loads(Protocol):
    """What each step of a schedule does, known before it is done."""

    def load(self, step: Step) -> float:
        """Bytes of a send step, floating-point operations of any other."""
        ...


@dataclass(frozen=True)
class Work:
    train_flops: Callable[[int, int], float]  # of a client's turn, with so many generated pictures
    send_bytes: Callable[[str, int], int]  # of a whole buffer, in this direction, to or from (uplink, sidelink) this client
    aggregate_flops: Callable[[int], float]  # of so many updates
    generate_flops: float = 0.0  # of a picture
    picture_bytes: int = 0

    def load(self, step: Step) -> float:
        if isinstance(step, Train):
            return self.train_flops(step.client, step.pictures)
        if isinstance(step, Generate):
            return step.pictures * self.generate_flops
        if isinstance(step, Server):
            return self.aggregate_flops(len(step.after))
        if step.pictures is not None:
            return step.pictures * self.picture_bytes
        return round(step.share * self.send_bytes(step.direction, number(step.peer if step.node == SERVER else step.node)))


class Radio:
    """Links and devices of a `network` section, for so many clients; `folder` is where relative paths start."""

    def __init__(self, section: Network, clients: int = 0, seed: int = 0, folder: Path = Path()) -> None:
        self.section = section
        self.geometry = Geometry(section.cell, clients, seed) if section.cell else None
        self.links = {d: self._open(d, seed, folder) for d in DIRECTIONS}
        self.devices, self.server = Devices(section.device, clients, seed), Processor(section.server)

    def _open(self, direction: str, seed: int, folder: Path) -> Link:
        section = getattr(self.section, direction)
        if isinstance(section, FixedLink):
            return Fixed(section)
        if isinstance(section, TraceLink):
            return Trace(section, f"network.{direction}.path", seed, folder)
        assert self.geometry is not None
        return RadioLink(section, direction, self.geometry, seed)

    def processor(self, node: str) -> Processor:
        return self.server if node == SERVER else self.devices[number(node)]

    def reaches(self, when: When, sender: int, receiver: int) -> bool:
        """Whether a hop over the sidelink arrives in this round."""
        one = np.ones(1)
        return not self.links["sidelink"].transfers(when, Sends(ids([sender]), ids([receiver]), one, ids([1]), one)).lost[0]

    def sidelink_rates_bps(self, when: When, sender: int, receivers: Collection[int]) -> np.ndarray:
        """Mean rates; 0 for who is out of range."""
        to = ids(list(receivers))
        return self.links["sidelink"].rates_bps(when, np.full_like(to, sender), to)

    def finishes_s(self, when: When, work: Work, clients: np.ndarray, at_once: int) -> np.ndarray:
        """About how long each client's round takes, where so many share each band [n]."""
        base = np.full_like(clients, SERVER_NUMBER)
        down, up = self.links["downlink"], self.links["uplink"]
        with np.errstate(divide="ignore"):
            send_s = np.zeros(len(clients))
            for link, direction, pair in ((down, "downlink", (base, clients)), (up, "uplink", (clients, base))):
                rate = link.rates_bps(when, *pair) / (at_once if link.shared and _alone(link) else 1)
                send_s = send_s + 8 * np.array([work.send_bytes(direction, c) for c in clients.tolist()]) / rate
        return send_s + np.array([self.devices[c].time_s(work.train_flops(c, 0)) for c in clients.tolist()])


def _alone(link: Link) -> bool:
    return isinstance(link, RadioLink) and link.section.allocation != "broadcast"


def number(node: str) -> int:
    return SERVER_NUMBER if node == SERVER else int(node.removeprefix("client-"))


def time_round(schedule: Schedule, work: Loads, radio: Radio, start_s: float, decided: Mapping[str, str] | None = None) -> list[Event]:
    """Every step's start, end, energy and outcome, in the schedule's order, as a discrete-event simulation (SimPy).

    A step starts when all it waits for have ended and its node is free: a device computes one thing at a time. One whose
    input never came is skipped. With `decided`, outcomes by id, nothing is lost or late but what was so before.
    """
    loads = {step.id: work.load(step) for step in schedule}
    when = When(schedule.round, start_s)
    air = _on_air(schedule, loads, radio, when)
    frequency: dict[str, float] = {}
    if radio.section.save_energy:
        air, frequency = _saving(schedule, loads, radio, when, air)
    turns = {step.client: step.id for step in schedule if isinstance(step, Train)}
    if decided is None:
        gone = {turns[client]: part for client, part in radio.devices.drops(schedule.round, ids(schedule.clients)).items()}
        lost = {i for i, (transfers, at) in air.items() if transfers.lost[at]}
    else:
        gone = {i: 1.0 for i in turns.values() if decided[i] == "dropped"}
        lost = {i for i, outcome in decided.items() if outcome == "lost"}
    cost: dict[str, float] = {}  # joules
    messages: dict[str, int] = {}

    def seconds(step: Step, now_s: float) -> float:
        if isinstance(step, Send):
            messages[step.id] = step.messages
            time_s, cost[step.id] = _transfer(air[step.id], start_s + now_s)
            return time_s
        processor, flops, part = radio.processor(step.node), loads[step.id], gone.get(step.id, 1.0)
        cost[step.id] = part * processor.energy_j(flops, frequency.get(step.id))
        return part * processor.time_s(flops, frequency.get(step.id))

    t0, t1, skipped, late = _simulate(schedule, seconds, lost | gone.keys(), decided)
    else_: dict[str, Collection[str]] = {"skipped": skipped, "lost": lost, "dropped": gone, "late": late}
    events = []
    for step in schedule:
        i = step.id
        outcome = next((name for name, those in else_.items() if i in those), "done")
        peer, direction = (step.peer, step.direction) if isinstance(step, Send) else (None, None)
        flops, nbytes = (0.0, int(loads[i])) if isinstance(step, Send) else (loads[i], 0)
        if outcome == "skipped":
            flops, nbytes = 0.0, 0
        events.append(Event(
            schedule.round, i, step.after, KINDS[type(step)], step.node, peer, direction, flops, nbytes,
            start_s + t0[i], start_s + t1[i], float(cost.get(i, 0.0)), outcome, messages.get(i, 1),
        ))  # fmt: skip
    return [*events, *_waiting(events, radio, start_s)]


def _transfer(one: tuple[Transfers, int], begins_s: float) -> tuple[float, float]:
    """Seconds and joules of a transfer that begins then."""
    transfers, at = one
    return transfers.at(at, begins_s) if transfers.at else (float(transfers.time_s[at]), float(transfers.energy_j[at]))


def _on_air(schedule: Schedule, loads: Mapping[str, float], radio: Radio, when: When) -> dict[str, tuple[Transfers, int]]:
    """Every send step's transfers and its place among them."""
    found: dict[str, tuple[Transfers, int]] = {}
    for direction in ("downlink", "sidelink", "uplink"):  # who gets how much of the uplink may depend on what was before
        link = radio.links[direction]
        steps = [step for step in schedule if isinstance(step, Send) and step.direction == direction]
        if not steps:
            continue
        sender, receiver = ids([number(s.node) for s in steps]), ids([number(s.peer) for s in steps])
        nbytes, messages = np.array([loads[s.id] for s in steps]), ids([s.messages for s in steps])
        sends = Sends(sender, receiver, nbytes, messages, np.ones(len(steps)))
        if isinstance(link, RadioLink):
            sends = sends._replace(share=_shares(schedule, steps, sends, link, radio, loads, when, found))
        transfers = link.transfers(when, sends)
        found |= {step.id: (transfers, i) for i, step in enumerate(steps)}
    return found


def _shares(
    schedule: Schedule, steps: list[Send], sends: Sends, link: RadioLink, radio: Radio, loads: Mapping[str, float], when: When,
    air: Mapping[str, tuple[Transfers, int]],
) -> np.ndarray:  # fmt: skip
    """Each send step's share of its direction's band."""
    how = link.section.allocation
    if how == "broadcast":
        return np.ones(len(steps))
    if how in ("min_max", "proportional_fair"):
        snr, _ = link.mean_snr(when, sends.sender, sends.receiver)
        gain_hz = snr * link.section.bandwidth_hz
        if how == "proportional_fair":
            return allocation.proportional_fair(gain_hz, link.section.bandwidth_hz)

        def seconds(step: Step, now_s: float) -> float:
            if isinstance(step, Send):
                return _transfer(air[step.id], when.time_s + now_s)[0] if step.id in air else 0.0
            return radio.processor(step.node).time_s(loads[step.id])

        ready, *_ = _simulate(schedule, seconds, set(), None)
        # The formula is Shannon's, so bits are what they would be at its rate.
        of_shannon = efficiency(link.section.rate, link.section.modulation)(np.ones(1))[0] * link.usable
        at = np.array([ready[step.id] for step in steps])
        return allocation.min_max(8 * sends.nbytes / of_shannon, at, gain_hz, link.section.bandwidth_hz)
    depth = {step.id: 0 for step in schedule}  # of how many before it in this direction: those equally deep send at once
    for step in schedule:
        for before in step.after:
            same = isinstance(step, Send) and step.direction == steps[0].direction
            depth[step.id] = max(depth[step.id], depth[before] + same)
    return np.full(len(steps), 1 / max(Counter(depth[step.id] for step in steps).values()))


def _saving(
    schedule: Schedule, loads: Mapping[str, float], radio: Radio, when: When, air: dict[str, tuple[Transfers, int]]
) -> tuple[dict[str, tuple[Transfers, int]], dict[str, float]]:
    """The joint choice of CPU frequency and transmit power: of SAVINGS powers up to the link's, the one with which a client's
    kappa C f^2 + p t is least, where f = C / (what the deadline leaves). Who cannot meet it does what it can.

    Gives new uplinks, and the frequency of each train step.
    """
    link, deadline = radio.links["uplink"], radio.section.deadline_s
    assert isinstance(link, RadioLink)
    assert deadline is not None
    chosen, ups = dict(air), {step.node: step for step in schedule if isinstance(step, Send) and step.direction == "uplink"}
    frequency: dict[str, float] = {}
    less = np.logspace(-4, 0, SAVINGS)
    for step in schedule:
        if not isinstance(step, Train) or step.node not in ups:
            continue
        processor, up = radio.processor(step.node), ups[step.node]
        full, at = air[up.id]
        down_s = sum(air[i][0].time_s[air[i][1]] for i in step.after if i in air)
        snr, k = link.mean_snr(when, ids([step.client]), ids([SERVER_NUMBER]))
        share = 1 / len(ups)
        rate = link.rate_bps(snr * less, np.full(SAVINGS, k[0]), share)
        latency_s = link.section.latency_s
        with np.errstate(divide="ignore", invalid="ignore"):
            up_s = 8 * loads[up.id] / rate
            hz = processor.cycles(loads[step.id]) / (deadline - down_s - latency_s - up_s)
        able = (hz > 0) & (hz <= processor.frequency_hz)
        if not able.any() or full.lost[at]:
            continue
        s = link.section
        power_w = linear(s.transmit_dbm - 30) * less / s.amplifier_efficiency + s.circuit_w + s.receive_w
        joules = np.where(able, power_w * up_s + [processor.energy_j(loads[step.id], f) if f > 0 else np.inf for f in hz], np.inf)
        best = int(np.argmin(joules))
        frequency[step.id] = float(hz[best]) * (1 + 1e-12)  # not a rounding error late
        chosen[up.id] = (Transfers(np.array([latency_s + up_s[best]]), np.array([power_w[best] * up_s[best]]), np.zeros(1, bool)), 0)
    return chosen, frequency


def _simulate(
    schedule: Schedule, seconds: Callable[[Step, float], float], bad: Collection[str], decided: Mapping[str, str] | None
) -> tuple[dict[str, float], dict[str, float], set[str], set[str]]:
    """Starts and ends of all steps since the round's start; those that were skipped because their input is `bad` or was
    skipped itself; and those that ended after the round had closed."""
    env = simpy.Environment()
    followers: dict[str, list[Step]] = defaultdict(list)
    waits = {step.id: len(step.after) for step in schedule}
    computing = Counter(step.node for step in schedule if not isinstance(step, Send))
    processors = {node: simpy.Resource(env) for node, n in computing.items() if n > 1}
    t0: dict[str, float] = {}
    t1: dict[str, float] = {}
    skipped: set[str] = set()
    closed: dict[str, float] = {}  # server steps that have begun, and when
    arrived: Counter[str] = Counter()

    def useless(i: str) -> bool:
        return i in bad or i in skipped

    def begin(step: Step) -> None:
        if isinstance(step, Server):
            if step.id in closed:
                return
            closed[step.id] = env.now
        elif any(useless(i) for i in (step.after[:1] if isinstance(step, Send) else step.after)):
            skipped.add(step.id)
            t0[step.id] = env.now
            end(step)
            return
        if isinstance(step, Send) or step.node not in processors:
            work(step)
        else:
            turn = processors[step.node].request()
            turn.callbacks.append(lambda _: work(step, turn))

    def deadline(step: Step, _: simpy.Event) -> None:
        begin(step)

    def work(step: Step, turn: Any = None) -> None:
        t0[step.id] = env.now

        def done(_: simpy.Event) -> None:
            if turn is not None:
                processors[step.node].release(turn)
            end(step)

        env.timeout(seconds(step, env.now)).callbacks.append(done)

    def end(step: Step) -> None:
        t1[step.id] = env.now
        for next_ in followers[step.id]:
            waits[next_.id] -= 1
            if isinstance(next_, Server):
                arrived[next_.id] += not useless(step.id)
                if next_.enough is not None and arrived[next_.id] == next_.enough and decided is None:
                    begin(next_)
            if waits[next_.id] == 0:
                begin(next_)

    for step in schedule:
        awaited = step.after
        if decided is not None and isinstance(step, Server):  # on another network it waits for those that came in time here
            awaited = tuple(i for i in awaited if decided[i] == "done")
        waits[step.id] = len(awaited)
        for before in awaited:
            followers[before].append(step)
        if isinstance(step, Server) and step.deadline_s is not None and decided is None:
            env.timeout(step.deadline_s).callbacks.append(partial(deadline, step))
    for step in schedule:
        if not waits[step.id]:
            begin(step)
    env.run()
    if decided is not None:
        return t0, t1, skipped, {i for i, outcome in decided.items() if outcome == "late"}
    late: set[str] = set()
    for server in (step for step in schedule if isinstance(step, Server)):
        ends = sorted((t1[i], n) for n, i in enumerate(server.after) if not useless(i))
        in_time = {server.after[n] for _, n in ends[: server.enough] if t1[server.after[n]] <= closed[server.id]}
        if len(in_time) < len(ends):
            late |= {step.id for step in schedule if t1[step.id] > closed[server.id] and not isinstance(step, Server)}
            late |= {server.after[n] for _, n in ends} - in_time
    return t0, t1, skipped, late


def _waiting(events: list[Event], radio: Radio, start_s: float) -> list[Event]:
    """What those that take part spend while they neither compute nor send nor receive, where their device spends anything."""
    if not any(kind.section.idle_w for kind in radio.devices.kinds):
        return []
    end_s = max(e.t1_s for e in events if e.event == "aggregate")
    busy: dict[str, float] = defaultdict(float)
    for e in events:
        for node in {e.node, e.peer} - {SERVER, None}:
            busy[str(node)] += min(e.t1_s, end_s) - min(e.t0_s, end_s)
    found = []
    for node, busy_s in busy.items():
        idle_s = max(0.0, end_s - start_s - busy_s)
        if joules := radio.processor(node).section.idle_w * idle_s:
            found.append(Event(events[0].round, f"wait-{node}", (), "wait", node, None, None, 0.0, 0, end_s - idle_s, end_s, joules))
    return found


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
        """A round ends with its aggregate; what comes later is paid for all the same."""
        sent = {d: sum(e.bytes for e in events if e.direction == d) for d in DIRECTIONS}
        return Ledger(
            self.transfers + sum(e.event == "send" and e.outcome != "skipped" for e in events),
            self.bytes_uplink + sent["uplink"],
            self.bytes_downlink + sent["downlink"],
            self.bytes_sidelink + sent["sidelink"],
            max([self.sim_time_s, *(e.t1_s for e in events if e.event == "aggregate")]),
            self.energy_j + sum(e.energy_j for e in events),
        )
