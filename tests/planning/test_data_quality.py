"""Weights of clients by the quality of their data: formula, who knows what, and the same bits anywhere."""

import numpy as np
import pytest

from fedray.planning.data_quality import errors_of_rounds, quality_weight, quality_weights, relative_errors
from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from tests.helpers import broken_off, garments, job_of, rows, run

QUALITY = {
    "aggregation": {"kind": "fedavg", "weighting": "quality"},
    "population": {"clients": 5, "per_round": 3},
    "training.rounds": 3,
    "evaluation": {"update_cosines_every": 3},
}


def test_a_weight_is_samples_times_likeness_of_labels_times_how_well_they_are_learnt():
    assert quality_weight(50, 0.0, 1.0) == 50_000
    assert quality_weight(50, 0.5, 1.0) == 37_500
    assert quality_weight(50, 0.5, 2.0) == 18_750  # twice the mean error
    assert quality_weight(50, 0.5, 0.25) == 37_500  # better than the mean is no more than good
    assert quality_weight(50, 2.0, 1.0) == 0
    # two labels, evenly over both clients: each alone with one has an EMD of |1 - .5| + |0 - .5| = 1
    alone = np.array([[10, 0], [0, 10]])
    assert quality_weights([0, 1], {0: 10, 1: 10}, alone, {1: 4.0}) == {0: 5_000, 1: 1_250}


def test_an_error_is_a_multiple_of_the_mean_of_its_own_round_and_the_last_one_counts():
    assert relative_errors({3: 1.0, 4: 2.0, 7: 3.0}) == {3: 0.5, 4: 1.0, 7: 1.5}
    assert relative_errors({3: 0.0}) == {3: 1.0}
    assert relative_errors({}) == {}
    lines = [
        {"round": 1, "client": 0, "loss": 4.0},
        {"round": 1, "client": 1, "loss": 12.0},
        {"round": 2, "client": 1, "loss": 1.0},
        {"round": 2, "client": 2, "loss": None},  # it failed
    ]
    assert errors_of_rounds(lines) == {0: 0.5, 1: 1.0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("quality") / "run"
    file = garments(out.parent, QUALITY)
    return file, out, run(file, out)


def test_a_resumed_run_weighs_as_the_whole_one(whole, tmp_path):
    out = broken_off(whole[1], tmp_path / "run", 3)
    assert run(None, out, resume=True)["weights_sha256"] == whole[2]["weights_sha256"]
    by_samples = run(
        garments(tmp_path, QUALITY | {"aggregation": {"kind": "fedavg"}}), tmp_path / "by samples"
    )
    assert by_samples["weights_sha256"] != whole[2]["weights_sha256"]


def test_one_number_goes_up_beside_an_update_and_is_counted(whole, tmp_path):
    planned = plan(job_of(whole[0])[0])
    assert planned["payload_bytes_uplink"] == planned["payload_bytes"] + 4
    assert whole[2]["final"]["bytes_uplink"] == planned["total"]["bytes_uplink"]
    sent = {e["bytes"] for e in rows(whole[1] / "timeline.jsonl") if e["id"].startswith("up-")}
    assert sent == {planned["payload_bytes_uplink"]}


REFUSED = {
    "relay": ({"topology": {"kind": "relay"}}, "quality in a relay, where clients do not each send"),
    "split": (
        {"topology": {"kind": "split", "cut": "conv2"}},
        "quality in a split, where clients do not each send",
    ),
    "secure aggregation": ({"secure_aggregation": {}}, "quality with secure_aggregation"),
    "ledger": ({"ledger": {}}, "quality with ledger"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_weighed_by_quality_is_refused(what, tmp_path):
    changes, got = REFUSED[what]
    with pytest.raises(ScenarioError) as refused:
        job_of(garments(tmp_path, QUALITY | changes))
    assert any("aggregation.weighting: got " + got in line for line in refused.value.problems)
