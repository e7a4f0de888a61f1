"""What each client bids for a round, who takes part, and what is paid."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedray.incentives.incentive import Incentive, Offers, Outcome
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.client_costs import hop_costs, known_costs, private_factors
from fedray.randomness import generator
from fedray.scenario.base import Refused
from fedray.scenario.kinds import implementation
from fedray.scenario.scenario import Scenario
from fedray.schedule import Payments


@dataclass(frozen=True)
class Decision:
    """What comes of a round's bids.

    Attributes:
        clients: that take part, ascending; in a relay in the order in which they train.
        payments: of the round.
        samples: on how many of its samples each of them trains, where an effort says so.
    """

    clients: list[int]
    payments: Payments
    samples: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """What is decided once, for every round: who takes part where it is there, and what comes of that.

    Attributes:
        payments: to each client, in money.
        costs: of each, in money.
        gain: of the attackers by their bids, in money, all rounds alike; None: no attacker bids.
    """

    payments: Mapping[int, float]
    costs: Mapping[int, float]
    gain: float | None

    def decision(self, available: Sequence[int]) -> Decision:
        """Of a round, by the clients that are there."""
        clients = [c for c in available if c in self.payments]
        paid = sum(self.payments[c] for c in clients)
        each = {c: self.payments[c] for c in clients}
        return Decision(clients, Payments(paid, sum(self.costs[c] for c in clients), self.gain, each))


@dataclass(frozen=True)
class Bids:
    """What a mechanism decides by, and what it does not know.

    Attributes:
        clients: by number, ascending [n].
        values: what each one's part is worth, in money [n].
        costs: their true costs, in money [n] or [n, alternatives].
        known: what the server knows of these; None: nothing that a mechanism asks for.
    """

    clients: np.ndarray
    values: np.ndarray
    costs: np.ndarray
    known: np.ndarray | None = None


def bids_of(
    scenario: Scenario,
    radio: Radio,
    start: RoundStart,
    work: Work,
    clients: np.ndarray,
    samples: Sequence[int],
    encoded: Collection[int] = (),
) -> Bids:
    """What a round is about, where nothing but the round itself or its order is decided.

    Args:
        scenario: with `incentive`.
        radio: its network.
        start: which round, and when it begins.
        work: what steps take.
        clients: that bid, by number, ascending [n].
        samples: that each client of the scenario has.
        encoded: clients that have encoded their samples; the others do it first.
    """
    section = scenario.incentive
    assert section is not None
    factors = private_factors(scenario, clients)
    values = client_values(scenario, clients, samples)
    if section.bids_for == "order":
        hops = hop_costs(scenario, radio, start, work, clients, encoded)
        return Bids(clients, values, hops * factors[:, None])
    known = known_costs(scenario, radio, start, work, clients, encoded)
    return Bids(clients, values, known * factors, known)


def client_values(scenario: Scenario, clients: np.ndarray, samples: Sequence[int]) -> np.ndarray:
    """What each client's part is worth to the server, in money [clients].

    Args:
        scenario: with `incentive`.
        clients: by number.
        samples: that each client of the scenario has.
    """
    section: Any = scenario.incentive  # one with prices
    if section.value == "samples":
        return section.unit_value * np.array([samples[c] for c in clients.tolist()], float)
    return np.full(len(clients), section.unit_value)


def decide(scenario: Scenario, round_number: int, bids: Bids) -> tuple[Outcome, np.ndarray, float | None]:
    """The outcome of a round's bids, what it truly costs each winner, in money [winners], and what attackers
    gain: what each does by its own bid instead of its true cost, while all others bid as they do (None: no
    attacker bids).

    Args:
        scenario: with `incentive`.
        round_number: from 1.
        bids: of the round.
    """
    section = scenario.incentive
    assert section is not None
    mechanism: Incentive = implementation(section)(section)
    most = scenario.population.clients_selected
    costs = bids.costs
    multiples = np.array([scenario.bid_factor(c, round_number) for c in bids.clients.tolist()])
    reported = costs * (multiples if costs.ndim == 1 else multiples[:, None])

    def decided(reported: np.ndarray) -> tuple[Outcome, np.ndarray]:
        outcome = mechanism.decide(Offers(bids.values, reported, most, bids.known))
        return outcome, mechanism.winners_costs(outcome, costs)

    outcome, own = decided(reported)
    if scenario.adversary is None:
        return outcome, own, None
    gain = 0.0
    reached = np.isfinite(costs) if costs.ndim == 1 else np.isfinite(costs).any(axis=1)
    for place in np.flatnonzero((multiples != 1) & reached).tolist():
        honest = reported.copy()
        honest[place] = costs[place]
        truthful = decided(honest)
        gain += _utility(place, outcome, own) - _utility(place, *truthful)
    return outcome, own, gain


def _utility(place: int, outcome: Outcome, costs: np.ndarray) -> float:
    """What a bidder gains.

    Args:
        place: its place among the offers.
        outcome: with the payments.
        costs: of its winners.
    """
    return outcome.utility(place, float(costs[outcome.winners == place].sum()))


def decide_round(scenario: Scenario, round_number: int, bids: Bids, samples: Sequence[int]) -> Decision:
    """Who takes part in a round, and what is paid.

    Args:
        scenario: with `incentive`.
        round_number: from 1.
        bids: of the round.
        samples: that each client of the scenario has.
    """
    outcome, costs, gain = decide(scenario, round_number, bids)
    clients: list[int] = bids.clients[outcome.winners].tolist()
    each = dict(zip(clients, outcome.payments.tolist(), strict=True))
    payments = Payments(float(outcome.payments.sum()), float(costs.sum()), gain, each)
    if outcome.efforts is None:
        return Decision(clients, payments)
    used = [max(1, round(q * samples[c])) for c, q in zip(clients, outcome.efforts.tolist(), strict=True)]
    return Decision(clients, payments, dict(zip(clients, used, strict=True)))


def score_labels(
    scenario: Scenario, round_number: int, clients: np.ndarray, reported: np.ndarray, truth: np.ndarray
) -> Decision:
    """What a round's clients are paid for the labels that they have reported. One sample of each is looked
    at. What attackers gain by other reports than the truth is what they gain on average over all samples.

    Args:
        scenario: with `incentive`.
        round_number: from 1.
        clients: of the round, by number [n].
        reported: how many samples of each label each says that it has [n, labels].
        truth: how many it has [n, labels].
    """
    section = scenario.incentive
    assert section is not None
    mechanism: Incentive = implementation(section)(section)
    reports = label_shares(reported)
    shares = label_shares(truth)
    labels = np.arange(truth.shape[1])

    def label(client: int, shares: np.ndarray) -> int:
        return int(generator(scenario.seed, round_number, client, "audited sample").choice(labels, p=shares))

    audited = np.array([label(c, p) for c, p in zip(clients.tolist(), shares, strict=True)], int)
    n = len(clients)
    paid = mechanism.decide(Offers(np.zeros(n), reports, n, audited=audited)).payments
    each = dict(zip(clients.tolist(), paid.tolist(), strict=True))
    gain = None
    if scenario.adversary is not None:
        gain = 0.0
        for place, client in enumerate(clients.tolist()):
            if scenario.bid_factor(client, round_number) != 1:
                gain += _expected_gain(mechanism, reports[place], shares[place])
    return Decision(clients.tolist(), Payments(float(paid.sum()), 0.0, gain, each))


def _expected_gain(mechanism: Incentive, report: np.ndarray, truth: np.ndarray) -> float:
    """What a client is paid for a report more than for the truth, on average over its samples.

    Args:
        mechanism: that pays.
        report: the share of each label as it says [labels].
        truth: the share that it has [labels].
    """
    n = len(truth)
    paid = [
        mechanism.decide(Offers(np.zeros(n), np.tile(said, (n, 1)), n, audited=np.arange(n))).payments
        for said in (report, truth)
    ]
    return float(truth @ (paid[0] - paid[1]))


def label_shares(counts: np.ndarray) -> np.ndarray:
    """Of counts [clients, labels]; of one who reports none at all, equal shares."""
    totals = counts.sum(axis=1, keepdims=True)
    equal = np.full(counts.shape, 1 / counts.shape[1])
    return np.where(totals > 0, counts / np.maximum(totals, 1), equal)


def agree_on_cut(
    scenario: Scenario, radio: Radio, works: Sequence[Work], clients: np.ndarray, samples: Sequence[int]
) -> tuple[int, Agreement]:
    """Where a split model is cut, its place among the alternatives, and who takes part: by what the first
    round would cost.

    Args:
        scenario: with `incentive`.
        radio: its network.
        works: what a client's round takes with each cut (see client_costs.split_work).
        clients: that bid, by number, ascending.
        samples: that each client of the scenario has.

    Raises:
        Refused: where nobody wins.
    """
    start = RoundStart(1, 0.0)
    by_cut = [known_costs(scenario, radio, start, work, clients) for work in works]
    costs = np.stack(by_cut, axis=1) * private_factors(scenario, clients)[:, None]
    bids = Bids(clients, client_values(scenario, clients, samples), costs)
    outcome, own, gain = decide(scenario, 1, bids)
    if not len(outcome.winners):
        raise without_winners(scenario, bids)
    assert outcome.cut is not None
    winners = clients[outcome.winners].tolist()
    payments = dict(zip(winners, outcome.payments.tolist(), strict=True))
    return outcome.cut, Agreement(payments, dict(zip(winners, own.tolist(), strict=True)), gain)


def refuse_without_winners(
    scenario: Scenario, radio: Radio, work: Work, clients: np.ndarray, samples: Sequence[int]
) -> None:
    """Raises Refused where nobody would take part in the first round, were all clients there; of a relay's,
    the first of them.

    Args:
        scenario: with `incentive`.
        radio: its network.
        work: what steps take.
        clients: that could bid, by number, ascending.
        samples: that each client of the scenario has.
    """
    section = scenario.incentive
    assert section is not None
    if section.bids_for in ("cut", "labels", "nothing"):
        return  # a cut is decided, and refused, before there is one; labels and updates are always paid for
    if section.bids_for == "order":
        clients = clients[: scenario.population.clients_selected]
    bids = bids_of(scenario, radio, RoundStart(1, 0.0), work, clients, samples)
    outcome = decide(scenario, 1, bids)[0]
    trains = np.ones(len(outcome.winners))
    if outcome.efforts is not None:  # samples, of which less than a half are none
        trains = np.rint(outcome.efforts * [samples[c] for c in clients[outcome.winners].tolist()])
    if not trains.any():
        raise without_winners(scenario, bids)


def without_winners(scenario: Scenario, bids: Bids) -> Refused:
    """What is said of bids that nobody wins."""
    section = scenario.incentive
    assert section is not None
    got = f"{getattr(section, section.limited_by)}, with which nobody wins the first round"
    expected = f"more, where the lowest true cost is {bids.costs.min(initial=np.inf):.4g}"
    return Refused(f"incentive.{section.limited_by}", got, expected)
