"""What every transfer of a round takes over the links of a network."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import numpy as np

from fedray.network import allocation
from fedray.network.cells import by_cell
from fedray.network.links import Link, RoundStart, TransferRequests, pair_numbers
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
    schedule: Schedule, loads: Sequence[float], radio: Radio, start: RoundStart
) -> dict[int, TransferCost]:
    """Every send step's transfer, by its place in the schedule.

    Args:
        schedule: the round's steps.
        loads: of each step, in bytes or floating-point operations.
        radio: the links and devices.
        start: the round.
    """
    costs: dict[int, TransferCost] = {}
    # how the uplink's band is shared may depend on what was before
    for direction in ("downlink", "sidelink", "uplink"):
        if places := schedule.sends.get(direction):
            costs |= _direction_costs(schedule, places, loads, radio, start, costs)
    return costs


def _direction_costs(
    schedule: Schedule,
    places: list[int],
    loads: Sequence[float],
    radio: Radio,
    start: RoundStart,
    earlier: dict[int, TransferCost],
) -> dict[int, TransferCost]:
    """The transfers of one direction.

    Args:
        schedule: the round's steps.
        places: of the direction's send steps.
        loads: of each step of the schedule, in bytes or floating-point operations.
        radio: the links and devices.
        start: the round.
        earlier: transfers of the other directions, as far as they are known.
    """
    steps = [cast(Send, schedule.steps[i]) for i in places]
    link = radio.links[steps[0].direction]
    sender, receiver, messages = (
        np.array(values, np.int64)
        for values in zip(*((step.sender, step.receiver, step.messages) for step in steps), strict=True)
    )
    nbytes = np.array([loads[i] for i in places])
    numbers = pair_numbers(sender, receiver)
    requests = TransferRequests(sender, receiver, nbytes, messages, np.ones(len(steps)), numbers)
    cells = link.cells(start, requests.client)
    if link.allocation in ("equal", "blocks"):
        requests = requests._replace(share=_equal_shares(schedule, places, requests.client, cells))
    elif link.allocation == "proportional_fair":

        def fair(members: np.ndarray) -> np.ndarray:
            return allocation.proportional_fair(_rates(link, start, requests, members), len(members))

        requests = requests._replace(share=by_cell(cells, fair))
    elif link.allocation == "min_max":
        ready_s = _ready_times_s(schedule, loads, radio, start, earlier)
        ready = np.array([ready_s[i] for i in places])

        def together(members: np.ndarray) -> np.ndarray:
            rates = _rates(link, start, requests, members)
            return allocation.min_max(8.0 * nbytes[members], ready[members], rates)

        requests = requests._replace(share=by_cell(cells, together))
    costs = link.transfers(start, requests)
    each = zip(places, costs.time_s.tolist(), costs.energy_j.tolist(), costs.lost.tolist(), strict=True)
    return {
        place: TransferCost(time_s, energy_j, lost, partial(costs.at, i) if costs.at else None)
        for i, (place, time_s, energy_j, lost) in enumerate(each)
    }


def _rates(link: Link, start: RoundStart, requests: TransferRequests, members: np.ndarray) -> allocation.Rate:
    """Rates of these of the transfers as a function of shares, 0 for a receiver that an equal share does not
    reach.

    Args:
        link: that they go over.
        start: the round.
        requests: the transfers.
        members: places of those that share a band.
    """
    rates = link.share_rates(start, requests.sender[members], requests.receiver[members])
    return lambda share: rates(share, 1 / len(members))


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


def _equal_shares(
    schedule: Schedule, places: list[int], clients: np.ndarray, cells: np.ndarray
) -> np.ndarray:
    """The same share for all of a direction's send steps in a cell: one of those that send at once when most
    do.

    Args:
        schedule: the round's steps.
        places: of the direction's send steps.
        clients: of each.
        cells: of each.
    """
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
    at_once = set(zip(cells.tolist(), (depth[i] for i in places), clients.tolist(), strict=True))
    most = Counter[int]()
    for (cell, _), sending in Counter((cell, deep) for cell, deep, _ in at_once).items():
        most[cell] = max(most[cell], sending)
    return np.array([1 / most[cell] for cell in cells.tolist()])
