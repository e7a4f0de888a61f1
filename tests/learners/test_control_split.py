"""A ControlNet in a split: the client embeds its condition, and where that is frozen no gradient comes down
to it."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedray.checks import check
from fedray.learners.families.noise import DiscreteNoise
from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from tests.helpers import rows, run, tiny

SGD = {
    "rounds": 1,
    "local_steps": 2,
    "batch_size": 2,
    "clip_norm": None,
    "optimizer": {"kind": "sgd", "learning_rate": 0.5},
}
ONE = {
    "training": SGD,
    "population": {"clients": 1, "per_round": 1},
    "data.partition": {"kind": "iid"},
    "evaluation": {"prompts": []},
    "runtime": {"executor": "serial"},
    "model.control": {"condition": "edges"},
    "tuning": {"kind": "full", "parts": ["controlnet"]},
    "topology": {"kind": "parallel"},
}
SPLIT = {"kind": "split", "cut": "condition", "tail": "loss", "may_send": ["text"]}
SERVERS = {
    "kind": "partial",
    "patterns": [
        "controlnet.down_blocks.*",
        "controlnet.mid_block.*",
        "controlnet.controlnet_down_blocks.*",
        "controlnet.controlnet_mid_block.*",
    ],
}


def trained(folder, changes):
    run(tiny(folder, ONE | changes, "scenario.yaml"), folder / "run")
    return load_file(folder / "run" / "model" / "controlnet" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An unsplit run, and its ControlNet."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "run", trained(folder, {})


def test_in_a_split_a_controlnet_trains_as_unsplit(whole, tmp_path):
    split = trained(tmp_path, {"topology": SPLIT})
    assert whole[1]["controlnet_mid_block.weight"].any()
    assert max(float((split[name] - t).abs().max()) for name, t in whole[1].items()) < 1e-5


def test_where_the_clients_part_is_frozen_no_gradient_comes_down_and_the_weights_are_those_of_unsplit(
    whole, tmp_path
):
    changes = {"model.base": str(whole[0] / "model"), "tuning": SERVERS}
    unsplit = trained(tmp_path / "whole", changes)
    split = trained(tmp_path / "split", changes | {"topology": SPLIT | {"gradients": "none"}})
    assert any(not torch.equal(split[name], t) for name, t in whole[1].items())
    assert all(torch.equal(split[name], t) for name, t in unsplit.items())
    sent = {e["id"]: e["bytes"] for e in rows(tmp_path / "split" / "run" / "timeline.jsonl") if "bytes" in e}
    assert sent["smashed-0-0"] > 0
    assert sent["gradients-0-0"] == 0


def test_a_cut_before_which_weights_train_is_refused_where_no_gradient_may_come_down(tmp_path):
    file = tiny(tmp_path, ONE | {"topology": SPLIT | {"gradients": "none"}})
    with pytest.raises(
        ScenarioError, match=r"topology\.gradients: got none, with a cut \(condition .. loss\)"
    ):
        plan(check(file))


def test_a_new_controlnet_whose_embedding_stays_zeros_is_refused_before_anything_trains(tmp_path):
    with pytest.raises(ScenarioError, match="conv_out as it begins, which is zeros"):
        plan(check(tiny(tmp_path, ONE | {"tuning": SERVERS})))


def test_timesteps_begin_where_the_scenario_says_and_are_all_as_likely():
    noise = DiscreteNoise({"num_train_timesteps": 10})
    noise.first = 7
    drawn = noise.draw(3000, torch.Generator().manual_seed(0))
    assert np.allclose(torch.bincount(drawn).numpy()[7:] / 3000, 1 / 3, atol=0.03)
    assert drawn.min() == 7


def test_a_first_timestep_that_the_base_does_not_have_is_refused(tmp_path):
    with pytest.raises(ScenarioError, match=r"model\.min_timestep: got 5000, expected one of the base's"):
        plan(check(tiny(tmp_path, ONE | {"model.min_timestep": 5000})))
