"""Providers' caches in an edge: what fetching takes, and whose requests change what is cached."""

import numpy as np
import pytest

import fedray
from fedray.scenario.environment import Edge as Section
from fedray.scenario.providers import Popularity
from fedray.serving import requests
from fedray.serving.edge import Edge
from fedray.serving.environment import Place

CACHE = {
    "capacity_bytes": 2e9,
    "policy": "lru",
    "base_bytes": [1e9],
    "adapter_bytes": [1e8],
    "fetch_bps": 8e9,
}


def edge(copies=4, models=12, **cache):
    """An edge of two providers, and its first observations."""
    section = Section.model_validate(
        {
            "kind": "edge",
            "models": models,
            "providers": {"kind": "drawn", "count": 2},
            "popularity": {"kind": "zipf", "client_alpha": None},
            "cache": CACHE | cache,
        }
    )
    made = Edge(section, Place(seed=0, client=1), copies)
    made.reset(np.random.default_rng(0))
    return made


def test_a_fetch_takes_the_missing_bytes_over_the_rate():
    made = edge()
    made.caches.cached[0, 0] = False
    made.caches.cached[0, 1] = [True] + [False] * 12
    made.caches.cached[1] = True
    assert made.caches.fetch_s(np.zeros(4, int))[:2] == pytest.approx(np.array([[1.1, 0.1], [0, 0]]))


def test_latency_and_energy_have_the_fetch_in_them():
    made = edge(fetch_w=50.0)
    made.caches.cached[0] = False
    made.caches.cached[1] = True
    made.request.models[:2] = 0
    measures = made.step(np.zeros(4, int)).measures
    assert measures["hit"][:2].tolist() == [False, True]
    assert measures["latency_s"][0] - measures["latency_s"][1] == pytest.approx(1.1)
    assert measures["energy_j"][0] - measures["energy_j"][1] == pytest.approx(1.1 * 50.0)


def test_what_is_missed_is_kept_by_the_provider_that_served_it_alone():
    made = edge(other_requests=0)
    made.caches.cached[:] = False
    models = made.request.models.copy()
    made.step(np.zeros(4, int))
    assert (made.caches.fetch_s(models)[:, 0] == 0).all()
    assert not made.caches.cached[:, 1].any()


def test_a_placement_is_the_same_after_any_requests():
    made = edge(policy="optimal")
    before = made.caches.cached.copy()
    for _ in range(5):
        made.step(np.zeros(4, int))
    assert (made.caches.cached == before).all()
    assert before[:, :, :11].all()  # the base and the ten most popular of twelve
    assert not before[:, :, 11:].any()


def test_all_policies_get_the_same_requests():
    asked = []
    for cache in ({"policy": "optimal"}, {"policy": "lru"}, {"policy": "lru", "merged": True}):
        made = edge(**cache)
        asked.append([made.request.models.tolist()])
        for _ in range(5):
            made.step(np.zeros(4, int))
            asked[-1].append(made.request.models.tolist())
    assert asked[0] == asked[1] == asked[2]


def test_a_client_asks_for_its_own_model_as_often_as_own_says():
    popularity = Popularity(kind="zipf", alpha=0.0, client_alpha=None, own=0.6)
    common = requests.shares(popularity, 4, np.random.default_rng(0))
    shares = requests.with_own(popularity, common, client=5)
    assert shares == pytest.approx(np.array([0.1, 0.7, 0.1, 0.1]))
    of_all = [requests.with_own(popularity, common, client) for client in range(4)]
    assert requests.all_shares(popularity, 4) == pytest.approx(np.mean(of_all, axis=0))


def test_a_scenario_whose_cache_has_no_room_for_a_base_is_refused():
    with pytest.raises(fedray.ScenarioError, match=r"data\.environment\.cache\.capacity_bytes: got 0\.5 GB"):
        fedray.check(fedray.load("edge-cache", {"data.environment.cache.capacity_bytes": 0.5e9}))
