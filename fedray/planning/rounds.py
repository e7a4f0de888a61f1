"""The rounds of a run, one after another: each one's schedule, and what the clock says of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

import numpy as np

from fedray.network.asynchronous import ServerStep, Timeline, events_of
from fedray.network.clock import time_round
from fedray.network.ledger import Event, Ledger
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.round import NOTHING, schedule_round
from fedray.planning.shared import Shared
from fedray.randomness import SERVER, generator
from fedray.scenario.scenario import Scenario
from fedray.schedule import Schedule

TRIES = 64  # draws of a client that may not begin, before those that may are counted


class TimedRound(NamedTuple):
    """A round's steps, and a line of the timeline for each."""

    schedule: Schedule
    events: list[Event]


class Rounds(Protocol):
    """The rounds of a run."""

    def of(self, round_number: int, so_far: Ledger) -> TimedRound:
        """A round, asked for in order.

        Args:
            round_number: from 1.
            so_far: what the rounds before it cost.

        Raises:
            Refused: for a relay in which a device has nobody in range.
        """


def rounds_of(scenario: Scenario, radio: Radio, work: Work, known: Shared, start: Ledger = NOTHING) -> Rounds:
    """The rounds of a scenario.

    Args:
        scenario: whose.
        radio: its network.
        work: what steps take.
        known: what the server knows of its clients.
        start: what was spent before the first.
    """
    if scenario.topology.asynchronous is None:
        return TogetherRounds(scenario, radio, work, known)
    return AsynchronousRounds(scenario, radio, work, known, start)


class TogetherRounds:
    """Rounds whose clients begin together."""

    def __init__(self, scenario: Scenario, radio: Radio, work: Work, known: Shared) -> None:
        self.scenario = scenario
        self.radio = radio
        self.work = work
        self.known = known

    def of(self, round_number: int, so_far: Ledger) -> TimedRound:
        schedule = schedule_round(self.scenario, self.radio, round_number, self.known, self.work, so_far)
        return TimedRound(schedule, time_round(schedule, self.work, self.radio, so_far.sim_time_s))


class AsynchronousRounds:
    """Server steps of one timeline, which begins anew with every process: a resumed run goes over the steps
    that it has taken without doing them."""

    def __init__(self, scenario: Scenario, radio: Radio, work: Work, known: Shared, start: Ledger) -> None:
        mode = scenario.topology.asynchronous
        assert mode is not None
        choose = random_client(scenario.seed, radio, known.eligible(scenario))
        encodes = bool(work.encode_flops)
        self.radio = radio
        self.timeline = Timeline(mode, work, radio, choose, start.sim_time_s, encodes)

    def of(self, round_number: int, so_far: Ledger) -> TimedRound:
        while True:
            started_s = self.timeline.open_s
            step = self.timeline.next_step()
            if self.timeline.round == round_number:
                break
        return TimedRound(_schedule(round_number, step), events_of(round_number, step, started_s, self.radio))


def _schedule(round_number: int, step: ServerStep) -> Schedule:
    """A server step as a round: all that was done for it, from the models that its clients had."""
    steps = tuple(one for flight in step.flights for one in flight.steps)
    return Schedule(
        round_number,
        (*steps, step.aggregate),
        staleness={flight.client: round_number - 1 - flight.version for flight in step.flights},
        versions_in_use=step.versions,
    )


def random_client(
    seed: int, radio: Radio, eligible: np.ndarray
) -> Callable[[int, Collection[int]], int | None]:
    """Who begins next: of the clients that are there in a round and may begin, all with equal probability.

    Args:
        seed: the run's.
        radio: knows who is there.
        eligible: clients that can be asked to train, sorted [n] int.
    """
    draws: dict[int, np.random.Generator] = {}

    def choose(round_number: int, without: Collection[int]) -> int | None:
        if round_number not in draws:
            draws.clear()
            draws[round_number] = generator(seed, round_number, SERVER, "clients")
        rng = draws[round_number]
        for _ in range(TRIES):  # which spares counting a million clients
            client = eligible[rng.integers(len(eligible))]
            if client not in without and len(radio.devices.available(round_number, np.array([client]))):
                return int(client)
        there = np.setdiff1d(radio.devices.available(round_number, eligible), list(without))
        return int(there[rng.integers(len(there))]) if len(there) else None

    return choose
