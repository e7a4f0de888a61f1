"""The rounds of a run, one after another: each one's schedule, and what the clock says of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from fedray.network.asynchronous import Choose, Timeline
from fedray.network.clock import time_round
from fedray.network.flights import ServerStep, events_of
from fedray.network.ledger import Event, Ledger
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.tiers import TierTimeline, in_tiers
from fedray.network.work import Work
from fedray.planning.asked import NOTHING
from fedray.planning.round import schedule_round
from fedray.planning.shared import Shared
from fedray.randomness import SERVER, generator
from fedray.scenario.scenario import Scenario
from fedray.schedule import Schedule

TRIES = 64  # draws of a client that may not begin, before those that may are counted


class Rounds(Protocol):
    """The rounds of a run."""

    def schedule(self, round_number: int, so_far: Ledger) -> Schedule:
        """A round's steps, asked for in order.

        Args:
            round_number: from 1.
            so_far: what the rounds before it cost.

        Raises:
            Refused: for a relay in which a device has nobody in range.
        """

    def events(self, schedule: Schedule, so_far: Ledger) -> list[Event]:
        """A line of the timeline for each step of the schedule that was asked for last.

        Args:
            schedule: the round's.
            so_far: what the rounds before it cost.
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

    def schedule(self, round_number: int, so_far: Ledger) -> Schedule:
        return schedule_round(self.scenario, self.radio, round_number, self.known, self.work, so_far)

    def events(self, schedule: Schedule, so_far: Ledger) -> list[Event]:
        return time_round(schedule, self.work, self.radio, so_far.sim_time_s)


class AsynchronousRounds:
    """Server steps of one timeline, which begins anew with every process: a resumed run goes over the steps
    that it has taken without doing them."""

    def __init__(self, scenario: Scenario, radio: Radio, work: Work, known: Shared, start: Ledger) -> None:
        self.radio = radio
        self.timeline = _timeline(scenario, radio, work, known.eligible(scenario), start.sim_time_s)

    def schedule(self, round_number: int, so_far: Ledger) -> Schedule:
        while True:
            self.started_s = self.timeline.open_s
            self.step = self.timeline.next_step()
            if self.timeline.round == round_number:
                return _schedule(round_number, self.step)

    def events(self, schedule: Schedule, so_far: Ledger) -> list[Event]:
        return events_of(schedule.round, self.step, self.started_s, self.radio)


def _timeline(scenario: Scenario, radio: Radio, work: Work, eligible: np.ndarray, start_s: float) -> Timeline:
    """The timeline of a scenario's mode.

    Args:
        scenario: with a mode.
        radio: its network.
        work: what steps take.
        eligible: clients that can be asked to train, sorted [n] int.
        start_s: when the first round begins.
    """
    mode = scenario.topology.asynchronous
    assert mode is not None
    encodes = bool(work.encode_flops)
    next_s = partial(radio.devices.next_s, clients=eligible)
    if not mode.groups:
        choose = random_client(scenario.seed, radio, eligible)
        return Timeline(mode, work, radio, choose, start_s, encodes, next_s)
    finish_s = radio.finish_times_s(RoundStart(1, start_s), work, eligible)(mode.at_once)
    tiers = in_tiers(finish_s, eligible, mode.groups)

    def clients(start: RoundStart, tier: int) -> list[int]:
        there = radio.devices.available(start, tiers[tier])
        rng = generator(scenario.seed, start.round_number, SERVER, f"clients of tier {tier}")
        drawn = rng.choice(there, min(mode.updates_per_step, len(there)), replace=False)
        return sorted(drawn.tolist())

    def next_tier(round_number: int, tiers: Sequence[int]) -> int:
        return int(generator(scenario.seed, round_number, SERVER, "tier").choice(tiers))

    one = next_tier if mode.one_group_at_a_time else None
    return TierTimeline(mode, work, radio, clients, one, mode.groups, start_s, encodes, next_s)


def _schedule(round_number: int, step: ServerStep) -> Schedule:
    """A server step as a round: all that was done for it, from the models that its clients had."""
    steps = tuple(one for flight in step.flights for one in flight.steps)
    return Schedule(
        round_number,
        (*steps, step.aggregate),
        staleness={flight.client: round_number - 1 - flight.version for flight in step.flights},
        versions_in_use=step.versions,
        tier=step.tier,
    )


def random_client(seed: int, radio: Radio, eligible: np.ndarray) -> Choose:
    """Who begins next: of the clients that are there in a round and may begin, all with equal probability.

    Args:
        seed: the run's.
        radio: knows who is there.
        eligible: clients that can be asked to train, sorted [n] int.
    """
    draws: dict[int, np.random.Generator] = {}

    def choose(start: RoundStart, without: Collection[int]) -> int | None:
        if start.round_number not in draws:
            draws.clear()
            draws[start.round_number] = generator(seed, start.round_number, SERVER, "clients")
        rng = draws[start.round_number]
        for _ in range(TRIES):  # which spares counting a million clients
            client = eligible[rng.integers(len(eligible))]
            if client not in without and len(radio.devices.available(start, np.array([client]))):
                return int(client)
        there = np.setdiff1d(radio.devices.available(start, eligible), list(without))
        return int(there[rng.integers(len(there))]) if len(there) else None

    return choose
