"""The menu of contracts: the closed form of the reference, and SLSQP under all constraints."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from fedray.incentives.contract import contract_menu


def by_slsqp(costs, shares, gain, most=None):
    """Efforts, rewards and the server's utility of the best menu under every constraint, by SLSQP."""
    c, p = np.array(costs), np.array(shares)
    k = len(c)

    def utilities(x):
        return x[None, k:] - c[:, None] * x[None, :k] ** 2 / 2  # of each type with each contract

    def constraints(x):
        each = utilities(x)
        return np.concatenate([np.diag(each), (np.diag(each)[:, None] - each).ravel()])

    best = minimize(
        lambda x: -p @ (gain * x[:k] - x[k:]),
        np.concatenate([np.linspace(1, 2, k), np.linspace(3, 6, k)]),
        constraints={"type": "ineq", "fun": constraints},
        bounds=[(0, most)] * k + [(0, None)] * k,
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert best.success
    return best.x[:k], best.x[k:], -best.fun


def test_the_menu_of_the_worked_example():
    menu = contract_menu([3, 2, 1], [0.3, 0.4, 0.3], 6)
    assert menu.efforts == pytest.approx([1.125, 24 / 11, 6])
    assert menu.rewards == pytest.approx([1.8984375, 5.393143, 21.012978])
    assert menu.utilities == pytest.approx([0, 0.6328125, 3.012978], abs=1e-6)
    assert menu.server_utility == pytest.approx(9.030682)


@pytest.mark.parametrize(
    ("costs", "shares"),
    [([3, 2, 1], [0.3, 0.4, 0.3]), ([4, 3, 2.5, 1], [0.5, 0.05, 0.25, 0.2])],
    ids=["rising", "ironed"],
)
def test_the_menu_is_the_best_under_all_constraints(costs, shares):
    menu = contract_menu(costs, shares, 6)
    efforts, rewards, server_utility = by_slsqp(costs, shares, 6)
    assert menu.efforts == pytest.approx(efforts, abs=1e-3)
    assert menu.rewards == pytest.approx(rewards, abs=1e-2)
    assert menu.server_utility == pytest.approx(server_utility, abs=1e-5)


@pytest.mark.parametrize("most", [1.0, 2.0, 4.0])
def test_the_menu_is_the_best_of_those_that_keep_to_a_bound(most):
    costs, shares = [3, 2, 1], [0.3, 0.4, 0.3]
    menu = contract_menu(costs, shares, 6, most)
    efforts, rewards, server_utility = by_slsqp(costs, shares, 6, most)
    assert menu.efforts == pytest.approx(efforts, abs=1e-3)
    assert menu.rewards == pytest.approx(rewards, abs=1e-2)
    assert menu.server_utility == pytest.approx(server_utility, abs=1e-5)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 10))
def test_no_client_gains_by_acting_as_if_it_had_another_cost(seed, factor):
    rng = np.random.default_rng(seed)
    k = rng.integers(1, 6)
    costs = np.sort(rng.uniform(0.5, 5, k))[::-1]
    menu = contract_menu(costs, rng.dirichlet(np.ones(k)) * 0.9 + 0.1 / k, rng.uniform(0.1, 9), 1.0)

    def utility(cost, acts_as):
        item = menu.best(acts_as)
        return 0.0 if item is None else menu.rewards[item] - cost * menu.efforts[item] ** 2 / 2

    for own in range(k):
        assert menu.best(costs[own]) is not None
        assert utility(costs[own], costs[own]) == pytest.approx(menu.utilities[own], abs=1e-9)
        assert utility(costs[own], costs[own]) >= -1e-9
        assert utility(costs[own], factor * costs[own]) <= utility(costs[own], costs[own]) + 1e-9


def test_a_client_that_is_more_expensive_than_all_types_takes_nothing():
    assert contract_menu([3, 2, 1], [0.3, 0.4, 0.3], 6).best(3.1) is None


def test_ironing_gives_types_whose_efforts_would_fall_one_contract():
    menu = contract_menu([4, 3, 2.5, 1], [0.5, 0.05, 0.25, 0.2], 6)
    assert menu.efforts[0] == pytest.approx(menu.efforts[1])
    assert (np.diff(menu.efforts) >= 0).all()


def test_no_type_gains_by_the_contract_of_another():
    costs = np.array([5, 3, 2, 1.5])
    menu = contract_menu(costs, [0.25] * 4, 10)
    each = menu.rewards[None] - costs[:, None] * menu.efforts[None] ** 2 / 2
    assert (each.max(axis=1) <= menu.utilities + 1e-9).all()
    assert (menu.utilities >= -1e-9).all()


@pytest.mark.parametrize(
    ("costs", "shares", "gain", "message"),
    [
        ([1, 2], [0.5, 0.5], 6, "in descending order"),
        ([2, -1], [0.5, 0.5], 6, "at least 0"),
        ([2, 1], [0.5, 0.6], 6, "add up to 1"),
        ([2, 1], [0.5, 0.5], 0, "above 0"),
    ],
)
def test_types_out_of_order_and_other_wrong_numbers_are_refused(costs, shares, gain, message):
    with pytest.raises(ValueError, match=message):
        contract_menu(costs, shares, gain)
