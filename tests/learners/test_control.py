"""A ControlNet beside a frozen base: its step, its samples, its files, in a split too."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedray import shipped
from fedray.checks import check
from fedray.data import open_source
from fedray.learners.bases import examples
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.cut import cuts
from fedray.learners.edges import agreement, edges
from fedray.learners.learners import NO_DATA, learner_class
from fedray.learners.stage_names import stage_names
from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from fedray.scenario.base import Refused
from fedray.scenario.control import Control
from fedray.scenario.text_to_image import TextToImage as Section
from fedray.scenario.topology import Split
from fedray.scenario.tuning import Full, Lora
from fedray.tuning.tunings import tuning
from tests.helpers import PROMPT, UNSEEN, run, tiny
from tests.learners.families.tiny_bases import sdxl

EDGES = {"condition": "edges"}
CONTROLNET = {"kind": "full", "parts": ["controlnet"]}
SAMPLING = Sampling(steps=2)


def learner(base="tiny-sd", device="cpu", **section):
    made = Section(kind="text_to_image", base=str(base), **section)
    return learner_class(made).load(made, LearnerContext(NO_DATA, device=torch.device(device)))


@pytest.fixture(scope="module")
def samples():
    loaded = check(shipped.scenarios()["quickstart"])
    return open_source(loaded.scenario.data, loaded.folder)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Of two rounds, at a rate that shows."""
    folder = tmp_path_factory.mktemp("control")
    changes = {
        "model.control": EDGES | {"examples": "shipped:emoji-heldout"},
        "evaluation": {"prompts": [], "inference_steps": 1},
        "tuning": CONTROLNET,
        "training.optimizer.learning_rate": 1e-2,
        "training.rounds": 2,
    }
    run(tiny(folder, changes), folder / "run")
    return folder / "run"


def a_batch(model, samples, n=4):
    shard = model.encode(samples, np.arange(n))
    return model.draw(shard, np.arange(n), torch.Generator().manual_seed(0))


