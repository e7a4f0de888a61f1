"""Reverse auctions: the server buys, and clients bid what their part in a round costs them."""

import numpy as np

from fedray.incentives.incentive import Incentive, Offers, Outcome, not_negative


class ReverseAuction(Incentive):
    """Those with the greatest value less bid win, while that is above zero. Each is paid the highest bid with
    which it would still have won (its critical payment), so that no bid but the true cost is better for it
    (Vickrey 1961)."""

    def decide(self, offers: Offers) -> Outcome:
        return reverse_auction(offers.values, offers.bids, offers.most)


class BudgetAuction(Incentive):
    """Payments of a round never exceed the section's budget, and no bid but the true cost is better for a
    client (Singer 2010)."""

    def decide(self, offers: Offers) -> Outcome:
        return budget_auction(offers.values, offers.bids, self.section.budget, offers.most)


def reverse_auction(values: np.ndarray, bids: np.ndarray, most: int) -> Outcome:
    """The winners of a reverse auction with critical payments v_i - max(0, the greatest v - b of those that
    do not win); of equals, the first.

    Args:
        values: what each bidder's part is worth, in money [n].
        bids: in money [n].
        most: how many may win.

    Raises:
        ValueError: for a negative value or bid.
    """
    values = not_negative("values", values)
    surplus = values - not_negative("bids", bids)
    order = np.argsort(-surplus, kind="stable")
    winners = np.sort(order[:most][surplus[order[:most]] > 0])
    first_loser = surplus[order[most]] if most < len(order) else 0.0
    return Outcome(winners, values[winners] - max(0.0, first_loser))


def budget_auction(values: np.ndarray, bids: np.ndarray, budget: float, most: int | None = None) -> Outcome:
    """The winners of the proportional share mechanism: by bid per value in ascending order, each is taken
    whose bid is at most its share of the budget, B v_i / (sum of the values taken). Each is paid
    v_i min(B / sum of the values taken, b / v of the next in order) (Singer 2010, for additive values).

    Args:
        values: what each bidder's part is worth, above zero [n].
        bids: in money [n].
        budget: B, in money.
        most: how many may win; None: as many as the budget has room for.

    Raises:
        ValueError: for a negative bid or budget, or a value that is not above zero.
    """
    values = not_negative("values", values)
    bids = not_negative("bids", bids)
    not_negative("budget", [budget])
    if not (values > 0).all():
        raise ValueError(f"values: got {values.tolist()}, expected numbers above 0")
    density = bids / values
    order = np.argsort(density, kind="stable")
    limit = len(order) if most is None else min(most, len(order))
    taken = 0
    worth = 0.0
    while taken < limit and bids[order[taken]] <= budget * values[order[taken]] / (
        worth + values[order[taken]]
    ):
        worth += values[order[taken]]
        taken += 1
    winners = np.sort(order[:taken])
    if not taken:
        return Outcome(winners, np.empty(0))
    next_density = density[order[taken]] if taken < len(order) else np.inf
    return Outcome(winners, values[winners] * min(budget / worth, next_density))
