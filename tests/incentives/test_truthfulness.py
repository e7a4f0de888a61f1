"""Thousands of random misreports: none gains where a mechanism is truthful, and nobody loses by taking
part."""

import numpy as np
import pytest

from fedray.incentives.auction import budget_auction, reverse_auction
from fedray.incentives.contract import contract_menu
from fedray.incentives.scores import audit_payments, expected_score
from fedray.incentives.stackelberg import price_game, prize_game
from fedray.incentives.vcg import relay_auction, split_auction

INSTANCES = 1000  # of each mechanism
TOLERANCE = 1e-9  # of money


def lies(rng, truth):
    """Random misreports of a cost: a little and a lot above and below it, none, and another."""
    factors = np.concatenate([rng.uniform(0, 3, 2), 1 + rng.normal(0, 0.05, 1), [0.0]])
    return [*(factor * truth for factor in factors), rng.uniform(0, 20, np.shape(truth))]


def gains_of_bidders(rng, auction, n, costs):
    """What a random bidder gains by each of some lies, and what taking part is worth to each of all.

    Args:
        rng: draws who lies, and what.
        auction: from bids to an outcome.
        n: bidders.
        costs: their true ones.
    """
    honest = auction(costs)
    liar = int(rng.integers(n))
    gains = []
    for lie in lies(rng, costs[liar]):
        bids = costs.copy()
        bids[liar] = lie
        gains.append(auction(bids).utility(liar, costs[liar]) - honest.utility(liar, costs[liar]))
    return gains, [honest.utility(i, costs[i]) for i in range(n)]


@pytest.mark.parametrize("kind", ["auction", "budget_auction"])
def test_no_bidder_gains_by_another_bid_than_its_cost(kind):
    rng = np.random.default_rng(0)
    gains, utilities = [], []
    for _ in range(INSTANCES):
        n, most = int(rng.integers(1, 9)), int(rng.integers(1, 9))
        values, costs, budget = rng.uniform(0.1, 15, n), rng.uniform(0, 12, n), rng.uniform(0, 30)
        if rng.random() < 0.3:  # ties
            values, costs = np.ceil(values), np.ceil(costs)

        def auction(bids, values=values, most=most, budget=budget):
            if kind == "auction":
                return reverse_auction(values, bids, most)
            outcome = budget_auction(values, bids, budget, most)
            assert outcome.payments.sum() <= budget * (1 + 1e-12)
            return outcome

        gained, gets = gains_of_bidders(rng, auction, n, costs)
        gains += gained
        utilities += gets
    assert len(gains) >= 5 * INSTANCES
    assert max(gains) <= TOLERANCE
    assert min(gains) < -1  # lies do change what is decided
    assert min(utilities) >= -TOLERANCE


def test_no_type_of_client_gains_by_an_item_of_the_menu_that_is_another_s():
    rng = np.random.default_rng(1)
    for _ in range(INSTANCES):
        k = int(rng.integers(1, 6))
        costs = np.sort(rng.uniform(0.2, 6, k))[::-1]
        most = rng.choice([1.0, np.inf])
        menu = contract_menu(costs, rng.dirichlet(np.ones(k)) * 0.9 + 0.1 / k, rng.uniform(0.1, 9), most)
        each = menu.rewards[None] - costs[:, None] * menu.efforts[None] ** 2 / 2  # [type, item]
        money = TOLERANCE * (1 + menu.rewards.max())
        assert (each - np.diag(each)[:, None]).max() <= money
        assert np.diag(each).min() >= -money


def test_no_client_gains_by_other_costs_of_cuts_and_none_loses():
    rng = np.random.default_rng(2)
    gains, utilities = [], []
    for _ in range(INSTANCES):
        n, cuts, most = int(rng.integers(1, 7)), int(rng.integers(1, 5)), int(rng.integers(1, 5))
        values = rng.uniform(1, 8, (n, 1))
        costs = rng.uniform(0, 8, (n, cuts))

        def utilities_of(bids, values=values, costs=costs, most=most):
            outcome = split_auction(values, bids, most)
            result = np.zeros(len(costs))
            result[outcome.winners] = outcome.payments - costs[outcome.winners, outcome.cut]
            return result

        honest = utilities_of(costs)
        liar = int(rng.integers(n))
        for lie in lies(rng, costs[liar])[::2]:
            bids = costs.copy()
            bids[liar] = lie
            gains.append(utilities_of(bids)[liar] - honest[liar])
        utilities.append(honest.min())
    assert max(gains) <= TOLERANCE
    assert min(gains) < -1
    assert min(utilities) >= -TOLERANCE


def test_no_client_of_a_relay_gains_by_other_costs_of_hops_and_none_loses():
    rng = np.random.default_rng(3)
    gains, utilities = [], []
    for _ in range(INSTANCES):
        n = int(rng.integers(1, 5))
        values = rng.uniform(0, 12, n)
        costs = rng.uniform(0, 10, (n, n))  # of each hop; on the diagonal of being the last

        def utilities_of(bids, values=values, costs=costs, n=n):
            hops = bids - np.diag(np.diag(bids))
            outcome = relay_auction(hops, np.ones(n), values, np.diag(bids))
            order = outcome.order
            result = outcome.payments.copy()
            for client, after in zip(order, [*order[1:], *order[-1:]], strict=True):
                result[client] -= costs[client, after]
            return result

        honest = utilities_of(costs)
        liar = int(rng.integers(n))
        for lie in lies(rng, costs[liar])[::2]:
            bids = costs.copy()
            bids[liar] = lie
            gains.append(utilities_of(bids)[liar] - honest[liar])
        utilities.append(honest.min())
    assert len(gains) >= 3 * INSTANCES
    assert max(gains) <= TOLERANCE
    assert min(gains) < -1
    assert min(utilities) >= -TOLERANCE


def test_no_report_of_labels_is_paid_more_than_the_truth_on_average():
    rng = np.random.default_rng(4)
    gains = []
    for _ in range(INSTANCES):
        labels = int(rng.integers(2, 5))
        truth, lie = rng.dirichlet(np.full(labels, rng.choice([0.2, 1.0])), 2)
        near = truth + rng.uniform(0, 0.02) * (lie - truth)
        every = np.arange(labels)[:, None]  # each label once, as the one that is looked at
        paid = [truth @ audit_payments([said] * labels, every, 1.0) for said in (truth, lie, near)]
        assert min(paid) >= 0
        assert paid[1] - 1 == pytest.approx(expected_score(lie, truth))
        gains += [paid[1] - paid[0], paid[2] - paid[0]]
    assert max(gains) <= TOLERANCE
    assert min(gains) < -0.5


def utility_in_a_game(game, costs, liar, said):
    """What a client gains by saying that its cost is another, in a game that takes costs to be known."""
    believed = costs.copy()
    believed[liar] = said
    if game == "price":
        price = price_game(believed, 10.0).price
        return price**2 / (4 * costs[liar])  # its best effort at that price, whatever was believed
    efforts = prize_game(believed, 6.0)
    return 6.0 * efforts[liar] / efforts.sum() - costs[liar] * efforts[liar]


@pytest.mark.parametrize("game", ["price", "prize"])
def test_a_game_that_takes_costs_to_be_known_rewards_some_misreports(game):
    rng = np.random.default_rng(5)
    gains = []
    for _ in range(100):
        costs = rng.uniform(0.5, 2, 3)
        honest = utility_in_a_game(game, costs, 0, costs[0])
        gains += [utility_in_a_game(game, costs, 0, f * costs[0]) - honest for f in (0.9, 1.1)]
    assert max(gains) > 1e-3
