"""The simulated clock: times a schedule's steps before anything trains. No wall-clock reading reaches it."""

from __future__ import annotations

import gc
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import simpy

from fedray.network.links import When, ids
from fedray.network.radio import Radio, on_air, saving
from fedray.network.work import Loads, number
from fedray.scenario.network import DIRECTIONS
from fedray.schedule import SERVER, Generate, Pass, Schedule, Send, Server, Train

KINDS = {Train: "train", Generate: "generate", Server: "aggregate"}  # a pass is called by its stage


class Event(NamedTuple):
    """One step with its cost: a line of timeline.jsonl. Times since the run's start, in seconds."""

    round: int
    id: str
    after: tuple[str, ...]
    # train, generate, send, aggregate, a split model's pass; wait: a device that has nothing to do
    event: str
    node: str
    peer: str | None
    direction: str | None
    flops: float
    bytes: int
    t0_s: float
    t1_s: float
    energy_j: float
    # lost: never arrived; late: after the round had closed; dropped: the device vanished; skipped
    outcome: str = "done"
    messages: int = 1
    encoded: bool = False  # the client's samples too, once (see schedule.Train)

    def row(self) -> dict[str, Any]:
        return self._asdict()


@contextmanager
def collecting_nothing() -> Iterator[None]:
    """Python's garbage collector sleeps: in hundreds of thousands of new steps it would look for cycles again
    and again, and there are none."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@collecting_nothing()
def time_round(
    schedule: Schedule, work: Loads, radio: Radio, start_s: float, decided: Mapping[str, str] | None = None
) -> list[Event]:
    """Every step's start, end, energy and outcome, in the schedule's order, as a discrete-event simulation
    (SimPy).

    A step starts when all it waits for have ended and its node is free: a device computes one thing at a
    time. One whose input never came is skipped. With `decided`, outcomes by id, nothing is lost or late but
    what was so before.
    """
    steps, loads = schedule.steps, [work.load(step) for step in schedule]
    when = When(schedule.round, start_s)
    air = on_air(schedule, loads, radio, when, lambda seconds: _simulate(schedule, seconds, set(), None).t0)
    frequency = saving(schedule, loads, radio, when, air) if radio.section.save_energy else {}
    was = [decided[step.id] for step in steps] if decided is not None else None
    if was is None:
        gone = _vanishing(schedule, radio.devices.drops(schedule.round, ids(schedule.clients)))
        lost = {n for n, transfer in air.items() if transfer.lost}
        for n, part in gone.items():  # no more than that is done
            loads[n] *= part
    else:
        gone = {n: 1.0 for n, outcome in enumerate(was) if outcome == "dropped"}
        lost = {n for n, outcome in enumerate(was) if outcome == "lost"}
    took, cost = [0.0] * len(steps), [0.0] * len(steps)  # seconds and joules
    for n, transfer in air.items():
        took[n], cost[n] = transfer.time_s, transfer.energy_j
        if n in lost and math.isinf(took[n]):  # where there is no reaching nothing is sent
            took[n] = loads[n] = 0.0
    for n, node in schedule.computing.items():
        processor, hz = radio.processor(node), frequency.get(n)
        took[n], cost[n] = processor.time_s(loads[n], hz), processor.energy_j(loads[n], hz)
    varying = {n: transfer.at for n, transfer in air.items() if transfer.at}

    def seconds(n: int, now_s: float) -> float:
        if n in varying:
            took[n], cost[n] = varying[n](start_s + now_s)
        return took[n]

    t0, t1, skipped, late = _simulate(schedule, seconds, lost | gone.keys(), was)
    outcomes: dict[int, str] = {}
    for name, those in (("late", late), ("dropped", gone), ("lost", lost), ("skipped", skipped)):
        outcomes |= dict.fromkeys(those, name)
    events = []
    for n, step in enumerate(steps):
        outcome = outcomes.get(n, "done")
        load, joules = (0.0, 0.0) if outcome == "skipped" else (loads[n], cost[n])
        last = start_s + t0[n], start_s + t1[n], joules, outcome
        if isinstance(step, Send):
            way = "send", step.node, step.peer, step.direction
            events.append(
                Event(schedule.round, step.id, step.after, *way, 0.0, int(load), *last, step.messages)
            )
        else:
            kind = step.stage if isinstance(step, Pass) else KINDS[type(step)]
            events.append(
                Event(
                    schedule.round,
                    step.id,
                    step.after,
                    kind,
                    schedule.computing[n],
                    None,
                    None,
                    load,
                    0,
                    *last,
                    encoded=getattr(step, "encodes", False),
                )
            )
    return [*events, *_waiting(events, radio, start_s)]


def _vanishing(schedule: Schedule, parts: Mapping[int, float]) -> dict[int, float]:
    """The steps in which devices vanish that have done these parts of their turns, and how much of each step
    they do."""
    turns: dict[int, list[int]] = {client: [] for client in parts}
    for n, node in schedule.computing.items() if parts else ():
        if (client := number(node)) in turns:
            turns[client].append(n)
    steps = ((turns[client], divmod(part * len(turns[client]), 1)) for client, part in parts.items())
    return {turn[int(done)]: within for turn, (done, within) in steps}


class Simulated(NamedTuple):
    """Starts and ends of all steps, by place, since the round's start; those that were skipped because their
    input was bad or was skipped itself; and those that ended after the round had closed."""

    t0: list[float]
    t1: list[float]
    skipped: set[int]
    late: set[int]


def _simulate(
    schedule: Schedule,
    seconds: Callable[[int, float], float],
    bad: Collection[int],
    was: Sequence[str] | None,
) -> Simulated:
    """All steps, of which those that are `bad` leave nothing that is of use. `was` is what became of each
    before."""
    env = simpy.Environment()
    steps, before = schedule.steps, schedule.before
    servers = {n: step for n, step in enumerate(steps) if isinstance(step, Server)}
    if was is not None:  # on another network a server waits for those that came in time here
        before = list(before)
        for n in servers:
            before[n] = [i for i in before[n] if was[i] == "done"]
    waits = [len(awaited) for awaited in before]
    followers: list[list[int]] = [[] for _ in steps]  # of each step, those that wait for it
    for n, awaited in enumerate(before):
        for i in awaited:
            followers[i].append(n)
    # A device computes one thing at a time, and each direction of its link carries one.
    used_by = dict(schedule.computing)
    for direction, places in schedule.sends.items():
        owners = [_own(steps[n]) for n in places]
        if len(set(owners)) < len(owners):
            used_by |= {n: f"{direction} of {owner}" for n, owner in zip(places, owners, strict=True)}
    shared = {node: simpy.Resource(env) for node, n in Counter(used_by.values()).items() if n > 1}
    processors = {n: shared[node] for n, node in used_by.items() if node in shared}
    # of steps that had to ask for their processor or link
    turns: dict[int, simpy.resources.resource.Request] = {}
    t0, t1 = [0.0] * len(steps), [0.0] * len(steps)
    skipped: set[int] = set()
    useless = set(bad)  # these and the skipped ones
    closed: dict[int, float] = {}  # server steps that have begun, and when
    arrived: Counter[int] = Counter()

    def begin(n: int, now: float) -> None:
        if n in servers:
            if n in closed:
                return
            closed[n] = now
        elif useless and not useless.isdisjoint(before[n][:1] if isinstance(steps[n], Send) else before[n]):
            skipped.add(n)
            useless.add(n)
            t0[n] = now
            end(n, now)
            return
        if n in processors:
            turns[n] = processors[n].request()
            turns[n].callbacks.append(lambda _: work(n, env.now))
        else:
            work(n, now)

    def work(n: int, now: float) -> None:
        t0[n] = now
        simpy.Timeout(env, seconds(n, now), n).callbacks.append(done)

    def done(event: simpy.Event) -> None:
        n: Any = event.value
        if n in turns:
            processors[n].release(turns[n])
        end(n, env.now)

    def at_deadline(event: simpy.Event) -> None:
        n: Any = event.value
        begin(n, env.now)

    def waited(event: simpy.Event) -> None:
        n: Any = event.value
        waits[n] -= 1
        if waits[n] == 0:
            begin(n, env.now)

    def end(n: int, now: float) -> None:
        t1[n] = now
        for next_ in followers[n]:
            waits[next_] -= 1
            if next_ in enough and n not in useless:
                arrived[next_] += 1
                if arrived[next_] == enough[next_]:
                    begin(next_, now)
            if waits[next_] == 0:
                begin(next_, now)

    enough: dict[int, int] = {}  # updates with which a server step begins
    if was is None:
        for n, server in servers.items():
            if server.enough is not None:
                enough[n] = server.enough
            if server.deadline_s is not None:
                env.timeout(server.deadline_s, n).callbacks.append(at_deadline)
    else:
        for n, server in servers.items():
            if server.deadline_s is not None:  # until which it waited then
                waits[n] += 1
                env.timeout(server.deadline_s, n).callbacks.append(waited)
    first = [
        n
        for n, awaited in enumerate(before)
        if not awaited and (n not in servers or servers[n].deadline_s is None)
    ]
    for n in sorted(first, key=lambda n: seconds(n, 0.0)):  # a queue that begins sorted takes half the time
        begin(n, 0.0)
    env.run()
    if was is not None:
        return Simulated(t0, t1, skipped, {n for n, outcome in enumerate(was) if outcome == "late"})
    late: set[int] = set()
    # others wait for all
    for n in (n for n, server in servers.items() if server.deadline_s is not None or n in enough):
        ends = sorted((t1[i], i) for i in before[n] if i not in useless)
        in_time = {i for _, i in ends[: enough.get(n)] if t1[i] <= closed[n]}
        if len(in_time) < len(ends):
            late |= {i for i, end_s in enumerate(t1) if end_s > closed[n] and i not in servers}
            late |= {i for _, i in ends} - in_time
    return Simulated(t0, t1, skipped, late)


def _own(step: Any) -> Any:
    """Whose link a transfer uses: the client's, or the sender's of two. Who computes; none for the server."""
    return step.node if step.node != SERVER else getattr(step, "peer", None)


def _waiting(events: list[Event], radio: Radio, start_s: float) -> list[Event]:
    """What those that take part, and the server, spend while they have nothing to do, where they spend
    anything."""
    if not any(kind.section.idle_w for kind in (*radio.devices.kinds, radio.server)):
        return []
    end_s = max(e.t1_s for e in events if e.event == "aggregate")
    found = []
    for node, seconds in idle_s(((e.node, e.peer, e.t0_s, e.t1_s) for e in events), start_s, end_s).items():
        if joules := radio.processor(node).section.idle_w * seconds:
            found.append(
                Event(
                    events[0].round,
                    f"wait-{node}",
                    (),
                    "wait",
                    node,
                    None,
                    None,
                    0.0,
                    0,
                    end_s - seconds,
                    end_s,
                    joules,
                )
            )
    return found


def idle_s(
    steps: Iterable[tuple[str, str | None, float, float]], start_s: float, end_s: float
) -> dict[str, float]:
    """For how long each client of a round, and the server, neither computes nor sends nor receives, from the
    steps' nodes, peers, starts and ends."""
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for node, peer, t0_s, t1_s in steps:
        for one in {node, peer or node}:
            spans[one].append((min(t0_s, end_s), min(t1_s, end_s)))
    idle: dict[str, float] = {}
    for node, theirs in spans.items():
        free_s, idle[node] = start_s, 0.0
        for t0_s, t1_s in sorted(theirs):  # several at once are one
            idle[node] += max(0.0, t0_s - free_s)
            free_s = max(free_s, t1_s)
        idle[node] += max(0.0, end_s - free_s)
    return idle


