"""Caches from request to request: what each policy keeps, and how often that is what is asked for."""

import textwrap

import numpy as np
import pytest

import fedray
from fedray.randomness import generator
from fedray.scenario.cache import Cache as CacheSection
from fedray.serving.cache import Cache, CachePolicy, Greedy, HitsPerByte, Lfu, Lru, Optimal
from fedray.serving.catalogue import Catalogue, zipf

SMALL = Catalogue(np.array([4.0, 4.0]), np.array([1.0, 1.0, 1.0]), np.array([0, 0, 1]), np.ones(3) / 3)


def after(policy, requests, capacity_bytes):
    """The items that a cache of SMALL has after some requests, by number."""
    cache = Cache(SMALL, capacity_bytes, policy(None))
    for adapter in requests:
        cache.request(adapter)
    return np.flatnonzero(cache.cached).tolist()


def example():
    """What the example in the docstring defines."""
    lines = CachePolicy.__doc__.split("\n\n")[1]
    names = {"fedray": fedray}
    exec(textwrap.dedent(lines), names)
    return names["FirstInFirstOut"]


def test_a_request_is_a_hit_only_where_both_base_and_adapter_are_cached():
    cache = Cache(SMALL, 6.0, Lru(None))
    assert [cache.request(adapter) for adapter in (0, 0, 1, 1, 0)] == [5.0, 0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("policy", "requests", "cached"),
    [
        (Lru, (0, 2), [1, 2, 4]),  # base 0 makes room; adapter 0 is left, of no use
        (Lfu, (0, 0, 2), [0, 2]),  # requested once only: nothing makes room for it
        (Lfu, (0, 2), [1, 2, 4]),
        (HitsPerByte, (0, 2, 2, 2), [0, 2]),  # base 0 is in use, and makes no room
        (HitsPerByte, (0, 1, 1), [0, 2, 3]),
    ],
)
def test_what_makes_room_is_what_the_policy_says(policy, requests, cached):
    assert after(policy, requests, 6.0) == cached


def test_a_queue_as_in_the_docstring_drops_what_came_first():
    assert after(example(), (0, 1, 0), 6.0) == [0, 2, 3]
    assert after(example(), (0, 1, 0, 2), 6.0) == [1, 3, 4]  # although base 0 was used last


@pytest.mark.parametrize("policy", [Optimal, Greedy])
def test_a_placement_stays_whatever_is_requested(policy):
    assert after(policy, (), 6.0) == after(policy, (2, 2, 2), 6.0) == [0, 2, 3]


@pytest.mark.parametrize("policy", [Optimal, Lru, Lfu, HitsPerByte])
def test_nothing_is_kept_that_is_larger_than_the_cache(policy):
    assert after(policy, (0, 1, 2), 3.0) == []


def test_a_placement_larger_than_the_cache_is_refused():
    class All(CachePolicy):
        def placement(self, catalogue, capacity_bytes):
            return np.ones(len(catalogue.item_bytes), bool)

    with pytest.raises(ValueError, match="placement: got 11 bytes, expected at most 6"):
        Cache(SMALL, 6.0, All(None))


def test_hit_ratios_come_in_the_order_of_the_reference():
    """4 GB of its table: optimal .505, lfu .391, lru .149; of merged copies .215, .202, .098."""
    rng = generator(0, 0, 0, "catalogue")
    sizes = rng.choice([9.4, 18.8, 37.5, 75.0, 150.0], 60) * 1e6
    shared = Catalogue(np.array([1.72, 1.72, 5.1, 0.8]) * 1e9, sizes, rng.integers(4, size=60), zipf(60, 0.8))
    requests = rng.choice(60, 3000, p=shared.popularity)

    def ratio(catalogue, policy):
        cache = Cache(catalogue, 4e9, policy(None))
        return np.mean([cache.request(adapter) == 0 for adapter in requests])

    of_shared = [ratio(shared, policy) for policy in (Optimal, Lfu, Lru)]
    of_merged = [ratio(shared.merged(), policy) for policy in (Optimal, Lfu, Lru)]
    assert of_shared == sorted(of_shared, reverse=True)
    assert of_merged == sorted(of_merged, reverse=True)
    assert all(np.array(of_shared) > np.array(of_merged))
    assert of_shared[0] > 2 * of_merged[0]


def test_a_cache_smaller_than_every_base_is_refused_with_their_sizes():
    def refusals(base_bytes):
        options = {"capacity_bytes": 0.5e9, "policy": "optimal", "base_bytes": base_bytes}
        return [str(refused) for refused in CacheSection.model_validate(options).conflicts(None)]

    expected = "room for a base at least (bases have 0.8, 1.72 GB)"
    assert refusals([1.72e9, 0.8e9]) == [f".capacity_bytes: got 0.5 GB, expected {expected}"]
    assert refusals([1.72e9, 0.4e9]) == []
