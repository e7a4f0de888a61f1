"""Payment for what clients share: labels, scored by audits, and data, by their validated quality."""

from collections.abc import Sequence

import numpy as np

from fedray.incentives.contributions import Worth, leave_one_out, shapley_values
from fedray.incentives.incentive import Incentive, Offers, Outcome, not_negative


class LabelScores(Incentive):
    """Each client is paid the price times one and its score."""

    def decide(self, offers: Offers) -> Outcome:
        assert offers.audited is not None
        payments = audit_payments(offers.bids, offers.audited[:, None], self.section.price)
        return Outcome(np.arange(len(offers.bids)), payments)

    def winners_costs(self, outcome: Outcome, costs: np.ndarray) -> np.ndarray:
        """A report costs nothing."""
        return np.zeros(len(outcome.winners))


class QualityPay(Incentive):
    """The clients' values are what their updates add to the model. They share the budget in proportion."""

    def decide(self, offers: Offers) -> Outcome:
        payments = quality_payments(offers.values, self.section.budget)
        winners = np.flatnonzero(payments)
        return Outcome(winners, payments[winners])

    def contributions(self, players: int, worth: Worth) -> np.ndarray:
        find = shapley_values if self.section.contribution == "shapley" else leave_one_out
        return find(players, worth)


def quadratic_score(report: Sequence[float] | np.ndarray, label: int) -> float:
    """2 r_x - |r|^2 of a reported distribution r over labels and an observed label x: on average it is
    greatest for the true distribution, and for no other (Brier 1950).

    Args:
        report: the share of each label as reported [labels]; they add up to 1.
        label: the one that was observed, by number.

    Raises:
        ValueError: for shares below zero, or that do not add up to 1.
    """
    r = _distribution(report)
    return float(2 * r[label] - r @ r)


def expected_score(report: Sequence[float] | np.ndarray, truth: Sequence[float] | np.ndarray) -> float:
    """The mean quadratic score of a reported distribution where labels are drawn from another.

    Args:
        report: as reported [labels].
        truth: that labels are drawn from [labels].
    """
    r = _distribution(report)
    return float(2 * r @ _distribution(truth) - r @ r)


def audit_payments(
    reports: Sequence[Sequence[float]] | np.ndarray,
    audited: Sequence[Sequence[int]] | np.ndarray,
    price: float,
) -> np.ndarray:
    """What each client is paid for its reported distribution of labels: price x (1 + its mean score), which
    is never below zero; 0 without an audited sample [clients].

    Args:
        reports: the share of each label as each client reports it [clients, labels].
        audited: the labels of each client's samples that the server has looked at, drawn at random.
        price: in money.

    Raises:
        ValueError: for a report that is no distribution, a negative price, or another number of clients.
    """
    not_negative("price", [price])
    scores = [
        [quadratic_score(report, x) for x in labels] for report, labels in zip(reports, audited, strict=True)
    ]
    return np.array([price * (1 + np.mean(each)) if each else 0.0 for each in scores])


def quality_payments(improvements: Sequence[float] | np.ndarray, budget: float) -> np.ndarray:
    """A budget, shared in proportion to how much each client's data improve a model on the server's own
    samples; nothing for data that make it worse [clients].

    Args:
        improvements: the validated improvement by each client's data, such as in accuracy [clients].
        budget: in money.

    Raises:
        ValueError: for a negative budget.
    """
    not_negative("budget", [budget])
    good = np.maximum(np.asarray(improvements, dtype=float), 0)
    return budget * good / good.sum() if good.any() else good


def _distribution(shares: Sequence[float] | np.ndarray) -> np.ndarray:
    array = not_negative("shares of labels", shares)
    if not np.isclose(array.sum(), 1):
        raise ValueError(f"shares of labels: got {array.tolist()}, expected numbers that add up to 1")
    return array
