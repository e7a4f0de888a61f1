"""The simulated clock: times a schedule's steps before anything trains. No wall-clock reading reaches it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import simpy

from fedray.network.links import When, ids
from fedray.network.radio import Radio, on_air, saving
from fedray.network.work import Loads
from fedray.scenario.network import DIRECTIONS
from fedray.schedule import SERVER, Generate, Pass, Schedule, Send, Server, Step, Train

KINDS = {Train: "train", Generate: "generate", Send: "send", Server: "aggregate"}  # a pass is called by its stage


class Event(NamedTuple):
    """One step with its cost: a line of timeline.jsonl. Times since the run's start, in seconds."""

    round: int
    id: str
    after: tuple[str, ...]
    event: str  # train, generate, send, aggregate, a split model's pass; wait: a device that has nothing to do
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


def time_round(schedule: Schedule, work: Loads, radio: Radio, start_s: float, decided: Mapping[str, str] | None = None) -> list[Event]:
    """Every step's start, end, energy and outcome, in the schedule's order, as a discrete-event simulation (SimPy).

    A step starts when all it waits for have ended and its node is free: a device computes one thing at a time. One whose
    input never came is skipped. With `decided`, outcomes by id, nothing is lost or late but what was so before.
    """
    loads = {step.id: work.load(step) for step in schedule}
    when = When(schedule.round, start_s)
    air = on_air(schedule, loads, radio, when, lambda seconds: _simulate(schedule, seconds, set(), None)[0])
    frequency: dict[str, float] = {}
    if radio.section.save_energy:
        air, frequency = saving(schedule, loads, radio, when, air)
    turns: dict[int, list[str]] = defaultdict(list)  # a client's own steps of computing
    for step in schedule:
        if isinstance(step, Train) or (isinstance(step, Pass) and step.node != SERVER):
            turns[step.client].append(step.id)
    if decided is None:
        gone = dict(_within(turns[c], part) for c, part in radio.devices.drops(schedule.round, ids(schedule.clients)).items())
        lost = {i for i, transfer in air.items() if transfer.lost}
    else:
        gone = {i: 1.0 for turn in turns.values() for i in turn if decided[i] == "dropped"}
        lost = {i for i, outcome in decided.items() if outcome == "lost"}
    cost: dict[str, float] = {}  # joules

    def seconds(step: Step, now_s: float) -> float:
        if isinstance(step, Send):
            time_s, cost[step.id] = air[step.id].begun(start_s + now_s)
            return time_s
        processor, flops, part = radio.processor(step.node), loads[step.id], gone.get(step.id, 1.0)
        cost[step.id] = part * processor.energy_j(flops, frequency.get(step.id))
        return part * processor.time_s(flops, frequency.get(step.id))

    t0, t1, skipped, late = _simulate(schedule, seconds, lost | gone.keys(), decided)
    outcomes: dict[str, str] = {}
    for name, those in (("late", late), ("dropped", gone), ("lost", lost), ("skipped", skipped)):
        outcomes |= dict.fromkeys(those, name)
    events = []
    for step in schedule:
        i = step.id
        outcome = outcomes.get(i, "done")
        peer, direction = (step.peer, step.direction) if isinstance(step, Send) else (None, None)
        event = step.stage if isinstance(step, Pass) else KINDS[type(step)]
        flops, nbytes = (0.0, int(loads[i])) if isinstance(step, Send) else (loads[i], 0)
        if outcome == "skipped":
            flops, nbytes = 0.0, 0
        events.append(Event(
            schedule.round, i, step.after, event, step.node, peer, direction, flops, nbytes,
            start_s + t0[i], start_s + t1[i], cost.get(i, 0.0), outcome, step.messages if isinstance(step, Send) else 1,
        ))  # fmt: skip
    return [*events, *_waiting(events, radio, start_s)]


def _within(turn: list[str], part: float) -> tuple[str, float]:
    """The step of a turn in which a device vanishes that has done this part of it, and how much of that step it does."""
    done, within = divmod(part * len(turn), 1)
    return turn[int(done)], within


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
        elif (bad or skipped) and any(useless(i) for i in (step.after[:1] if isinstance(step, Send) else step.after)):
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
    """What those that take part spend while they have nothing to do, where their device spends anything."""
    if not any(kind.section.idle_w for kind in radio.devices.kinds):
        return []
    end_s = max(e.t1_s for e in events if e.event == "aggregate")
    found = []
    for node, seconds in idle_s(((e.node, e.peer, e.t0_s, e.t1_s) for e in events), start_s, end_s).items():
        if joules := radio.processor(node).section.idle_w * seconds:
            found.append(Event(events[0].round, f"wait-{node}", (), "wait", node, None, None, 0.0, 0, end_s - seconds, end_s, joules))
    return found


def idle_s(steps: Iterable[tuple[str, str | None, float, float]], start_s: float, end_s: float) -> dict[str, float]:
    """For how long each client of a round neither computes nor sends nor receives, from its steps' nodes, peers, starts and ends."""
    busy: dict[str, float] = defaultdict(float)
    for node, peer, t0_s, t1_s in steps:
        for client in {node, peer or SERVER} - {SERVER}:
            busy[client] += min(t1_s, end_s) - min(t0_s, end_s)
    return {node: max(0.0, end_s - start_s - seconds) for node, seconds in busy.items()}


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
