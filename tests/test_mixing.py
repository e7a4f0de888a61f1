"""How models of several nodes are mixed, against closed forms."""

import math
import pickle

import numpy as np
import pytest
import torch

from fedray.aggregation.accumulators import ExactSum
from fedray.aggregation.by_node import ByNode
from fedray.executors.node_models import consensus, mixed
from fedray.mixing import Mixing, metropolis, push_sum
from fedray.topologies.graphs import complete, components, ring, undirected

# a star with a tail: degrees 3, 1, 1, 2, 1
TREE = {0: (1, 2, 3), 1: (0,), 2: (0,), 3: (0, 4), 4: (3,)}


def matrix(weights):
    """W [nodes, nodes] of rows."""
    return np.array([[weights[i].get(j, 0.0) for j in sorted(weights)] for i in sorted(weights)])


@pytest.mark.parametrize("graph", [ring(range(7)), complete(range(4)), TREE, {0: ()}])
def test_metropolis_weights_are_symmetric_and_rows_and_columns_add_up_to_one(graph):
    w = matrix(metropolis(graph))
    assert (w >= 0).all()
    assert np.allclose(w, w.T, atol=1e-15)
    assert np.allclose(w.sum(0), 1, atol=1e-15)


def test_metropolis_weights_follow_the_larger_degree():
    w = matrix(metropolis(TREE))
    assert w[0].tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 4, 1 / 4, 0])
    assert w[3].tolist() == pytest.approx([1 / 4, 0, 0, 1 - 1 / 4 - 1 / 3, 1 / 3])


def test_push_sum_gives_equal_parts_whose_columns_add_up_to_one():
    w = matrix(push_sum({0: (1, 2), 1: (2,), 2: (0,)}))
    assert np.allclose(w, [[1 / 3, 0, 1 / 2], [1 / 3, 1 / 2, 0], [1 / 3, 1 / 2, 1 / 2]])


def test_models_agree_at_the_rate_of_the_second_eigenvalue():
    n = 8
    second = (1 + 2 * math.cos(2 * math.pi / n)) / 3  # of a ring of 8
    w = metropolis(ring(range(n)))
    assert np.sort(np.linalg.eigvalsh(matrix(w)))[-2] == pytest.approx(second)
    models = [np.array([math.cos(2 * math.pi * i / n), 3.0], np.float32) for i in range(n)]
    mass = np.ones(n)
    _, first = consensus(models, mass)
    assert first == pytest.approx(math.sqrt(1 / 2))  # of a cosine
    for t in range(1, 6):
        models, mass = mixed(models, mass, w)
        mean, distance = consensus(models, mass)
        assert distance == pytest.approx(second**t * first, rel=1e-5)
        assert mean == pytest.approx([0.0, 3.0], abs=1e-6)


def test_push_sum_finds_the_mean_over_links_that_go_one_way():
    w = push_sum({0: (1, 2), 1: (2,), 2: (0,)})
    models = [np.array([value], np.float32) for value in (1.0, 2.0, 6.0)]
    mass = np.ones(3)
    biased = [float(model[0]) for model in models]
    for _ in range(60):
        models, mass = mixed(models, mass, w)
        biased = (matrix(w) @ biased).tolist()
    assert np.ravel(models) == pytest.approx([3.0] * 3, abs=1e-5)
    assert max(abs(value - 3) for value in biased) > 0.5  # without the division it would be another one
    assert mass.sum() == pytest.approx(3)


def test_a_lost_hop_leaves_rows_and_columns_at_one():
    graph = ring(range(5))
    whole = Mixing({}, metropolis(graph), (1,) * 5, over_sidelinks=True)
    hops = {(i, j) for i in graph for j in graph[i]} - {(1, 2)}
    w = matrix(whole.arriving(hops).weights)
    assert w[1, 2] == w[2, 1] == 0
    assert w[1, 1] == pytest.approx(2 / 3)
    assert np.allclose(w.sum(0), 1)
    assert np.allclose(w.sum(1), 1)


def test_what_a_lost_hop_of_push_sum_carried_stays_with_its_sender():
    whole = Mixing({}, push_sum(ring(range(4), directed=True)), (1,) * 4, True, over_sidelinks=True)
    w = matrix(whole.arriving({(0, 1), (2, 3), (3, 0)}).weights)
    assert np.allclose(w.sum(0), 1)
    assert w[1].tolist() == [1 / 2, 1, 0, 0]


def test_a_graph_falls_into_the_parts_that_reach_each_other():
    assert components(ring(range(4))) == [[0, 1, 2, 3]]
    assert components({0: (1,), 1: (0,), 2: (3,), 3: (2,), 4: ()}) == [[0, 1], [2, 3], [4]]
    assert components({0: (1,), 1: (0, 2), 2: ()}) == [[0, 1], [2]]  # nobody comes back from 2
    assert undirected({0: (1,), 1: (0, 2), 2: ()}) == {0: (1,), 1: (0,), 2: ()}


def test_hosts_that_share_nodes_accumulate_what_one_host_would():
    node_of = {0: 0, 1: 1, 2: 0, 3: 2}
    updates = {client: torch.full((3,), 0.1 * (client + 1)) for client in node_of}

    def accumulated(clients):
        sums = ByNode(3, 10, ExactSum, node_of)
        for client in clients:
            sums.add(updates[client], client + 1, client)
        return pickle.loads(pickle.dumps(sums))

    whole = accumulated(node_of)
    halves = accumulated([2, 3])
    halves.merge(accumulated([0, 1]))
    assert halves.weight == whole.weight == 10
    everything = slice(0, 3)
    for node in range(3):
        assert torch.equal(halves.result(1, everything)[node], whole.result(1, everything)[node])
    assert whole.result(1, everything)[0][0].tolist() == pytest.approx([(0.1 + 3 * 0.3) / 4] * 3)


def test_a_hop_is_lost_in_its_own_mixing_alone():
    w = metropolis(ring(range(4)))
    hops = {(i, j) for i in range(4) for j in ring(range(4))[i]}
    twice = Mixing({}, w, (1,) * 4, over_sidelinks=True, more=(w,)).arriving(hops, hops - {(0, 1)})
    assert twice.weights == w
    second = matrix(twice.more[0])
    assert second[0, 1] == second[1, 0] == 0
    assert np.allclose(second.sum(0), 1)
    assert np.allclose(second.sum(1), 1)


def test_a_weighted_mean_stays_through_every_mixing_and_each_model_is_one():
    rng = np.random.default_rng(0)
    mass = np.array([5.0, 0.0, 3.0, 1.0])  # who has nothing weighs nothing
    models = [rng.normal(size=3).astype(np.float32) for _ in mass]
    mean, _ = consensus(models, mass)
    before = np.array(models)
    for _ in range(3):
        models, mass = mixed(models, mass, metropolis(ring(range(4))))
        assert consensus(models, mass)[0] == pytest.approx(mean, abs=1e-6)
        assert mass.sum() == pytest.approx(9.0)
        assert (np.array(models) <= before[[0, 2, 3]].max(0) + 1e-6).all()
        assert (np.array(models) >= before[[0, 2, 3]].min(0) - 1e-6).all()
