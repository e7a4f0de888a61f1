"""The simulated clock: times a schedule's steps before anything trains. No wall-clock reading reaches it."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from fedray.network.ledger import Event, idle_s
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.saving import save_energy, slowest
from fedray.network.simulation import Replay, Simulation, Timing
from fedray.network.transfers import TransferCost, transfer_costs
from fedray.network.work import Loads
from fedray.randomness import SERVER_ID
from fedray.schedule import Schedule
from fedray.steps import Aggregate, Generate, Pass, Score, Send, Step, Train, Validate, client_node

# a pass is called by its stage
KINDS = {Train: "train", Generate: "generate", Validate: "validate", Aggregate: "aggregate"}
KINDS[Score] = "score"


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Python's garbage collector sleeps: in hundreds of thousands of new steps it would look for cycles again
    and again, and there are none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@without_garbage_collection()
def time_round(
    schedule: Schedule, work: Loads, radio: Radio, start_s: float, decided: Mapping[str, str] | None = None
) -> list[Event]:
    """Every step's start, end, energy and outcome, in the schedule's order, by a simulation (see Simulation).

    Args:
        schedule: the round's steps.
        work: what each step does, in bytes or floating-point operations.
        radio: the links and devices it is done on.
        start_s: when the round begins, or begins to wait for clients, in seconds since the run's start.
        decided: outcomes by the steps' ids, where they are known from another network: then nothing is lost
            or late here but what was so there.
    """
    waited_from_s = start_s
    start_s += schedule.waited_s
    loads = [work.load(step) for step in schedule]
    waits_s = {i: wait_s for i, step in enumerate(schedule) if (wait_s := work.wait_s(step))}
    symbols = {i: uses for i, step in enumerate(schedule) if (uses := work.symbols(step))}
    start = RoundStart(schedule.round, start_s)
    transfers = transfer_costs(schedule, loads, radio, start, waits_s, symbols)
    frequency_hz = dict[int, float]()
    if radio.section.save_energy:
        frequency_hz, uplinks = save_energy(schedule, loads, radio, start, transfers, waits_s)
        transfers |= uplinks
    elif radio.section.slows_devices:
        frequency_hz = slowest(schedule, loads, radio, start, transfers, waits_s)
    outcomes = None if decided is None else [decided[step.id] for step in schedule]
    failures = _failures(schedule, radio, transfers) if outcomes is None else _decided(outcomes)
    costs = _costs(schedule, loads, radio, transfers, failures, frequency_hz, start_s, waits_s)
    if outcomes is None:
        leaves_s = _leaves_s(schedule, radio, start_s)
        simulation = Simulation(schedule, costs.duration_s, failures.places, leaves_s)
    else:
        simulation = Replay(schedule, costs.duration_s, failures.places, outcomes)
    timing = simulation.run()
    costs.cut(timing.left)
    events = _events(schedule, costs, timing, failures, start_s, symbols)
    return [*events, *_waiting(schedule, events, radio, start_s, waited_from_s)]


def _leaves_s(schedule: Schedule, radio: Radio, start_s: float) -> dict[int, float]:
    """When each client of a round leaves, in seconds since its start; nobody, where all are always there."""
    if radio.devices.presence is None:
        return {}
    clients = {client for doers in schedule.doers for client in doers if client >= 0}
    return {client: radio.devices.leaves_s(start_s, client) - start_s for client in clients}


@dataclass(frozen=True)
class Failures:
    """The places of transfers that never arrive, and of steps in which a device drops out, with how much of
    each is done by then."""

    lost: set[int]
    dropped: dict[int, float]

    @property
    def places(self) -> set[int]:
        return self.lost | self.dropped.keys()


def _failures(schedule: Schedule, radio: Radio, transfers: Mapping[int, TransferCost]) -> Failures:
    """What the network and the devices fail at in this round."""
    clients = np.asarray(schedule.clients, dtype=np.int64)
    dropped = _dropout_steps(schedule, radio.devices.drops(schedule.round, clients))
    return Failures({i for i, transfer in transfers.items() if transfer.lost}, dropped)


def _decided(outcomes: Sequence[str]) -> Failures:
    """What failed on another network. What a device did before it dropped out is in the recorded loads."""
    return Failures(
        {i for i, outcome in enumerate(outcomes) if outcome == "lost"},
        {i: 1.0 for i, outcome in enumerate(outcomes) if outcome == "dropped"},
    )


def _dropout_steps(schedule: Schedule, done: Mapping[int, float]) -> dict[int, float]:
    """The steps within which devices drop out that have `done` these parts of their local updates, by client,
    and how much of each step they do."""
    computed: dict[int, list[int]] = {client: [] for client in done}
    for i, client in schedule.computing.items() if done else ():
        if client in computed and not isinstance(schedule.steps[i], Score | Aggregate):  # which are behind it
            computed[client].append(i)
    steps: dict[int, float] = {}
    for client, part in done.items():
        whole, within = divmod(part * len(computed[client]), 1)
        steps[computed[client][int(whole)]] = within
    return steps


@dataclass(frozen=True)
class StepCosts:
    """Bytes or floating-point operations, seconds and joules of each step, by its place. Those of a transfer
    over a link that varies with time (`varying`) are known when it starts. `waits_s`: of the seconds, those
    in which a step waits beside its work, where it does."""

    loads: list[float]
    seconds: list[float]
    joules: list[float]
    varying: dict[int, TransferCost]
    start_s: float  # of the round
    waits_s: dict[int, float]

    def duration_s(self, i: int, now_s: float) -> float:
        """Seconds of step i if it starts at this second of the round."""
        if i in self.varying:
            self.seconds[i], self.joules[i] = self.varying[i].starting_at(self.start_s + now_s)
        return self.seconds[i]

    def cut(self, done: Mapping[int, float]) -> None:
        """Only so much of steps, by their places, is done: who did the rest has left."""
        for i, part in done.items():
            self.loads[i] *= part
            self.joules[i] *= part
            if i in self.waits_s:
                self.waits_s[i] *= part


def _costs(
    schedule: Schedule,
    loads: list[float],
    radio: Radio,
    transfers: dict[int, TransferCost],
    failures: Failures,
    frequency_hz: Mapping[int, float],
    start_s: float,
    waits_s: Mapping[int, float],
) -> StepCosts:
    """What each step costs.

    Args:
        schedule: the round's steps.
        loads: of each step, in bytes or floating-point operations.
        radio: the links and devices.
        transfers: of each send step.
        failures: steps that are not done, or not to the end.
        frequency_hz: of steps that do not compute at their devices' own.
        start_s: when the round begins.
        waits_s: of steps that wait beside their work; their devices take their idle power then.
    """
    loads = list(loads)
    waits_s = dict(waits_s)
    for i, part in failures.dropped.items():
        loads[i] *= part
        if i in waits_s:
            waits_s[i] *= part
    seconds = [0.0] * len(loads)
    joules = [0.0] * len(loads)
    varying = {i: transfer for i, transfer in transfers.items() if transfer.at is not None}
    for i, transfer in transfers.items():
        seconds[i] = transfer.time_s
        joules[i] = transfer.energy_j
        if i in failures.lost and math.isinf(seconds[i]):  # nothing is sent to a receiver out of reach
            seconds[i] = loads[i] = 0.0
            varying.pop(i, None)
    for i, client in schedule.computing.items():
        device = radio.device(client)
        hz = frequency_hz.get(i)
        seconds[i] = device.time_s(loads[i], hz)
        joules[i] = device.energy_j(loads[i], hz)
        if i in waits_s:
            seconds[i] += waits_s[i]
            joules[i] += device.section.idle_w * waits_s[i]
    return StepCosts(loads, seconds, joules, varying, start_s, waits_s)


def _events(
    schedule: Schedule,
    costs: StepCosts,
    timing: Timing,
    failures: Failures,
    start_s: float,
    symbols: Mapping[int, int],
) -> list[Event]:
    """A line of the timeline for each step.

    Args:
        schedule: the round's steps.
        costs: of each step.
        timing: of each step, since the round's start.
        failures: the steps that were lost or in which a device dropped out.
        start_s: when the round begins.
        symbols: channel uses of steps that go on the air as they are.
    """
    outcomes = dict.fromkeys(timing.late, "late")
    outcomes |= dict.fromkeys(failures.dropped, "dropped")
    outcomes |= dict.fromkeys(failures.lost, "lost")
    outcomes |= {i: "lost" if isinstance(schedule.steps[i], Send) else "dropped" for i in timing.left}
    outcomes |= dict.fromkeys(timing.skipped, "skipped")
    outcomes |= dict.fromkeys(timing.failed, "failed")
    events = []
    for i, step in enumerate(schedule.steps):
        outcome = outcomes.get(i, "done")
        load, joules = (0.0, 0.0) if outcome == "skipped" else (costs.loads[i], costs.joules[i])
        event = Event(
            schedule.round,
            step.id,
            step.after,
            _kind(step),
            step.node,
            getattr(step, "peer", None),
            getattr(step, "direction", None),
            0.0 if isinstance(step, Send) else load,
            int(load) if isinstance(step, Send) else 0,
            start_s + timing.start_s[i],
            start_s + timing.end_s[i],
            joules,
            outcome,
            getattr(step, "messages", 1),
            getattr(step, "encodes", False),
            *_client_batch_part(step),
            waits_s=0.0 if outcome == "skipped" else costs.waits_s.get(i, 0.0),
            symbols=0 if outcome == "skipped" else symbols.get(i, 0),
        )
        events.append(event)
    return events


def _kind(step: Step) -> str:
    if isinstance(step, Send):
        return "send"
    return step.stage if isinstance(step, Pass) else KINDS[type(step)]


def _client_batch_part(step: Step) -> tuple[int | None, int | None, int | None]:
    """What a step is of, as an event names it."""
    if isinstance(step, Pass | Send):
        return step.client if step.client >= 0 else None, step.batch, step.part
    if isinstance(step, Aggregate) or step.client == SERVER_ID:
        return None, None, None
    return step.client, None, None


def _waiting(
    schedule: Schedule, events: list[Event], radio: Radio, start_s: float, waited_from_s: float
) -> list[Event]:
    """What those that take part, and the server, spend while they have nothing to do, where they spend
    anything.

    Args:
        schedule: the round's steps.
        events: one for each.
        radio: the devices.
        start_s: when the round begins.
        waited_from_s: since when the server has waited for somebody to be there.
    """
    if not any(device.section.idle_w for device in (*radio.devices.kinds, radio.server)):
        return []
    end_s = max(e.t1_s for e in events if e.event == "aggregate")
    ends: Iterator[tuple[int, int | None]] = (
        (step.sender, step.receiver) if isinstance(step, Send) else (schedule.computing[i], None)
        for i, step in enumerate(schedule)
    )
    # what only ends a round is nobody's work: without a server none waits for it
    works = [not (isinstance(step, Aggregate) and step.only_ends) for step in schedule]
    timed = zip(ends, events, works, strict=True)
    spans = ((*pair, e.t0_s, e.t1_s) for pair, e, work in timed if work)
    idle = idle_s(spans, start_s, end_s)
    idle[SERVER_ID] = idle.get(SERVER_ID, 0.0) + start_s - waited_from_s
    return [
        waiting(schedule.round, client, end_s, seconds, joules)
        for client, seconds in idle.items()
        if (joules := radio.device(client).section.idle_w * seconds)
    ]


def waiting(round_number: int, client: int, end_s: float, seconds: float, joules: float) -> Event:
    """A line of the timeline of a device that has nothing to do.

    Args:
        round_number: of the round.
        client: that waits, or the server.
        end_s: the round's end.
        seconds: for which it waits, in all.
        joules: that it takes.
    """
    node = client_node(client)
    return Event(
        round=round_number,
        id=f"wait-{node}",
        after=(),
        event="wait",
        node=node,
        peer=None,
        direction=None,
        flops=0.0,
        bytes=0,
        t0_s=end_s - seconds,
        t1_s=end_s,
        energy_j=joules,
        client=client if client >= 0 else None,
    )
