"""What every transfer of a round takes over the links of a network."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

import numpy as np

from fedray.network.allocations import Allocation, Senders
from fedray.network.cells import by_cell
from fedray.network.links import RoundStart, TransferCosts, TransferRequests, pair_numbers
from fedray.network.radio import Radio
from fedray.network.senders import KnownRound
from fedray.randomness import SERVER_ID
from fedray.schedule import Schedule
from fedray.steps import Send

NO_WAITS: Mapping[int, float] = {}
NO_SYMBOLS: Mapping[int, int] = {}


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
    waits_s: Mapping[int, float] = NO_WAITS,
    symbols: Mapping[int, int] = NO_SYMBOLS,
) -> dict[int, TransferCost]:
    """Every send step's transfer, by its place in the schedule.

    Args:
        schedule: the round's steps.
        loads: of each step, in bytes or floating-point operations.
        radio: the links and devices.
        start: the round.
        waits_s: of steps that wait beside their work.
        symbols: channel uses, by its place, of each send step that goes on the air as it is.
    """
    costs: dict[int, TransferCost] = {}
    known = KnownRound(schedule, loads, radio, start, costs, waits_s)
    # how the uplink's band is shared may depend on what was before
    for direction in ("downlink", "sidelink", "backhaul", "uplink"):
        if places := schedule.sends.get(direction):
            costs |= _direction_costs(known, places, symbols)
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


def receive_snr(schedule: Schedule, radio: Radio, start: RoundStart) -> float:
    """The signal-to-noise ratio, linear, with which the loudest update of a round arrives whose clients'
    signals add up.

    Args:
        schedule: the round's steps.
        radio: the links and devices.
        start: the round.
    """
    places = schedule.sends["uplink"]
    requests = _requests(schedule, places, np.zeros(len(places)))
    return radio.links["uplink"].receive_snr(start, requests)


def uplink_senders(
    schedule: Schedule, loads: Sequence[float], radio: Radio, start: RoundStart, waits_s: Mapping[int, float]
) -> Senders:
    """Those that share a round's uplink, whose own transfers are not known yet.

    Args:
        schedule: the round's steps.
        loads: of each step, in bytes or floating-point operations.
        radio: the links and devices.
        start: the round.
        waits_s: of steps that wait beside their work.
    """
    costs: dict[int, TransferCost] = {}
    known = KnownRound(schedule, loads, radio, start, costs, waits_s)
    for direction in ("downlink", "sidelink"):
        if places := schedule.sends.get(direction):
            costs |= _direction_costs(known, places)
    places = schedule.sends["uplink"]
    return _senders(known, places, _loaded(known, places))


def _loaded(known: KnownRound, places: Sequence[int]) -> TransferRequests:
    return _requests(known.schedule, places, np.array([known.loads[i] for i in places]))


def _requests(schedule: Schedule, places: Sequence[int], nbytes: np.ndarray) -> TransferRequests:
    """The transfers of one direction's send steps, each over the whole band.

    Args:
        schedule: the round's steps.
        places: of these steps.
        nbytes: that each sends [n].
    """
    steps = [cast(Send, schedule.steps[i]) for i in places]
    # an edge server's radio is the server's
    ends = ((max(s.sender, SERVER_ID), max(s.receiver, SERVER_ID), s.messages) for s in steps)
    sender, receiver, messages = (np.array(values, np.int64) for values in zip(*ends, strict=True))
    numbers = pair_numbers(sender, receiver)
    return TransferRequests(sender, receiver, nbytes, messages, np.ones(len(steps)), numbers)


def _senders(known: KnownRound, places: list[int], requests: TransferRequests) -> Senders:
    return known.senders(places, requests, lambda: _equal_shares(known.schedule, places, requests.client))


def _shares(
    known: KnownRound, places: list[int], requests: TransferRequests, allocation: Allocation
) -> np.ndarray:
    """Each transfer's share of its cell's band [n].

    Args:
        known: the round.
        places: of one direction's send steps.
        requests: of these transfers.
        allocation: of the direction's band.
    """

    def of_cell(members: np.ndarray) -> np.ndarray:
        own = [places[i] for i in members.tolist()]
        some = TransferRequests(*(values[members] for values in requests))
        return _verified(allocation.shares(_senders(known, own, some)), len(own), allocation)

    link = known.radio.links[cast(Send, known.schedule.steps[places[0]]).direction]
    return by_cell(link.cells(known.start, requests.client), of_cell)


def _direction_costs(
    known: KnownRound, places: list[int], symbols: Mapping[int, int] = NO_SYMBOLS
) -> dict[int, TransferCost]:
    """The transfers of one direction's send steps.

    Args:
        known: the round.
        places: of these steps.
        symbols: channel uses of those that go on the air as they are.
    """
    link = known.radio.links[cast(Send, known.schedule.steps[places[0]]).direction]
    requests = _loaded(known, places)
    if link.allocation is not None:
        requests = requests._replace(share=_shares(known, places, requests, link.allocation))
    costs = _each(places, link.transfers(known.start, requests))
    if on_air := [i for i, place in enumerate(places) if place in symbols]:
        some = TransferRequests(*(values[on_air] for values in requests))
        taken = [places[i] for i in on_air]
        uses = np.array([symbols[place] for place in taken])
        costs |= _each(taken, link.symbol_transfers(known.start, some, uses))
    return costs


def _each(places: Sequence[int], costs: TransferCosts) -> dict[int, TransferCost]:
    """What each transfer takes, by its place in the schedule."""
    each = zip(places, costs.time_s.tolist(), costs.energy_j.tolist(), costs.lost.tolist(), strict=True)
    return {
        place: TransferCost(time_s, energy_j, lost, partial(costs.at, i) if costs.at else None)
        for i, (place, time_s, energy_j, lost) in enumerate(each)
    }


def _verified(shares: np.ndarray, n: int, allocation: Allocation) -> np.ndarray:
    """Shares of the band [n].

    Raises:
        ValueError: for what an allocation of one's own may get wrong.
    """
    shares = np.asarray(shares, float)
    if shares.shape != (n,) or not ((shares > 0) & (shares <= 1 + 1e-9)).all():
        name = type(allocation).__name__
        raise ValueError(f"{name}.shares: got {shares.tolist()}, expected {n} numbers above 0, at most 1")
    return shares


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
