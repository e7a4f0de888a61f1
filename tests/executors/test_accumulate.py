"""Gradient accumulation (`training.accumulate`): a step of several batches is the step of one large one."""

import pytest

from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from tests.executors.test_learning_rate import train
from tests.helpers import begun, garments, job_of

SGD = {"kind": "sgd", "learning_rate": 0.05, "momentum": 0.9}
TEXT = {"kind": "text", "path": "shipped:shakespeare", "length": 16, "partition": {"kind": "folder"}}
WORDS = {"kind": "transformer", "objective": "masked_language", "width": 16, "layers": 1, "heads": 2}
WAYS = {
    "parallel, clipped": {"training.clip_norm": 0.1},
    "relay": {"topology": {"kind": "relay"}},
    "epochs, whose last step has fewer": {"training.local_steps": None, "training.local_epochs": 1},
    "a head of one's own": {
        "personal": {"kind": "fedrep"},
        "tuning": {"kind": "full", "local": ["network.9.*"]},
    },
    "scaffold": {"aggregation": {"kind": "scaffold"}, "training.optimizer": SGD | {"momentum": 0.0}},
    "unequal numbers of tokens": {
        "data": TEXT,
        "model": WORDS,
        "population": {"clients": 10, "per_round": 2},
    },
    "noise drawn for pictures": {
        "model": {"kind": "diffusion", "channels": [32, 32]},
        "population": {"clients": 20, "per_round": 1},
        "training.local_steps": 1,
    },
}


def numbers(file, folder, size, accumulate, changes):
    """How far the global model is after two rounds in which a step has size times accumulate samples."""
    more = {"training.batch_size": size, "training.accumulate": accumulate, "training.local_steps": 2}
    executor = begun(garments(folder, {**more, **changes}, file))
    train(executor, (1, 2))
    start = executor.layout.view(executor.initial)
    return executor.layout.view(executor.buffer) - start


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_a_step_of_four_batches_is_the_step_of_one_four_times_as_large(changes, tmp_path):
    base = {"population": {"clients": 20, "per_round": 2}, "training.optimizer": SGD}
    large, small = (numbers(f"{size}.yaml", tmp_path, size, 24 // size, base | changes) for size in (24, 6))
    assert large.norm() > 0
    assert (small - large).abs().max() <= 1e-6


def test_a_plan_counts_the_samples_of_whole_steps(tmp_path):
    once, twice = (
        plan(job_of(garments(tmp_path, {"training.accumulate": n}))[0])["per_round"] for n in (1, 2)
    )
    assert twice["bytes_uplink"] == once["bytes_uplink"]
    assert twice["energy_j"] > once["energy_j"]


REFUSED = {
    "a split": (
        {"topology": {"kind": "split", "cut": "conv2", "tail": "loss"}},
        "got 2 in a split, expected 1, and topology.micro_batches",
    ),
    "private samples": (
        {"privacy": {"kind": "sample", "clip_norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-5}},
        "got 2 with privacy.kind sample, expected 1 and a larger batch_size: each",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_takes_gradients_in_its_own_way_refuses_to_accumulate(changes, message, tmp_path):
    with pytest.raises(ScenarioError) as refused:
        job_of(garments(tmp_path, {"training.accumulate": 2} | changes))
    assert message in str(refused.value)
