"""What a cache should keep: the optimum against every selection that there is, and bounds on the others."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.randomness import generator
from fedray.serving.catalogue import Catalogue, zipf
from fedray.serving.placement import greedy_placement, optimal_placement

GB = 1e9


@st.composite
def catalogues(draw):
    """Up to two bases and five adapters, of whole megabytes."""
    bases = draw(st.lists(st.integers(1, 9), min_size=1, max_size=2))
    adapters = draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    base_of = draw(st.lists(st.integers(0, len(bases) - 1), min_size=len(adapters), max_size=len(adapters)))
    requests = draw(st.lists(st.integers(1, 9), min_size=len(adapters), max_size=len(adapters)))
    return Catalogue(
        np.array(bases) * 1e6, np.array(adapters) * 1e6, np.array(base_of), np.array(requests) / sum(requests)
    )


def best_of_all(catalogue, capacity_bytes):
    """The highest hit ratio of every selection of items that fits."""
    ratios = [0.0]
    for bits in product([False, True], repeat=len(catalogue.item_bytes)):
        cached = np.array(bits)
        if catalogue.item_bytes[cached].sum() <= capacity_bytes:
            ratios.append(catalogue.hit_ratio(cached))
    return max(ratios)


@settings(max_examples=30, deadline=None)
@given(catalogues(), st.integers(1, 20))
def test_the_optimum_is_the_best_of_all_selections_and_greedy_is_never_better(catalogue, megabytes):
    best = best_of_all(catalogue, megabytes * 1e6)
    cached = optimal_placement(catalogue, megabytes * 1e6)
    assert catalogue.item_bytes[cached].sum() <= megabytes * 1e6
    assert catalogue.hit_ratio(cached) == pytest.approx(best)
    greedy = greedy_placement(catalogue, megabytes * 1e6)
    assert catalogue.item_bytes[greedy].sum() <= megabytes * 1e6
    assert catalogue.hit_ratio(greedy) <= best + 1e-9
    merged = catalogue.merged()
    assert merged.hit_ratio(optimal_placement(merged, megabytes * 1e6)) <= best + 1e-9


@pytest.fixture(scope="module")
def sixty():
    """60 adapters of 9.4 to 150 MB over four bases, as in the reference; sizes and bases of our own draw."""
    rng = generator(0, 0, 0, "catalogue")
    sizes = rng.choice([9.4, 18.8, 37.5, 75.0, 150.0], 60) * 1e6
    bases = np.array([1.72, 1.72, 5.1, 0.8]) * GB
    return Catalogue(bases, sizes, rng.integers(4, size=60), zipf(60, 0.8))


@pytest.mark.parametrize("capacity_bytes", [2 * GB, 4 * GB, 8 * GB, 9.5 * GB])
def test_shared_bases_are_hit_more_often_than_merged_copies(sixty, capacity_bytes):
    merged = sixty.merged()
    shared_ratio = sixty.hit_ratio(optimal_placement(sixty, capacity_bytes))
    greedy_ratio = sixty.hit_ratio(greedy_placement(sixty, capacity_bytes))
    assert shared_ratio >= greedy_ratio > merged.hit_ratio(optimal_placement(merged, capacity_bytes))


def test_shares_of_requests_fall_with_the_rank_as_zipf_says():
    assert zipf(3, 1.0) == pytest.approx(np.array([6, 3, 2]) / 11)
    assert zipf(4, 0.0) == pytest.approx(np.full(4, 0.25))


@pytest.mark.parametrize(
    ("bases", "base_of", "message"),
    [([-1.0], [0], "below 0 bytes"), ([1.0], [1], r"base_of: got \[1\], expected 0 to 0")],
)
def test_a_catalogue_refuses_what_cannot_be(bases, base_of, message):
    with pytest.raises(ValueError, match=message):
        Catalogue(np.array(bases), np.ones(1), np.array(base_of), np.ones(1))