def shaken(network):
    """The network with outputs that are not zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def test_edges_are_white_where_brightness_steps_and_black_elsewhere():
    picture = torch.zeros(1, 3, 6, 6)
    picture[..., 3:] = 1
    expected = torch.zeros(6)
    expected[2:4] = 1
    assert torch.equal(edges(picture, 0.99), expected.expand(1, 3, 6, 6))
    assert not edges(picture * 0.5, 0.6).any()
    assert edges(picture * 0.5, 0.49).any()


def test_edges_agree_with_themselves_and_not_with_their_opposite():
    drawing = (torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    assert agreement(drawing, drawing) == pytest.approx(1, abs=1e-6)
    assert agreement(drawing, 1 - drawing) == pytest.approx(-1, abs=1e-6)
    assert agreement(drawing, torch.zeros_like(drawing)) == 0
    numbers = np.corrcoef(drawing[0].flatten().numpy(), drawing[1].flatten().numpy())
    assert agreement(drawing[:1], drawing[1:2]) == pytest.approx(numbers[0, 1], abs=1e-6)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_before_any_training_it_equals_its_base_bit_for_bit(samples, tmp_path, family):
    base = "tiny-sd" if family == "sd" else sdxl(tmp_path / "sdxl")
    plain, controlled = (learner(base, resolution=32, control=c) for c in (None, Control(**EDGES)))
    losses = [model.loss(a_batch(model, samples)) for model in (plain, controlled)]
    assert torch.equal(*losses)
    images = [model.sample([PROMPT] * 2, [0, 1], SAMPLING) for model in (plain, controlled)]
    assert torch.equal(*images)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_step_is_that_of_diffusers_training_script(samples, tmp_path, family):
    """examples/controlnet/train_controlnet.py, and its _sdxl: the ControlNet's residuals go into the
    U-Net, and the loss is the mean squared error of the noise."""
    base = "tiny-sd" if family == "sd" else sdxl(tmp_path / "sdxl")
    model = learner(base, resolution=32, control=Control(**EDGES))
    shaken(model.controlnet)
    batch = a_batch(model, samples)
    noisy = model.family.noise.schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
    added = {}
    if family == "sdxl":
        added = {"added_cond_kwargs": {"text_embeds": batch.pooled, "time_ids": batch.time_ids}}
    down, middle = model.controlnet(
        noisy,
        batch.timesteps,
        encoder_hidden_states=batch.text,
        controlnet_cond=batch.condition,
        return_dict=False,
        **added,
    )
    predicted = model.family.denoiser(
        noisy,
        batch.timesteps,
        encoder_hidden_states=batch.text,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        **added,
    ).sample
    target = model.family.noise.target(batch.latents, batch.noise, batch.timesteps)
    assert model.loss(batch).item() == pytest.approx(F.mse_loss(predicted, target).item(), abs=1e-5)


def test_another_condition_gives_another_loss_once_the_outputs_are_not_zero(samples):
    model = learner(control=Control(**EDGES))
    shaken(model.controlnet)
    batch = a_batch(model, samples)
    before = model.loss(batch)
    batch.condition = batch.condition.roll(1, 0)
    assert not torch.equal(model.loss(batch), before)


def test_only_the_controlnet_trains_and_the_stages_before_it_keep_no_gradient(samples):
    model = learner(control=Control(**EDGES))
    chosen = tuning(Full(kind="full"), 0).apply(model).travelling
    assert {name.split(".")[0] for name in chosen} == {"controlnet"}
    values = vars(a_batch(model, samples))
    for stage in model.stages:
        given = stage.run(*(values[n] for n in stage.needs), *(values.get(n) for n in stage.optional))
        values |= dict(zip(stage.gives, given if isinstance(given, tuple) else (given,), strict=True))
        if stage.name == "mid":
            assert not any(values[name].requires_grad for name in ("x", "skip_0"))
    values["loss"].backward()
    assert model.controlnet.controlnet_mid_block.weight.grad.any()
    assert all(p.grad is None for p in model.family.denoiser.parameters())


def test_adapters_reach_the_outputs_that_begin_as_zeros(samples):
    model = learner(control=Control(**EDGES))
    chosen = tuning(Lora(kind="lora", rank=2), 0).apply(model).travelling
    assert all(name.startswith("controlnet.") for name in chosen)
    model.loss(a_batch(model, samples)).backward()
    assert any(p.grad is not None and p.grad.any() for p in chosen.values())


def test_lora_on_a_controlnet_exports_an_adapter_and_the_network_merged_with_it(tmp_path):
    """The adapter's file says B A of each layer, of which the merged weight is the sum with the first one."""
    from diffusers import ControlNetModel
    from safetensors.torch import load_file

    changes = {
        "model.control": EDGES,
        "tuning": {"kind": "lora", "rank": 2, "alpha": 4.0},
        "training.optimizer.learning_rate": 1e-2,
    }
    run(tiny(tmp_path, UNSEEN | changes), tmp_path / "run")
    before = learner(control=Control(**EDGES)).controlnet.state_dict()
    after = ControlNetModel.from_pretrained(tmp_path / "run" / "model" / "controlnet").state_dict()
    adapter = load_file(tmp_path / "run" / "model" / "pytorch_lora_weights.safetensors")
    layers = [name.removesuffix(".lora_A.weight") for name in adapter if name.endswith(".lora_A.weight")]
    for layer in layers:
        a, b = (adapter[f"{layer}.lora_{side}.weight"] for side in "AB")
        name = layer.removeprefix("controlnet.") + ".weight"
        change = (b.flatten(1) @ a.flatten(1)).view(before[name].shape)
        assert torch.allclose(after[name], before[name] + change, atol=1e-5)
    assert after["controlnet_mid_block.weight"].any()
    unchanged = before.keys() - {layer.removeprefix("controlnet.") + ".weight" for layer in layers}
    assert all(torch.equal(before[name], after[name]) for name in unchanged)
    assert plan(check(tmp_path / "run" / "scenario.resolved.yaml"))["export_bytes"] == (
        (tmp_path / "run" / "model" / "pytorch_lora_weights.safetensors").stat().st_size
    )


