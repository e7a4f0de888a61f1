"""Whom the server asks in a round: of those that are there and free, as many as it wants."""

from collections.abc import Callable

import numpy as np

from fedray.network.ledger import Ledger
from fedray.network.links import RoundStart, TransferRequests
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.selection import SelectionContext, choose
from fedray.planning.shared import Shared
from fedray.randomness import SERVER, generator
from fedray.scenario.scenario import Scenario

NOTHING = Ledger()


def select_clients(
    scenario: Scenario,
    radio: Radio,
    start: RoundStart,
    shared: Shared | None,
    work: Work | None = None,
    so_far: Ledger = NOTHING,
) -> list[int]:
    """The clients that are asked, of those that are there and free, as `population.selection` says.

    Args:
        scenario: whose.
        radio: its network.
        start: which round, and when it begins.
        shared: what the server knows of its clients.
        work: what steps take, for selections that depend on it.
        so_far: what the rounds before it cost.
    """
    population = scenario.population
    eligible = np.arange(population.clients) if shared is None else shared.eligible(scenario)
    available = available_clients(scenario, radio, start, shared, so_far)

    def finish_times_s(clients: np.ndarray) -> Callable[[int], np.ndarray]:
        assert work is not None
        return radio.finish_times_s(start, work, clients, so_far.encoded)

    def uplink_speedups(clients: np.ndarray, at_once: int) -> np.ndarray:
        assert work is not None
        return _uplink_speedups(radio, start, work, clients, at_once)

    context = SelectionContext(
        round_number=start.round_number,
        available=available,
        eligible=eligible,
        count=min(population.clients_selected, len(available)),
        rng=generator(scenario.seed, start.round_number, SERVER, "clients"),
        label_counts=None if shared is None else shared.counts,
        finish_times_s=finish_times_s,
        uplink_speedups=uplink_speedups,
        deadline_s=scenario.network.deadline_s,
        rate=population.rate,
    )
    return choose(population.selection, context)


def _uplink_speedups(
    radio: Radio, start: RoundStart, work: Work, clients: np.ndarray, at_once: int
) -> np.ndarray:
    """How much faster than at its mean rate each client's uplink of this round would be, over an equal share
    of the band.

    Args:
        radio: the network.
        start: which round.
        work: gives what is sent.
        clients: [n].
        at_once: how many share the band.
    """
    nbytes = np.array([work.send_bytes("uplink", c) for c in clients.tolist()])
    ones = np.ones(len(clients), int)
    requests = TransferRequests(clients, SERVER * ones, nbytes, ones, ones / at_once, 0 * ones)
    return radio.links["uplink"].fading_speedup(start, requests)


def available_clients(
    scenario: Scenario, radio: Radio, start: RoundStart, shared: Shared | None, so_far: Ledger
) -> np.ndarray:
    """The clients that are there and free, sorted [n] int.

    Args:
        scenario: whose.
        radio: its network.
        start: which round.
        shared: what the server knows of its clients.
        so_far: what the rounds before it cost.
    """
    return radio.devices.available(start, free_clients(scenario, shared, so_far))


def free_clients(scenario: Scenario, shared: Shared | None, so_far: Ledger) -> np.ndarray:
    """The clients that could be asked if they were there, sorted [n] int."""
    eligible = np.arange(scenario.population.clients) if shared is None else shared.eligible(scenario)
    return np.setdiff1d(eligible, so_far.busy_clients) if so_far.busy else eligible
