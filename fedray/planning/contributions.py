"""What clients are paid for what their updates add to the model: at most, before a round, and once it is
known."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fedray.incentives.incentive import Incentive, Offers
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.bidding import Decision
from fedray.planning.client_costs import known_costs, private_factors
from fedray.scenario.kinds import implementation
from fedray.scenario.scenario import Scenario
from fedray.schedule import Payments, Schedule
from fedray.steps import Aggregate


def offer_budget(
    scenario: Scenario, radio: Radio, start: RoundStart, work: Work, clients: np.ndarray
) -> Decision:
    """A round whose clients are paid once their updates have arrived: the whole budget, where there is one,
    and what the round costs those that are in reach.

    Args:
        scenario: with `incentive`.
        radio: its network.
        start: which round, and when it begins.
        work: what steps take.
        clients: of the round, by number [n].
    """
    budget = getattr(scenario.incentive, "budget", 0.0)  # one of its own may not know how much it will be
    costs = known_costs(scenario, radio, start, work, clients) * private_factors(scenario, clients)
    at_most = budget if len(clients) else 0.0
    return Decision(clients.tolist(), Payments(at_most, float(costs[np.isfinite(costs)].sum())))


def evaluating(schedule: Schedule, section: Any) -> Schedule:
    """The same round, in which the server evaluates models to find out what each update adds.

    Args:
        schedule: of the round.
        section: the scenario's `incentive`.
    """
    evaluated = section.evaluated_models(len(schedule.clients)) * section.validation_images
    steps = [
        step._replace(evaluated=evaluated) if isinstance(step, Aggregate) else step for step in schedule.steps
    ]
    return replace(schedule, steps=tuple(steps))


def paid_by_contributions(
    scenario: Scenario, schedule: Schedule, contributions: Mapping[int, float] | None
) -> Schedule:
    """The same round with what its clients are paid, where that follows from what their updates add.

    Args:
        scenario: whose.
        schedule: of the round.
        contributions: of the updates that arrived, by client; None: none arrived.
    """
    section = scenario.incentive
    if section is None or not section.validation_images:
        return schedule
    assert schedule.payments is not None
    known = dict(contributions or {})
    mechanism: Incentive = implementation(section)(section)
    n = len(known)
    outcome = mechanism.decide(Offers(np.array(list(known.values())), np.zeros(n), n))
    clients = np.array(list(known), int)[outcome.winners].tolist()
    each = dict(zip(clients, outcome.payments.tolist(), strict=True))
    payments = schedule.payments._replace(
        paid=float(outcome.payments.sum()), by_client=each, contributions=known
    )
    return replace(schedule, payments=payments)