def test_the_folder_opens_in_diffusers_with_the_weights_and_the_picture_that_fedray_makes(run_folder):
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    folder = run_folder / "model"
    network = ControlNetModel.from_pretrained(folder / "controlnet")
    assert network.controlnet_mid_block.weight.any()
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        folder, controlnet=network, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    own = Section(kind="text_to_image", base="tiny-sd", control=Control(**EDGES))
    exported = learner_class(own).from_export(own, LearnerContext(NO_DATA), folder)
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), exported.controlnet.state_dict().values(), strict=True)
    )
    size = exported.resolution
    images = pipeline(
        [PROMPT],
        image=torch.zeros(1, 3, size, size),
        negative_prompt=[""],
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(5)],
        output_type="pt",
    ).images
    assert torch.equal(exported.sample([PROMPT], [5], SAMPLING), images.float())


def test_each_round_measures_the_agreement_with_the_edges_given_and_with_others(run_folder):
    metrics = json.loads((run_folder / "result.json").read_text())["final"]
    assert -1 <= metrics["eval_edge_agreement"] <= 1
    assert metrics["eval_edge_agreement"] != metrics["eval_edge_agreement_others"]


def test_the_plan_says_exactly_what_the_file_has(run_folder):
    file = run_folder / "model" / "controlnet" / "diffusion_pytorch_model.safetensors"
    assert plan(check(run_folder / "scenario.resolved.yaml"))["export_bytes"] == file.stat().st_size


def test_stable_diffusion_15_has_a_controlnet_of_361_279_120_numbers():
    """As lllyasviel/sd-controlnet-canny."""
    model = learner("stable-diffusion-v1-5/stable-diffusion-v1-5", "meta", control=Control(**EDGES))
    assert sum(p.numel() for p in model.controlnet.parameters()) == 361_279_120


def test_check_knows_the_stages_that_the_learner_has(tmp_path):
    model = learner(control=Control(**EDGES))
    assert stage_names(model.section, tmp_path) == [stage.name for stage in model.stages]


def test_in_a_split_no_cut_sends_the_condition_unless_the_scenario_allows_it(tmp_path):
    model = learner(control=Control(**EDGES))
    allowed = cuts(model.stages, Split(kind="split", cut="auto", tail="loss", may_send=["text"]))
    assert "condition..loss" in [cut.name for cut in allowed]
    assert all("condition" not in cut.smashed for cut in allowed)
    with pytest.raises(Refused, match="condition"):
        cuts(model.stages, Split(kind="split", cut="in", tail="loss", may_send=["text"]))


def test_in_a_split_the_servers_part_of_the_controlnet_trains(tmp_path):
    changes = {"model.control": EDGES, "tuning": CONTROLNET, "training.rounds": 1}
    split = {"kind": "split", "cut": "condition", "tail": "loss", "may_send": ["text"]}
    run(tiny(tmp_path, UNSEEN | changes | {"topology": split}), tmp_path / "run")
    from diffusers import ControlNetModel

    network = ControlNetModel.from_pretrained(tmp_path / "run" / "model" / "controlnet")
    assert network.controlnet_mid_block.weight.any()


def test_samples_follow_examples_and_their_agreement_is_measured(tmp_path):
    control = Control(condition="edges", examples="shipped:emoji-heldout")
    model = learner(control=control)
    shaken(model.controlnet)
    empty = learner(control=Control(**EDGES))
    shaken(empty.controlnet)
    assert len(examples(control, tmp_path)) > 2
    prompts = [PROMPT] * 2
    assert not torch.equal(
        model.sample(prompts, [0, 0], SAMPLING)[0], empty.sample(prompts, [0, 0], SAMPLING)[0]
    )
    one, other = model.sample(prompts, [0, 0], SAMPLING)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tuning": CONTROLNET}, "controlnet without model.control"),
        (
            {"model.control": EDGES, "tuning": {"kind": "full", "parts": ["unet"]}},
            r"got unet, expected \[con",
        ),
        ({"model.control": EDGES | {"examples": "nowhere"}}, "model.control.examples: got 'nowhere'"),
        ({"model.control": {"condition": "depth"}}, "edges"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_trains(tmp_path, changes, named):
    with pytest.raises(ScenarioError, match=named):
        check(tiny(tmp_path, UNSEEN | changes))


def test_an_embedding_that_does_not_end_at_a_latents_size_is_refused():
    with pytest.raises(Refused, match="got 4 numbers, expected 3"):
        learner(control=Control(condition="edges", embedding_channels=[16, 32, 96, 256]))
