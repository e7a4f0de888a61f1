"""The mean cosine of a round's updates, of one sum."""

import pickle

import pytest
import torch

from fedray.aggregation.accumulators import ExactSum, Gathered
from fedray.aggregation.directions import add_direction, mean_cosine
from fedray.scenario import ScenarioError
from tests.helpers import garments, job_of, rows, run

COMPARED = {"evaluation": {"update_cosines_every": 2}, "training.rounds": 2}


def of(kind, updates, hosts=1):
    accumulators = [kind(len(updates[0]), len(updates)) for _ in range(hosts)]
    for i, update in enumerate(updates):
        add_direction(accumulators[i % hosts], torch.tensor(update), len(updates))
    return [pickle.loads(pickle.dumps(one)) for one in accumulators]  # as between hosts


@pytest.mark.parametrize("kind", [ExactSum, Gathered])
def test_it_is_the_closed_form_of_updates_whose_angles_are_known(kind):
    assert mean_cosine(of(kind, [[3.0, 0.0], [0.0, 4.0]])) == pytest.approx(0, abs=1e-9)
    assert mean_cosine(of(kind, [[3.0, 0.0], [6.0, 0.0], [0.5, 0.0]])) == pytest.approx(1)
    star = [[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]  # 120 degrees apart
    assert mean_cosine(of(kind, star)) == pytest.approx(-0.5)


def test_it_is_the_mean_of_all_pairs_however_many_hosts_add():
    updates = torch.randn(7, 50, generator=torch.Generator().manual_seed(0)).double()
    cosines = torch.nn.functional.cosine_similarity(updates[:, None], updates[None], dim=-1)
    pairs = cosines[torch.triu_indices(7, 7, 1).unbind()]
    one, two, three = (mean_cosine(of(ExactSum, updates.tolist(), hosts)) for hosts in (1, 2, 3))
    assert one == two == three == pytest.approx(float(pairs.mean()), abs=1e-7)


def test_a_zero_update_has_no_direction_and_one_alone_no_pair():
    assert mean_cosine(of(ExactSum, [[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])) == pytest.approx(0, abs=1e-9)
    assert mean_cosine(of(ExactSum, [[0.0, 0.0], [1.0, 0.0]])) is None
    assert mean_cosine([ExactSum(2, 1)]) is None


def test_a_run_measures_it_in_every_second_round_and_trains_the_same(tmp_path):
    result = run(garments(tmp_path, COMPARED), tmp_path / "run")
    first, second = rows(tmp_path / "run" / "metrics.jsonl")
    assert "update_cosine" not in first
    assert -0.25 <= second["update_cosine"] <= 1
    plain = run(garments(tmp_path, {"training.rounds": 2}, "plain.yaml"), tmp_path / "plain")
    assert plain["weights_sha256"] == result["weights_sha256"]


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"topology": {"kind": "relay"}}, "2 in a relay"),
        ({"topology": {"kind": "parallel", "reduce": "allreduce"}}, "2 with topology.reduce allreduce"),
        ({"secure_aggregation": {}}, "2 with secure aggregation"),
    ],
)
def test_updates_that_nobody_sees_are_not_compared(changes, got, tmp_path):
    with pytest.raises(ScenarioError) as refused:
        job_of(garments(tmp_path, COMPARED | changes))
    assert any(f"evaluation.update_cosines_every: got {got}" in line for line in refused.value.problems)