@dataclass(frozen=True)
class Ledger:
    """Running totals of a run: bytes on the air, simulated seconds, joules."""

    transfers: int = 0
    bytes_uplink: int = 0
    bytes_downlink: int = 0
    bytes_sidelink: int = 0
    sim_time_s: float = 0.0
    energy_j: float = 0.0
    # clients that go on with what is late, and until when
    busy: Mapping[str, float] = field(default_factory=dict)
    encoded: Sequence[int] = ()  # clients that have encoded their samples, where that costs something

    def totals(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name not in ("busy", "encoded")}

    def add(self, events: list[Event]) -> Ledger:
        """A round ends with its aggregate; what comes later is paid for all the same, and keeps its device
        from the next."""
        sent = {d: sum(e.bytes for e in events if e.direction == d) for d in DIRECTIONS}
        now_s = max([self.sim_time_s, *(e.t1_s for e in events if e.event == "aggregate")])
        busy = {node: until_s for node, until_s in self.busy.items() if until_s > now_s}
        for e in events:
            if e.outcome == "late" and e.t1_s > now_s and (node := _own(e)):
                busy[node] = max(busy.get(node, 0.0), e.t1_s)
        encoded = {number(e.node) for e in events if e.encoded and e.outcome in ("done", "late")}
        return Ledger(
            self.transfers + sum(e.event == "send" and e.outcome != "skipped" for e in events),
            self.bytes_uplink + sent["uplink"],
            self.bytes_downlink + sent["downlink"],
            self.bytes_sidelink + sent["sidelink"],
            now_s,
            self.energy_j + sum(e.energy_j for e in events),
            busy,
            sorted(encoded.union(self.encoded)) if encoded else self.encoded,
        )
