"""Reverse auctions: the reference's worked examples, and what holds of any bids."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.incentives.auction import budget_auction, reverse_auction

money = st.floats(0, 20).map(lambda x: round(x, 3))
bidders = st.lists(st.tuples(money, money.map(lambda v: v + 0.1)), min_size=1, max_size=8)


def auctions(values, most, budget):
    """Both auctions of the same values, as functions of the bids."""
    yield lambda bids: reverse_auction(values, bids, most)
    yield lambda bids: budget_auction(values, bids, budget, most)


def test_a_reverse_auction_pays_what_would_still_have_won():
    outcome = reverse_auction([10, 9, 8, 7, 6], [3, 5, 2, 6, 1], 2)
    assert outcome.winners.tolist() == [0, 2]
    assert outcome.payments == pytest.approx([5, 3])


def test_a_client_that_costs_more_than_it_is_worth_does_not_win():
    outcome = reverse_auction([10, 4], [3, 5], 2)
    assert outcome.winners.tolist() == [0]
    assert outcome.payments == pytest.approx([10])  # up to its value it would have won


def test_a_budget_auction_pays_as_in_the_worked_example():
    outcome = budget_auction([4, 3, 5, 2, 6], [2, 3, 4, 4, 9], 12)
    assert outcome.winners.tolist() == [0, 1, 2]
    assert outcome.payments == pytest.approx([4, 3, 5])


def test_a_budget_that_nobody_fits_has_no_winners():
    outcome = budget_auction([4, 3], [2, 3], 1)
    assert outcome.winners.tolist() == []
    assert outcome.payments.tolist() == []


@settings(max_examples=60, deadline=None)
@given(bidders, st.integers(1, 8), money)
def test_a_budget_is_never_exceeded(costs_and_values, most, budget):
    costs, values = (np.array(each) for each in zip(*costs_and_values, strict=True))
    outcome = budget_auction(values, costs, budget, most)
    assert outcome.payments.sum() <= budget * (1 + 1e-12)
    assert len(outcome.winners) <= most


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 8))
def test_payments_do_not_depend_on_the_order_of_clients(seed, most):
    rng = np.random.default_rng(seed)
    values = rng.uniform(1, 10, 7)
    costs = rng.uniform(0, 10, 7)
    order = rng.permutation(7)
    for auction, shuffled in zip(auctions(values, most, 8), auctions(values[order], most, 8), strict=True):
        one = auction(costs)
        other = shuffled(costs[order])
        paid = dict(zip(one.winners.tolist(), one.payments, strict=True))
        assert dict(zip(order[other.winners].tolist(), other.payments, strict=True)) == pytest.approx(paid)


def test_negative_costs_values_and_budgets_are_refused():
    with pytest.raises(ValueError, match=r"bids: got \[-1.0\], expected numbers of at least 0"):
        reverse_auction([1], [-1], 1)
    with pytest.raises(ValueError, match=r"values: got \[0.0\], expected numbers above 0"):
        budget_auction([0], [1], 1)
    with pytest.raises(ValueError, match="budget: got"):
        budget_auction([1], [1], -1)
