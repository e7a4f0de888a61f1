"""VCG over clients and cuts, and over orders of a relay."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.incentives.vcg import relay_auction, split_auction

VALUES = [9, 10, 11]
COSTS = [[1, 2, 4], [2, 3, 5], [1.5, 2, 5], [3, 4, 4.5]]
JOULES = [[0, 2, 9, 10], [1, 0, 6, 4], [15, 7, 0, 8], [6, 3, 12, 0]]


def test_the_cut_and_the_clients_of_the_worked_example():
    outcome = split_auction(VALUES, COSTS, 2)
    assert outcome.cut == 1
    assert outcome.winners == [0, 2]
    assert outcome.payments == pytest.approx([3, 3])


def test_the_order_and_the_payments_of_the_worked_example():
    outcome = relay_auction(JOULES, [1, 1, 1, 1], 20)
    assert outcome.order == [2, 3, 1, 0]
    assert outcome.payments == pytest.approx([17, 23, 20, 19])


def route_cost(order, joules, prices):
    return sum(joules[a][b] * prices[a] for a, b in pairwise(order))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_the_order_is_the_cheapest_of_all(seed):
    rng = np.random.default_rng(seed)
    joules = rng.uniform(0, 10, (5, 5))
    prices = rng.uniform(0.5, 2, 5)
    outcome = relay_auction(joules, prices, 1000)  # worth more than any hop: all take part
    assert route_cost(outcome.order, joules, prices) == pytest.approx(
        min(route_cost(order, joules, prices) for order in permutations(range(5)))
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_the_clients_and_their_order_are_the_best_of_all_with_values_and_last_steps_of_their_own(seed):
    rng = np.random.default_rng(seed)
    joules = rng.uniform(0, 10, (4, 4))
    last = rng.uniform(0, 10, 4)
    prices = rng.uniform(0.5, 2, 4)
    values = rng.uniform(0, 15, 4)

    def welfare(order):
        cost = route_cost(order, joules, prices) + last[order[-1]] * prices[order[-1]] if order else 0
        return sum(values[i] for i in order) - cost

    outcome = relay_auction(joules, prices, values, last)
    every = [order for n in range(5) for order in permutations(range(4), n)]
    assert welfare(outcome.order) == pytest.approx(max(map(welfare, every)))
    for i in outcome.order:  # the payment: what others gain by its being there, and its own cost
        without = max(welfare(order) for order in every if i not in order)
        place = outcome.order.index(i)
        after = outcome.order[place + 1 : place + 2]
        own = prices[i] * (joules[i][after[0]] if after else last[i])
        assert outcome.payments[i] == pytest.approx(own + welfare(outcome.order) - without)


def test_more_than_eight_clients_of_a_relay_are_refused():
    with pytest.raises(ValueError, match="got 9 clients, expected 1 to 8"):
        relay_auction(np.ones((9, 9)), np.ones(9), 20)


def test_negative_costs_are_refused():
    with pytest.raises(ValueError, match="bids: got"):
        split_auction([9], [[-1]], 1)
    with pytest.raises(ValueError, match="prices: got"):
        relay_auction([[0]], [-1], 20)
