"""Means over seeds, against scipy.stats and closed forms."""

from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.runs.replicates import common_name, estimate, replicates, summary


@settings(max_examples=30)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_the_interval_is_scipys(values):
    import numpy as np
    from scipy import stats

    one = estimate(values)
    assert one.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert one.std == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if one.std > 1e-6:
        expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert one.interval == pytest.approx(tuple(expected), rel=1e-7, abs=1e-7)


def test_the_interval_is_that_of_students_closed_forms():
    """Student's t has closed quantiles for one and two degrees of freedom: tan(pi (p - 1/2)), and
    (2p - 1) / sqrt(2 p (1 - p))."""
    two = estimate([1.0, 3.0])
    assert (two.n, two.mean, two.std) == (2, 2.0, pytest.approx(sqrt(2)))
    assert two.half_width == pytest.approx(12.706204736174698)  # tan(0.475 pi) * sqrt(2) / sqrt(2)
    three = estimate([1.0, 2.0, 3.0, None])
    assert (three.n, three.std) == (3, 1.0)
    assert three.half_width == pytest.approx(0.95 / sqrt(2 * 0.975 * 0.025) / sqrt(3))


def test_one_run_has_a_mean_and_nothing_more_and_none_has_nothing():
    assert estimate([None, 0.5]).as_json() == {"n": 1, "mean": 0.5, "std": None, "ci95": None}
    assert estimate([None]) is None
    assert estimate([]) is None


def test_runs_that_differ_in_nothing_but_their_seed_are_of_one_variant():
    def run(seed, rank=4, **words):
        return {"seed": seed, "tuning": {"rank": rank}, "sweep": None, **words}

    runs = {"a_seed-0": run(0, name="x"), "a_seed-1": run(1, name="y"), "b_seed-0": run(0, 8)}
    assert replicates(runs) == {"a": ["a_seed-0", "a_seed-1"], "b_seed-0": ["b_seed-0"]}
    same_seed = {"one": run(0), "two": run(0), "three": run(1)}
    assert list(replicates(same_seed).values()) == [["one", "three"], ["two"]]


@pytest.mark.parametrize(
    ("runs", "name"),
    [
        (["lora_seed-0", "lora_seed-12"], "lora"),
        (["seed-0", "seed--1"], "all seeds"),
        (["runs/five", "runs/five-2"], "runs/five"),
        (["ab", "cd"], "all seeds"),
        (["seed-0"], "seed-0"),
    ],
)
def test_a_variant_is_called_by_what_its_runs_share(runs, name):
    assert common_name(runs) == name


def test_a_run_that_failed_does_not_count():
    scenarios = {f"a_seed-{seed}": {"seed": seed, "x": 1} for seed in range(3)}
    done = {"status": "done", "final": {"round": 2, "loss": 1.0, "eval_loss": None}}
    results = {
        "a_seed-0": done,
        "a_seed-1": {"status": "failed", "final": {"loss": 9.0}},
        "a_seed-2": done | {"final": {"round": 2, "loss": 3.0}},
    }
    (variant,) = summary(scenarios, results).values()
    assert (variant["runs"], variant["seeds"], variant["done"]) == (list(scenarios), [0, 1, 2], 2)
    assert list(variant["metrics"]) == ["loss"]
    assert variant["metrics"]["loss"]["mean"] == 2.0
    assert variant["metrics"]["loss"]["n"] == 2
