"""What a round costs each client, in money: its joules and seconds at the scenario's prices, times a private
factor of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.cuts import CutWork
from fedray.randomness import SERVER_ID, generator
from fedray.scenario.scenario import Scenario
from fedray.steps import BACK


def known_costs(
    scenario: Scenario,
    radio: Radio,
    start: RoundStart,
    work: Work,
    clients: np.ndarray,
    encoded: Collection[int] = (),
) -> np.ndarray:
    """What the server knows of what the round would cost each client, in money [clients]: its joules and
    seconds at the scenario's prices, as if as many clients as may take part shared each band. Infinite for
    one out of reach.

    Args:
        scenario: with `incentive`.
        radio: its network.
        start: which round, and when it begins.
        work: what steps take.
        clients: by number [n].
        encoded: clients that have encoded their samples; the others do it first.
    """
    section: Any = scenario.incentive  # one with prices
    costs = np.full(len(clients), np.inf)
    if not len(clients):
        return costs
    at_once = min(scenario.population.clients_selected, len(clients))
    joules = radio.client_energy_j(start, work, clients, at_once, encoded)
    seconds = radio.finish_times_s(start, work, clients, encoded)(at_once)
    reached = np.isfinite(joules) & np.isfinite(seconds)
    costs[reached] = section.joule_price * joules[reached] + section.second_price * seconds[reached]
    return costs


def private_factors(scenario: Scenario, clients: np.ndarray) -> np.ndarray:
    """Each client's own factor on what the server knows of its costs [clients]; the same in all rounds."""
    section: Any = scenario.incentive  # one with prices
    return np.array(
        [section.private_factor_of(generator(scenario.seed, 0, c, "private cost")) for c in clients.tolist()]
    )


def hop_costs(
    scenario: Scenario,
    radio: Radio,
    start: RoundStart,
    work: Work,
    clients: np.ndarray,
    encoded: Collection[int] = (),
) -> np.ndarray:
    """What the server knows of what a relay would cost each client, in money [clients, clients]: the joules
    and seconds of its local update, and of handing the model on to the client of the column; where that is
    itself, of sending it up. Infinite where it does not arrive.

    Args:
        scenario: with `incentive`.
        radio: its network.
        start: which round, and when it begins.
        work: what steps take.
        clients: by number [n].
        encoded: clients that have encoded their samples; the others do it first.
    """
    section: Any = scenario.incentive  # one with prices
    joules, seconds = radio.compute_costs(work, clients, encoded)
    n = len(clients)
    # the place of who sends, and of who gets it: another, or where both are the same the server
    sender, receiver = np.divmod(np.arange(n * n), n)
    up = sender == receiver
    total_j = joules[sender]
    total_s = seconds[sender]
    for direction, pairs in (("sidelink", ~up), ("uplink", up)):
        to = clients[receiver[pairs]] if direction == "sidelink" else np.full(n, SERVER_ID)
        sent = radio.first_transfers(start, work, direction, clients[sender[pairs]], to)
        total_j[pairs] += sent[0]
        total_s[pairs] += sent[1]
    costs = np.full(n * n, np.inf)
    arrives = np.isfinite(total_j)
    costs[arrives] = section.joule_price * total_j[arrives] + section.second_price * total_s[arrives]
    return costs.reshape(n, n)


def split_work(scenario: Scenario, work: Work, cut: CutWork, samples: Sequence[int]) -> Work:
    """The work of a client's round with a cut as if it were one local update between two transfers, each of
    all bytes that cross in its direction: its own stages' operations; its part of the model and what crosses
    for all its batches.

    Args:
        scenario: whose.
        work: what steps take.
        cut: of the model.
        samples: that each client of the scenario has.
    """
    up = ("smashed", BACK["features"]) if cut.tail else ("smashed",)
    down = (BACK["smashed"], "features") if cut.tail else (BACK["smashed"],)
    crossing = {"uplink": up, "downlink": down}

    def nbytes(direction: str, client: int) -> int:
        batches = scenario.local_batches(client, samples[client])
        crossed = sum(cut.bytes[name][n] for name in crossing[direction] for n in batches)
        return work.send_bytes(direction, client) + crossed

    def flops(client: int, pictures: int) -> float:
        return scenario.local_samples(client, samples[client]) * cut.side_flops["client"]

    return replace(work, train_flops=flops, send_bytes=nbytes)
