"""Secure aggregation in whole rounds: the same model, and what becomes of clients that vanish."""

import pytest
import torch
from safetensors.torch import load_file

from fedray.checks import check
from fedray.scenario import ScenarioError
from fedray.terminal import Quiet
from fedray.verification import verify
from tests.helpers import garments, rows, run

EIGHT = {
    "population": {"clients": 8, "per_round": 8},
    "data.partition": {"kind": "iid"},
    "training.rounds": 1,
}
SEED = 2  # with which two of the eight drop out in round 1


def dropping(share, seed):
    return {
        "network.device": {"kind": "flops", "peak_flops": 1e10, "active_w": 5.0, "dropout": share},
        "seed": seed,
    }


class Notes(Quiet):
    """What a person is told of the rounds."""

    def __init__(self):
        super().__init__()
        self.said = []

    def on_note(self, text):
        if text.startswith("round"):
            self.said.append(text)


def dropped(out):
    return sum(row["outcome"] == "dropped" for row in rows(out / "timeline.jsonl"))


@pytest.mark.parametrize("neighbours", [None, 6])
def test_the_model_is_the_same_to_the_bit_with_two_of_eight_clients_dropped(tmp_path, neighbours):
    without = run(garments(tmp_path, EIGHT | dropping(0.25, SEED)), tmp_path / "without")
    section = {"threshold": 5} | ({"neighbours": neighbours} if neighbours else {})
    secure = EIGHT | dropping(0.25, SEED) | {"secure_aggregation": section}
    with_ = run(garments(tmp_path, secure), tmp_path / "with")
    assert dropped(tmp_path / "with") == 2
    assert with_["weights_sha256"] == without["weights_sha256"]


def test_32_bits_give_the_clipped_sum_to_a_grid_that_the_clip_bounds(tmp_path):
    clip = {"kind": "fedavg", "weighting": "uniform", "transforms": [{"kind": "clip", "norm": 0.1}]}
    one = EIGHT | {"aggregation": clip}
    run(garments(tmp_path, one), tmp_path / "plain")
    run(garments(tmp_path, one | {"secure_aggregation": {"bits": 32}}), tmp_path / "masked")
    plain, masked = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("plain", "masked")
    )
    assert any(not torch.equal(plain[name], masked[name]) for name in plain)
    # each number is rounded to steps of the clip's norm over 2^15, and so is their mean, by half a step
    most = 0.1 / 2**16 + 1e-8
    assert max(float((plain[name] - masked[name]).abs().max()) for name in plain) <= most


def test_attackers_noise_a_ledger_and_masks_go_together_and_change_no_bit_but_their_own(tmp_path):
    attacked = EIGHT | {
        "aggregation": {"kind": "fedavg", "weighting": "uniform"},
        "adversary": {"clients": [1], "attack": {"kind": "sign_flip", "scale": 5.0}},
        "privacy": {"kind": "central", "clip_norm": 0.1, "noise_multiplier": 0.5, "delta": 1e-2},
    }
    alone = run(garments(tmp_path, attacked), tmp_path / "alone")
    all_on = attacked | {"ledger": {}, "secure_aggregation": {"threshold": 5}}
    together = run(garments(tmp_path, all_on), tmp_path / "together")
    assert together["weights_sha256"] == alone["weights_sha256"]
    assert not verify(tmp_path / "together")["problems"]


def test_below_the_threshold_the_round_fails_and_the_model_stays(tmp_path):
    untouched = run(garments(tmp_path, EIGHT | {"training.optimizer.learning_rate": 1e-30}), tmp_path / "no")
    secure = EIGHT | dropping(0.25, 0) | {"secure_aggregation": {"threshold": 8}}  # one drops out
    failed = run(garments(tmp_path, secure), tmp_path / "failed", callback=(notes := Notes()))
    assert notes.said == [
        "round 1: fewer clients came through than secure_aggregation.threshold: nothing is unmasked, and the"
        " model stays as it was"
    ]
    assert failed["weights_sha256"] == untouched["weights_sha256"]
    timeline = rows(tmp_path / "failed" / "timeline.jsonl")
    assert {row["id"] for row in timeline if row["outcome"] == "failed"} == {"collect", "aggregate"}
    opened = [row for row in timeline if row["id"].startswith(("survivors", "unmask"))]
    assert {row["outcome"] for row in opened} == {"skipped"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secure_aggregation": {"threshold": 4}}, "more than half and at most all of the 8"),
        ({"secure_aggregation": {"threshold": 9}}, "5 to 8"),
        ({"secure_aggregation": {"neighbours": 3}}, "an even number"),
        ({"secure_aggregation": {"bits": 32}}, "a clip in aggregation.transforms"),
        ({"secure_aggregation": {}, "aggregation": {"kind": "median"}}, "compares single updates"),
        ({"secure_aggregation": {}, "topology": {"kind": "relay"}}, "clients see each other's updates"),
    ],
)
def test_what_cannot_be_secure_is_refused_with_the_reason(tmp_path, changes, message):
    with pytest.raises(ScenarioError, match=message):
        check(garments(tmp_path, EIGHT | changes))
