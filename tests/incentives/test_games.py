"""Stackelberg games: closed forms of the reference, and that nobody gains by another choice."""

import numpy as np
import pytest

from fedray.incentives.stackelberg import price_game, prize_game


def test_the_price_and_the_contributions_of_the_worked_example():
    game = price_game([1, 2, 4], 10)
    assert game.price == pytest.approx(1.886379, abs=1e-6)
    assert game.contributions == pytest.approx([0.943189, 0.471595, 0.235797], abs=1e-6)
    assert game.server_utility == pytest.approx(6.634168, abs=1e-6)


def test_no_other_price_is_better_for_the_server():
    slope = sum(1 / (2 * c) for c in (1, 2, 4))
    prices = np.linspace(0.01, 10, 2000)
    utilities = 10 * np.log1p(prices * slope) - prices**2 * slope
    assert utilities.max() <= price_game([1, 2, 4], 10).server_utility + 1e-9


@pytest.mark.parametrize("benefit", [0.5, 2, 5, 10, 40])
def test_no_other_price_is_better_where_contributions_have_a_bound(benefit):
    costs = np.array([1, 2, 4])
    game = price_game(costs, benefit, most=0.5)
    prices = np.linspace(0.001, 6, 3000)
    totals = np.minimum(prices[:, None] / (2 * costs), 0.5).sum(axis=1)
    utilities = benefit * np.log1p(totals) - prices * totals
    assert utilities.max() <= game.server_utility + 1e-9
    assert game.server_utility == pytest.approx(utilities.max(), abs=1e-3)
    assert game.contributions == pytest.approx(np.minimum(game.price / (2 * costs), 0.5))


@pytest.mark.parametrize("most", [0.2, 0.6, 1.0, 1.2])
def test_no_client_gains_by_another_contribution_where_they_have_a_bound(most):
    costs = [1, 1.2, 1.5]
    x = prize_game(costs, 6, most)
    assert x.max() == pytest.approx(most)
    for i, cost in enumerate(costs):
        others = x.sum() - x[i]
        tried = np.linspace(0, most, 501)
        best = (6 * tried / (tried + others) - cost * tried).max()
        assert best <= 6 * x[i] / (x[i] + others) - cost * x[i] + 1e-9


def test_a_bound_that_nobody_reaches_changes_nothing():
    assert price_game([1, 2, 4], 10, most=5).price == pytest.approx(price_game([1, 2, 4], 10).price)
    assert prize_game([1, 1.2, 1.5], 6, most=5) == pytest.approx(prize_game([1, 1.2, 1.5], 6))


def test_the_contributions_for_a_shared_prize_of_the_worked_example():
    assert prize_game([1, 1.2, 1.5], 6) == pytest.approx([1.490139, 1.139518, 0.613586], abs=1e-6)


@pytest.mark.parametrize("costs", [[1, 1.2, 1.5], [5, 1, 1.1], [1, 1]])
def test_no_client_gains_by_another_contribution_for_a_shared_prize(costs):
    x = prize_game(costs, 6)
    for i, cost in enumerate(costs):
        others = x.sum() - x[i]
        tried = np.linspace(0, 5, 501)
        best = (6 * tried / (tried + others) - cost * tried).max()
        assert best <= 6 * x[i] / (x[i] + others) - cost * x[i] + 1e-9


def test_a_client_that_is_too_expensive_contributes_nothing_for_a_prize():
    x = prize_game([5, 1, 1.1], 6)
    assert x[0] == 0
    assert x[1:] == pytest.approx(prize_game([1, 1.1], 6))


@pytest.mark.parametrize("game", [price_game, prize_game])
def test_costs_that_are_not_above_zero_are_refused(game):
    with pytest.raises(ValueError, match="expected numbers above 0"):
        game([1, -2], 6)
