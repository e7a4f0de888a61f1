"""What every transfer of a round takes over the links of a network."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

import numpy as np

from fedray.network import allocation
from fedray.network.links import Link, RoundStart, TransferCosts, TransferRequests, pair_numbers
from fedray.network.radio import Radio
from fedray.network.simulation import Simulation
from fedray.schedule import Schedule
from fedray.steps import Send


class TransferCost(NamedTuple):
    """One transfer: seconds and joules, or `at`, which gives them for one that starts at a second."""

    time_s: float
    energy_j: float
    lost: bool
    at: Callable[[float], tuple[float, float]] | None = None

    def starting_at(self, start_s: float) -> tuple[float, float]:
        return self.at(start_s) if self.at else (self.time_s, self.energy_j)


def transfer_costs(
    schedule: Schedule,
    loads: Sequence[float],
    radio: Radio,
    start: RoundStart,
    symbols: Mapping[int, int] = {},
) -> dict[int, TransferCost]:
    """Every send step's transfer, by its place in the schedule.

    Args:
        schedule: the round's steps.
        loads: of each step, in bytes or floating-point operations.
        radio: the links and devices.
        start: the round.
        symbols: channel uses, by its place, of each send step that goes on the air as it is.
    """
    costs: dict[int, TransferCost] = {}
    # how the uplink's band is shared may depend on what was before
    for direction in ("downlink", "sidelink", "uplink"):
        if places := schedule.sends.get(direction):
            costs |= _direction_costs(schedule, places, loads, radio, start, costs, symbols)
    return costs


def uplink_snrs_db(schedule: Schedule, radio: Radio, start: RoundStart) -> dict[int, float]:
    """The mean signal-to-noise ratio in dB of each client's uplink in this round, over its share of the band,
    which is the same for all its transfers.

    Args:
        schedule: the round's steps.
        radio: the links and devices.
        start: the round.
    """
    places = schedule.sends.get("uplink", [])
    if not places:
        return {}
    requests = _requests(schedule, places, np.zeros(len(places)))
    requests = requests._replace(share=_equal_shares(schedule, places, requests.client))
    snrs_db = radio.links["uplink"].mean_snr_db(start, requests)
    return dict(zip(requests.client.tolist(), snrs_db.tolist(), strict=True))


def _requests(schedule: Schedule, places: Sequence[int], nbytes: np.ndarray) -> TransferRequests:
    """The transfers of one direction, each with the whole band.

    Args:
        schedule: the round's steps.
        places: of the direction's send steps.
        nbytes: of each of these [n].
    """
    steps = [cast(Send, schedule.steps[i]) for i in places]
    sender, receiver, messages = (
        np.array(values, np.int64)
        for values in zip(*((step.sender, step.receiver, step.messages) for step in steps), strict=True)
    )
    numbers = pair_numbers(sender, receiver)
    return TransferRequests(sender, receiver, nbytes, messages, np.ones(len(steps)), numbers)


def _direction_costs(
    schedule: Schedule,
    places: list[int],
    loads: Sequence[float],
    radio: Radio,
    start: RoundStart,
    earlier: dict[int, TransferCost],
    symbols: Mapping[int, int],
) -> dict[int, TransferCost]:
    """The transfers of one direction.

    Args:
        schedule: the round's steps.
        places: of the direction's send steps.
        loads: of each step of the schedule, in bytes or floating-point operations.
        radio: the links and devices.
        start: the round.
        earlier: transfers of the other directions, as far as they are known.
        symbols: channel uses of steps that go on the air as they are.
    """
    link = radio.links[cast(Send, schedule.steps[places[0]]).direction]
    nbytes = np.array([loads[i] for i in places])
    requests = _requests(schedule, places, nbytes)
    if link.allocation in ("equal", "blocks"):
        requests = requests._replace(share=_equal_shares(schedule, places, requests.client))
    elif link.allocation == "proportional_fair":
        rates = _rates(link, start, requests)
        requests = requests._replace(share=allocation.proportional_fair(rates, len(places)))
    elif link.allocation == "min_max":
        ready_s = _ready_times_s(schedule, loads, radio, start, earlier)
        ready = np.array([ready_s[i] for i in places])
        rates = _rates(link, start, requests)
        requests = requests._replace(share=allocation.min_max(8.0 * nbytes, ready, rates))
    costs = _each(places, link.transfers(start, requests))
    if on_air := [i for i, place in enumerate(places) if place in symbols]:
        some = TransferRequests(*(values[on_air] for values in requests))
        taken = [places[i] for i in on_air]
        uses = np.array([symbols[place] for place in taken])
        costs |= _each(taken, link.symbol_transfers(start, some, uses))
    return costs


def _each(places: Sequence[int], costs: TransferCosts) -> dict[int, TransferCost]:
    """What each transfer takes, by its place in the schedule."""
    each = zip(places, costs.time_s.tolist(), costs.energy_j.tolist(), costs.lost.tolist(), strict=True)
    return {
        place: TransferCost(time_s, energy_j, lost, partial(costs.at, i) if costs.at else None)
        for i, (place, time_s, energy_j, lost) in enumerate(each)
    }


def _rates(link: Link, start: RoundStart, requests: TransferRequests) -> allocation.Rate:
    """Rates as a function of shares, 0 for a receiver that an equal share does not reach."""
    rates = link.share_rates(start, requests.sender, requests.receiver)
    return lambda share: rates(share, 1 / len(requests.sender))


def _ready_times_s(
    schedule: Schedule,
    loads: Sequence[float],
    radio: Radio,
    start: RoundStart,
    earlier: dict[int, TransferCost],
) -> list[float]:
    """When each step would start if the transfers that are not known yet took no time.

    Args:
        schedule: the round's steps.
        loads: of each step, in bytes or floating-point operations.
        radio: the links and devices.
        start: the round.
        earlier: the transfers that are known.
    """

    def duration_s(i: int, now_s: float) -> float:
        if i in schedule.computing:
            return radio.device(schedule.computing[i]).time_s(loads[i])
        return earlier[i].starting_at(start.time_s + now_s)[0] if i in earlier else 0.0

    return Simulation(schedule, duration_s).run().start_s


def _equal_shares(schedule: Schedule, places: list[int], clients: np.ndarray) -> np.ndarray:
    """The same share for all of a direction's send steps: one of those that send at once when most do."""
    is_own = bytearray(len(schedule.steps))
    depth = [0] * len(schedule.steps)
    for i in places:
        is_own[i] = 1
    # how many before it in this direction: those equally deep send at once
    for i, before in enumerate(schedule.before):
        if before:
            longest = depth[before[0]] if len(before) == 1 else max([depth[j] for j in before])
            depth[i] = longest + is_own[i]
    # a client's own transfers follow each other
    at_once = set(zip((depth[i] for i in places), clients.tolist(), strict=True))
    return np.full(len(places), 1 / max(Counter(deep for deep, _ in at_once).values()))
