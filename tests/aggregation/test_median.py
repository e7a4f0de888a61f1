import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.aggregation.accumulators import Gathered
from fedray.aggregation.rules import rule
from fedray.scenario.aggregation import Median
from fedray.transport.buffer import Layout
from tests.helpers import garments, run

# Seven updates of two numbers, the last two sent by attackers (shared/reference/privacy.md, Known answers).
UPDATES = [(1, 1), (1, 2), (2, 1), (2, 2), (1.5, 1.5), (10, -10), (12, -9)]


def combined(updates):
    made = rule(Median(kind="median"), Layout(("w",), ((len(updates[0]),),), "fp32", len(updates[0])))
    accumulator = made.empty(len(updates))
    assert isinstance(accumulator, Gathered)
    for client, update in enumerate(updates):
        accumulator.add(torch.tensor(update, dtype=torch.float32), 1, client)
    return made.combine(accumulator.result(1, slice(None)))[0]


def test_two_attackers_of_seven_do_not_move_the_median():
    assert combined(UPDATES).tolist() == [2, 1]


@given(n=st.integers(1, 9), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_it_is_numpys_median_of_odd_and_even_numbers_of_clients(n, seed):
    updates = np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)
    expected = np.median(updates.astype(np.float64), axis=0)
    assert combined(updates.tolist()).numpy() == pytest.approx(expected, abs=0)


def test_a_median_over_one_actor_or_several_rounds_has_the_same_bits_and_another_result_than_the_mean(
    cluster, weights_alone, tmp_path
):
    median = {"aggregation": {"kind": "median"}}
    ray = {"runtime": {"executor": "ray", "actors": 2}}
    shas = [
        run(garments(tmp_path, changes, f"{i}.yaml"), tmp_path / str(i))["weights_sha256"]
        for i, changes in enumerate([median, median | ray, {}])
    ]
    assert shas[0] == shas[1] != shas[2]


@pytest.mark.parametrize(
    "topology",
    [
        {"kind": "relay", "chains": 3},
        {"kind": "split", "cut": "conv1", "tail": "loss", "variant": "splitfed_v1"},
    ],
    ids=["relays side by side", "a split"],
)
def test_a_median_combines_what_other_topologies_send_too(topology, tmp_path):
    changes = {"topology": topology}
    median = garments(tmp_path, changes | {"aggregation": {"kind": "median"}}, "median.yaml")
    mean = garments(tmp_path, changes, "mean.yaml")
    results = [run(file, tmp_path / file.stem)["weights_sha256"] for file in (median, mean)]
    assert results[0] != results[1]
