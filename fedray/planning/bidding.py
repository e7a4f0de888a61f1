"""What a round costs each client, what it bids for that, who wins, and what is paid."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from fedray.incentives.incentive import Incentive, Offers
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.randomness import generator
from fedray.scenario.base import Refused
from fedray.scenario.kinds import implementation
from fedray.scenario.scenario import Scenario
from fedray.schedule import Payments


def true_costs(
    scenario: Scenario,
    radio: Radio,
    start: RoundStart,
    work: Work,
    clients: np.ndarray,
    encoded: Collection[int] = (),
) -> np.ndarray:
    """What the round would cost each client, in money [clients]: its joules and seconds at the scenario's
    prices, times its private factor, as if as many clients as may win shared each band. Infinite for one out
    of reach.

    Args:
        scenario: with `incentive`.
        radio: its network.
        start: which round, and when it begins.
        work: what steps take.
        clients: by number [n].
        encoded: clients that have encoded their samples; the others do it first.
    """
    section = scenario.incentive
    assert section is not None
    if not len(clients):
        return np.empty(0)
    at_once = min(scenario.population.clients_selected, len(clients))
    joules = radio.client_energy_j(start, work, clients, at_once, encoded)
    seconds = radio.finish_times_s(start, work, clients, encoded)(at_once)
    reached = np.isfinite(joules) & np.isfinite(seconds)
    public = section.joule_price * joules[reached] + section.second_price * seconds[reached]
    costs = np.full(len(clients), np.inf)
    low, high = section.private_factor
    factors = [
        generator(scenario.seed, 0, c, "private cost").uniform(low, high) for c in clients[reached].tolist()
    ]
    costs[reached] = public * factors
    return costs


def hold_auction(
    scenario: Scenario, round_number: int, clients: np.ndarray, costs: np.ndarray, samples: Sequence[int]
) -> tuple[list[int], Payments]:
    """The winners of a round, ascending, and what they are paid. What attackers gain is what each does by its
    own bid instead of its true cost, while all others bid as they do.

    Args:
        scenario: with `incentive`.
        round_number: from 1.
        clients: that bid, by number, ascending [n].
        costs: their true costs, in money [n].
        samples: that each client of the scenario has.
    """
    section = scenario.incentive
    assert section is not None
    mechanism: Incentive = implementation(section)(section)
    most = scenario.population.clients_selected
    if section.value == "samples":
        values = section.unit_value * np.array([samples[c] for c in clients.tolist()], float)
    else:
        values = np.full(len(clients), section.unit_value)
    bids = costs * [scenario.bid_factor(c, round_number) for c in clients.tolist()]
    outcome = mechanism.decide(Offers(values, bids, most))
    gain = None
    if scenario.adversary is not None:
        gain = 0.0
        for place in np.flatnonzero((bids != costs) & np.isfinite(costs)).tolist():
            honest = bids.copy()
            honest[place] = costs[place]
            truthful = mechanism.decide(Offers(values, honest, most))
            gain += outcome.utility(place, costs[place]) - truthful.utility(place, costs[place])
    winners = clients[outcome.winners].tolist()
    return winners, Payments(float(outcome.payments.sum()), float(costs[outcome.winners].sum()), gain)


def refuse_without_winners(
    scenario: Scenario, radio: Radio, work: Work, clients: np.ndarray, samples: Sequence[int]
) -> None:
    """Raises Refused where nobody would win the first round, were all clients there.

    Args:
        scenario: with `incentive`.
        radio: its network.
        work: what steps take.
        clients: that could bid, by number, ascending.
        samples: that each client of the scenario has.
    """
    section = scenario.incentive
    assert section is not None
    costs = true_costs(scenario, radio, RoundStart(1, 0.0), work, clients)
    winners, _ = hold_auction(scenario, 1, clients, costs, samples)
    if not winners:
        got = f"{getattr(section, section.limited_by)}, with which nobody wins the first round"
        expected = f"more, where the lowest true cost is {costs.min(initial=np.inf):.4g}"
        raise Refused(f"incentive.{section.limited_by}", got, expected)
