"""Two Stackelberg games: the server moves first, by a price or a prize; then each client chooses how much
it contributes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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


def price_game(costs: Sequence[float], benefit: float) -> PriceEquilibrium:
    """The server names a price r. A client with the utility r x - c x^2 contributes x = r / 2c. The server,
    with the utility benefit x ln(1 + X) - r X of the sum X, names r = (sqrt(1 + 2 A benefit) - 1) / 2A, where
    A is the sum of 1 / 2c.

    Args:
        costs: c of each client, above zero [n].
        benefit: the factor of the server's logarithmic benefit, in money.

    Raises:
        ValueError: for a cost or a benefit that is not above zero.
    """
    c = _positive("costs", costs)
    _positive("benefit", [benefit])
    slope = (1 / (2 * c)).sum()
    price = (np.sqrt(1 + 2 * slope * benefit) - 1) / (2 * slope)
    contributions = price / (2 * c)
    total = contributions.sum()
    return PriceEquilibrium(float(price), contributions, float(benefit * np.log1p(total) - price * total))


def prize_game(costs: Sequence[float], prize: float) -> np.ndarray:
    """The server offers a prize R, which clients share in proportion to what they contribute. A client has
    the utility R x_i / X - c_i x_i. At the equilibrium the n cheapest contribute, those with
    c_i < C / (n - 1), where C is the sum of their costs: x_i = (n - 1) R / C (1 - (n - 1) c_i / C); the
    others contribute nothing. Gives the contributions [clients].

    Args:
        costs: c of each client, above zero; of two at least.
        prize: R, in money.

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
    return contributions


def _positive(name: str, numbers: Sequence[float]) -> np.ndarray:
    array = np.asarray(numbers, dtype=float)
    if not (array > 0).all():
        raise ValueError(f"{name}: got {array.tolist()}, expected numbers above 0")
    return array
