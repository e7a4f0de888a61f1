"""Caching and offloading over several edges: the optimum against every placement that there is."""

from itertools import product

import numpy as np
import pytest

from fedray.serving.catalogue import zipf
from fedray.serving.offloading import Edges, alone_placement, joint_placement

REACH_S = np.where(np.eye(3, dtype=bool), 0.0, 0.2)


def test_the_joint_optimum_is_the_best_of_all_placements():
    rng = np.random.default_rng(0)
    demand = rng.dirichlet(np.ones(8)).reshape(2, 4)
    edges = Edges(np.array([1.0, 2.0, 1.5, 0.5]) * 1e9, np.array([2e9, 1.5e9]), demand, REACH_S[:2, :2], 1.5)
    least = min(
        edges.offloaded(cached).mean_s
        for bits in product([False, True], repeat=8)
        if ((cached := np.array(bits).reshape(2, 4)) @ edges.model_bytes <= edges.capacity_bytes).all()
    )
    found = joint_placement(edges)
    assert found.mean_s == pytest.approx(least)
    assert (found.cached @ edges.model_bytes <= edges.capacity_bytes).all()


def test_edges_that_serve_each_others_users_wait_less_than_each_alone():
    """3 edges of 3 GB with 8 models of 1 GB, the same Zipf shares p at each, costs 0, .2 and 1.5 s. Each
    alone has the first three. Together they have all eight, and the ninth place has a second copy of the
    first: p_1 then waits .2 s at one edge of three, every other model at two of three."""
    shares = zipf(8, 0.8)
    edges = Edges(np.full(8, 1e9), np.full(3, 3e9), np.tile(shares / 3, (3, 1)), REACH_S, 1.5)
    alone = alone_placement(edges)
    assert alone.mean_s == pytest.approx(1.5 * shares[3:].sum())
    assert alone.served_by[0].tolist() == [0, 0, 0, -1, -1, -1, -1, -1]
    joint = joint_placement(edges)
    assert joint.mean_s == pytest.approx(0.2 * (shares[0] / 3 + 2 / 3 * shares[1:].sum()))
    assert (joint.served_by >= 0).all()
    assert edges.offloaded(np.zeros((3, 8), bool)).mean_s == pytest.approx(1.5)
