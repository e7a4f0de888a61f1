"""Two Stackelberg games: the server moves first, by a price or a prize; then each client chooses how much
it contributes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import brentq

from fedray.incentives.incentive import Incentive, Offers, Outcome


class StackelbergGame(Incentive):
    """Each client is paid the price of its effort, or its share of the prize."""

    def decide(self, offers: Offers) -> Outcome:
        reached = np.flatnonzero(np.isfinite(offers.bids))
        costs = offers.bids[reached]
        if self.section.game == "price":
            if not len(reached):
                return Outcome(reached, np.empty(0), np.empty(0))
            game = price_game(costs, self.section.benefit, most=1.0)
            return Outcome(reached, game.price * game.contributions, game.contributions)
        if len(reached) < 2:  # nobody to share the prize with
            return Outcome(reached[:0], np.empty(0), np.empty(0))
        efforts = prize_game(costs, self.section.prize, most=1.0)
        active = efforts > 0
        shares = efforts[active] / efforts[active].sum()
        return Outcome(reached[active], self.section.prize * shares, efforts[active])

    def winners_costs(self, outcome: Outcome, costs: np.ndarray) -> np.ndarray:
        assert outcome.efforts is not None
        exponent = 2 if self.section.game == "price" else 1
        own: np.ndarray = costs[outcome.winners] * outcome.efforts**exponent
        return own


@dataclass(frozen=True)
class PriceEquilibrium:
    """Where neither the server nor a client gains by another choice.

    Attributes:
        price: of a unit of contribution, in money.
        contributions: of each client [n].
        server_utility: benefit x ln(1 + sum of the contributions) - price x that sum, in money.
    """

    price: float
    contributions: np.ndarray
    server_utility: float


def price_game(costs: Sequence[float] | np.ndarray, benefit: float, most: float = np.inf) -> PriceEquilibrium:
    """The server names a price r. A client with the utility r x - c x^2 contributes x = r / 2c, or the most
    that it can. The server, with the utility benefit x ln(1 + X) - r X of the sum X, names
    r = (sqrt(1 + 2 A benefit) - 1) / 2A, where A is the sum of 1 / 2c. Where clients can contribute no more
    than a bound, X = B + A r with A of those below it and B of the others: then r is the best one of those
    between each two prices at which a client reaches its bound.

    Args:
        costs: c of each client, above zero [n].
        benefit: the factor of the server's logarithmic benefit, in money.
        most: that a client can contribute.

    Raises:
        ValueError: for a cost or a benefit that is not above zero.
    """
    c = _positive("costs", costs)
    _positive("benefit", [benefit])

    def at(price: float) -> PriceEquilibrium:
        x = np.minimum(price / (2 * c), most)
        return PriceEquilibrium(float(price), x, float(benefit * np.log1p(x.sum()) - price * x.sum()))

    bounds = np.append(0.0, np.sort(2 * c * most))  # prices at which one more client reaches its bound
    candidates = []
    for n, (low, high) in enumerate(pairwise(bounds[: np.isfinite(bounds[:-1]).sum() + 1])):
        slope = (1 / (2 * np.sort(c)[n:])).sum()
        fixed = n * most if n else 0.0
        # the derivative's root: 2 A^2 r^2 + A (2 + 3 B) r + B (1 + B) - A benefit = 0
        half = slope * (2 + 3 * fixed) / 2
        rest = fixed * (1 + fixed) - slope * benefit
        root = (np.sqrt(half**2 - 2 * slope**2 * rest) - half) / (2 * slope**2)
        candidates.append(at(float(np.clip(root, low, high))))
    return max(candidates, key=lambda each: each.server_utility)


def prize_game(costs: Sequence[float] | np.ndarray, prize: float, most: float = np.inf) -> np.ndarray:
    """The server offers a prize R, which clients share in proportion to what they contribute. A client has
    the utility R x_i / X - c_i x_i. At the equilibrium the n cheapest contribute, those with
    c_i < C / (n - 1), where C is the sum of their costs: x_i = (n - 1) R / C (1 - (n - 1) c_i / C); the
    others contribute nothing. Gives the contributions [clients].

    Where clients can contribute no more than a bound m, x_i = min(m, max(0, X - c_i X^2 / R)), and X is where
    these add up to X.

    Args:
        costs: c of each client, above zero; of two at least.
        prize: R, in money.
        most: m.

    Raises:
        ValueError: for a cost or a prize that is not above zero, or fewer than two clients.
    """
    c = _positive("costs", costs)
    _positive("prize", [prize])
    if len(c) < 2:
        raise ValueError(f"costs: got {c.tolist()}, expected those of two clients at least")
    order = np.argsort(c, kind="stable")
    n = 2
    while n < len(c) and c[order[n]] * n < c[order[: n + 1]].sum():
        n += 1
    active = order[:n]
    per_cost = (n - 1) / c[active].sum()
    contributions = np.zeros(len(c))
    contributions[active] = per_cost * prize * (1 - per_cost * c[active])
    return contributions if contributions.max() <= most else _bounded_contest(c, prize, most)


def _bounded_contest(c: np.ndarray, prize: float, most: float) -> np.ndarray:
    """The contributions of a shared prize where somebody's bound counts.

    Args:
        c: the cost of each client.
        prize: in money.
        most: that a client can contribute.
    """

    def contributions(total: float) -> np.ndarray:
        return np.clip(total - c * total**2 / prize, 0, most)

    # the share of the total that each wants falls as the total rises
    def excess(total: float) -> float:
        return float(contributions(total).sum() / total - 1)

    total = brentq(excess, 1e-9 * most, prize / c.min(), xtol=1e-15, rtol=1e-14)
    return contributions(total)


def _positive(name: str, numbers: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(numbers, dtype=float)
    if not (array > 0).all():
        raise ValueError(f"{name}: got {array.tolist()}, expected numbers above 0")
    return array
