"""The joint choice of CPU frequency and transmit power that takes the least energy before a deadline."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.senders import KnownRound
from fedray.network.transfers import TransferCost
from fedray.randomness import SERVER_ID
from fedray.schedule import Schedule
from fedray.steps import Send, Train

POWER_LEVELS = 128  # that a client chooses from


class Savings(NamedTuple):
    """The frequency of each train step and the transfer of each uplink that saves, by their places."""

    frequency_hz: dict[int, float]
    uplinks: dict[int, TransferCost]


def save_energy(
    schedule: Schedule,
    loads: Sequence[float],
    radio: Radio,
    start: RoundStart,
    transfers: Mapping[int, TransferCost],
    waits_s: Mapping[int, float],
) -> Savings:
    """Of POWER_LEVELS powers up to the link's, the one with which a client's kappa C f^2 + p t is least,
    where f = C / (what the deadline leaves). A client that cannot meet the deadline does what it can.

    Args:
        schedule: the round's steps.
        loads: of each step, in bytes or floating-point operations.
        radio: the links and devices.
        start: the round.
        transfers: of each send step, at full power.
        waits_s: of steps that wait beside their work.
    """
    link = radio.links["uplink"]
    deadline_s = radio.section.deadline_s
    assert link.adjusts_power
    assert deadline_s is not None
    uplinks = {
        step.sender: i
        for i, step in enumerate(schedule)
        if isinstance(step, Send) and step.direction == "uplink"
    }
    savings = Savings({}, {})
    fractions = np.logspace(-4, 0, POWER_LEVELS)
    for i, step in enumerate(schedule):
        if not isinstance(step, Train) or step.client not in uplinks:
            continue
        device = radio.device(step.client)
        up = uplinks[step.client]
        assert device.scales_frequency
        down_s = _before_s(i, schedule, loads, radio, start, transfers)
        rate, power_w = link.rates_at_power(start, (step.client, SERVER_ID), 1 / len(uplinks), fractions)
        with np.errstate(divide="ignore", invalid="ignore"):
            up_s = 8 * loads[up] / rate
            left_s = deadline_s - waits_s.get(i, 0.0) - down_s - link.latency_s - up_s
            hz = device.cycles(loads[i]) / left_s
        meets_deadline = (hz > 0) & (hz <= device.frequency_hz)
        if not meets_deadline.any() or transfers[up].lost:
            continue
        compute_j = np.array([device.energy_j(loads[i], f) if f > 0 else np.inf for f in hz])
        joules = np.where(meets_deadline, power_w * up_s + compute_j, np.inf)
        best = int(np.argmin(joules))
        savings.frequency_hz[i] = float(hz[best]) * (1 + 1e-12)  # not a rounding error late
        upload_j = float(power_w[best] * up_s[best])
        savings.uplinks[up] = TransferCost(link.latency_s + float(up_s[best]), upload_j, False)
    return savings


def slowest(
    schedule: Schedule,
    loads: Sequence[float],
    radio: Radio,
    start: RoundStart,
    transfers: Mapping[int, TransferCost],
    waits_s: Mapping[int, float],
) -> dict[int, float]:
    """The lowest frequency of each client's computing steps with which its uplink ends before the deadline,
    by their places. A client that cannot meet it computes at its highest.

    Args:
        schedule: the round's steps.
        loads: of each step, in bytes or floating-point operations.
        radio: the links and devices.
        start: the round.
        transfers: of each send step.
        waits_s: of steps that wait beside their work.
    """
    deadline_s = radio.section.deadline_s
    places = schedule.sends.get("uplink", [])
    assert deadline_s is not None
    known = {i: cost for i, cost in transfers.items() if i not in places}
    own, ready_s = KnownRound(schedule, loads, radio, start, known, waits_s).slowed(places)
    frequency_hz: dict[int, float] = {}
    for place, steps, from_s in zip(places, own, ready_s.tolist(), strict=True):
        flops = sum(loads[i] for i in steps)
        left_s = deadline_s - from_s - transfers[place].time_s
        if not flops or left_s <= 0 or transfers[place].lost:
            continue
        device = radio.device(schedule.computing[steps[0]])
        hz = device.cycles(flops) / left_s * (1 + 1e-12)  # not a rounding error late
        if hz <= device.frequency_hz:
            frequency_hz |= dict.fromkeys(steps, hz)
    return frequency_hz


def _before_s(
    i: int,
    schedule: Schedule,
    loads: Sequence[float],
    radio: Radio,
    start: RoundStart,
    transfers: Mapping[int, TransferCost],
) -> float:
    """Seconds after which all that a step waits for has ended, at most: as if one were done after another.

    Args:
        i: the step's place.
        schedule: the round's steps.
        loads: of each step, in bytes or floating-point operations.
        radio: the links and devices.
        start: the round.
        transfers: of each send step, at full power.
    """
    seconds = 0.0
    for j in schedule.before[i]:
        if j in transfers:
            seconds += transfers[j].starting_at(start.time_s)[0]
        else:
            seconds += radio.device(schedule.computing[j]).time_s(loads[j])
        seconds += _before_s(j, schedule, loads, radio, start, transfers)
    return seconds
