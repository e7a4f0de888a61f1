"""A menu of contracts under adverse selection: the server knows which types of clients there are, not which
client is of which type."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from fedray.incentives.incentive import Incentive, Offers, Outcome, not_negative

TOLERANCE = 1e-12  # of money


class ContractMenu(Incentive):
    """Each client is offered a menu made for what the server knows of its cost, and takes its best item,
    or none."""

    def decide(self, offers: Offers) -> Outcome:
        assert offers.known is not None
        winners: list[int] = []
        payments: list[float] = []
        efforts: list[float] = []
        for place in np.flatnonzero(np.isfinite(offers.bids) & (offers.values > 0)).tolist():
            # an effort q of 1 costs the whole round's cost, where the menu's types have c q^2 / 2
            types = 2 * offers.known[place] * np.array(self.section.types)
            menu = contract_menu(types, self.section.type_shares, offers.values[place], most=1.0)
            item = menu.best(2 * offers.bids[place])
            if item is not None:
                winners.append(place)
                efforts.append(float(menu.efforts[item]))
                payments.append(float(menu.rewards[item]))
        return Outcome(np.array(winners, int), np.array(payments), np.array(efforts))

    def winners_costs(self, outcome: Outcome, costs: np.ndarray) -> np.ndarray:
        assert outcome.efforts is not None
        own: np.ndarray = costs[outcome.winners] * outcome.efforts**2
        return own


@dataclass(frozen=True)
class Menu:
    """One contract a type, in the order of the types.

    Attributes:
        efforts: q, what a client of each type does [K], ascending.
        rewards: R, what it is paid for that, in money [K].
        utilities: what it gains, R - c q^2 / 2, in money [K].
        server_utility: what the server gains on average a client, in money.
    """

    efforts: np.ndarray
    rewards: np.ndarray
    utilities: np.ndarray
    server_utility: float

    def best(self, cost: float) -> int | None:
        """The item that a client of cost c gains most by, of equals the one with the greatest effort; None
        where it would lose by each."""
        gains = self.rewards - cost * self.efforts**2 / 2
        slack = TOLERANCE * (1 + np.abs(self.rewards).max())  # a type's own item may be worth just nothing
        item = int(np.flatnonzero(gains >= gains.max() - slack)[-1])
        return item if gains[item] >= -slack else None


def contract_menu(
    costs: Sequence[float] | np.ndarray, shares: Sequence[float], gain: float, most: float = np.inf
) -> Menu:
    """The menu that is best for a server to which an effort q is worth gain x q, and whose clients of type k
    have costs c_k q^2 / 2. No type gains by another type's contract, and none loses by its own.

    q_k = gain / (c_k + (P_>k / p_k) (c_k - c_k+1)), where P_>k is the share of all cheaper types, and
    R_k = R_k-1 + c_k (q_k^2 - q_k-1^2) / 2. Where q would fall from one type to the next, these types get one
    contract (ironing): the isotonic regression of q with weights p_k (c_k + ...), which are the curvatures of
    the server's utility.

    Args:
        costs: c of each type, the most expensive first [K].
        shares: p, which part of all clients are of each type [K]; they add up to 1.
        gain: what a unit of effort is worth to the server, in money.
        most: the greatest effort that there can be.

    Raises:
        ValueError: for types out of order, costs or a gain that are not above zero, or shares that are not
            above zero or do not add up to 1.
    """
    c = not_negative("costs", costs)
    p = not_negative("shares", shares)
    if not (np.diff(c) < 0).all() or not (c > 0).all():
        raise ValueError(f"costs: got {c.tolist()}, expected numbers above 0 in descending order")
    if len(p) != len(c) or not (p > 0).all() or not np.isclose(p.sum(), 1):
        raise ValueError(f"shares: got {p.tolist()}, expected {len(c)} numbers above 0 that add up to 1")
    if not gain > 0:
        raise ValueError(f"gain: got {gain}, expected a number above 0")
    cheaper = p.sum() - np.cumsum(p)
    virtual_costs = c + cheaper / p * (c - np.append(c[1:], 0))
    virtual_costs[-1] = c[-1]
    # the best of all that rise and keep to a bound is the best that rises, cut off at the bound
    q = np.minimum(isotonic_regression(gain / virtual_costs, weights=p * virtual_costs).x, most)
    rewards = np.cumsum(c * np.diff(q**2, prepend=0) / 2)
    return Menu(q, rewards, rewards - c * q**2 / 2, float(p @ (gain * q - rewards)))
