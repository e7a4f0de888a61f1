"""What is measured of a tuned text_to_image: the loss on a folder's images, the cost of an image, a class."""

import numpy as np
import pytest
import torch

from fedray.data import Dataset
from fedray.data.image_folder import read
from fedray.evaluation.evaluate import evaluations
from fedray.learners.contexts import EvaluationContext, LearnerContext
from fedray.learners.denoising import denoising_loss
from fedray.learners.families.flow_noise import FlowNoise
from fedray.learners.learners import NO_DATA, learner_class
from fedray.scenario.evaluation import Denoising
from fedray.scenario.explain import ScenarioError
from fedray.tuning.tunings import tuning
from tests.helpers import garments, job_of, run, tiny

BAG = {"path": "shipped:emoji-subject", "folders": ["bag"]}


def learner_of(file):
    """A scenario's, with its base's weights."""
    scenario = job_of(file)[0].scenario
    return learner_class(scenario.model).load(scenario.model, LearnerContext(NO_DATA))


def measured(folder, evaluation, changes=None, before=lambda learner: None):
    """A scenario's metrics beside its learner's own, and how many numbers its tuning trains; `before` changes
    the learner first."""
    evaluation = {"inference_steps": 1, "guidance_scale": 1.0} | evaluation
    loaded, _ = job_of(tiny(folder, {"evaluation": evaluation} | (changes or {})))
    scenario = loaded.scenario
    learner = learner_class(scenario.model).load(scenario.model, LearnerContext(NO_DATA))
    trained = tuning(scenario.tuning, scenario.seed).apply(learner).travelling
    before(learner)
    dataset = Dataset.of(scenario, loaded.folder)
    context = EvaluationContext.of(scenario, loaded.folder, folder / "sheet.png", dataset)
    metrics = {}
    for one in evaluations(scenario.evaluation):
        metrics |= one.measure(learner, context)
    return metrics, sum(t.numel() for t in trained.values())


TUNINGS = {
    "full": {"tuning": {"kind": "full"}},
    "lora": {"tuning": {"kind": "lora", "rank": 2}},
    "textual_inversion": {"tuning": {"kind": "textual_inversion", "token": "<x>", "initializer": "bag"}},
    "controlnet": {"tuning": {"kind": "full"}, "model.control": {"condition": "edges"}},
}


@pytest.mark.parametrize("name", TUNINGS)
def test_parameters_beside_the_bases_are_those_that_train_but_where_the_base_itself_does(name, tmp_path):
    metrics, trained = measured(tmp_path, {"inference_cost": {}}, TUNINGS[name])
    assert metrics["eval_added_parameters"] == (0 if name == "full" else trained)


def test_an_image_costs_more_with_adapters_and_with_a_controlnet_than_with_the_base_alone(tmp_path):
    cost = {name: measured(tmp_path, {"inference_cost": {}}, changes)[0] for name, changes in TUNINGS.items()}
    flops = {name: metrics["eval_flops_per_image"] for name, metrics in cost.items()}
    assert flops["full"] == flops["textual_inversion"] < flops["lora"] < flops["controlnet"]


def test_the_denoising_loss_of_a_network_that_predicts_nothing_is_the_velocitys_mean_square(tmp_path):
    """tiny-sd predicts v = sqrt(a) noise - sqrt(1 - a) x (Salimans and Ho 2022); a falls as noise rises."""
    section = {"denoising": BAG | {"draws": 32}}
    expected = []

    def predict_nothing(learner):
        for parameter in learner.parts["unet"].conv_out.parameters():
            parameter.data.zero_()
        bag = read(BAG["path"], tmp_path, "data", "text", None, BAG["folders"])
        shard = learner.encode(bag, np.arange(len(bag)))
        latents = learner.family.scaled(torch.stack([shard.mean, shard.std])).square().sum(0).mean()
        kept = learner.family.noise.schedule.alphas_cumprod
        kept = torch.stack([kept.mean(), *(part.mean() for part in kept.chunk(4))])
        expected.extend((kept + (1 - kept) * latents).tolist())

    nothing, _ = measured(tmp_path, section, before=predict_nothing)
    assert [*nothing] == ["eval_denoising_loss", *(f"eval_denoising_loss_noise_{i}" for i in range(1, 5))]
    assert nothing["eval_denoising_loss"] == pytest.approx(expected[0], rel=0.015)  # 192 draws of noise
    assert [*nothing.values()] == pytest.approx(expected, rel=0.03)
    assert measured(tmp_path, section, before=predict_nothing)[0] == nothing


def test_a_samples_noise_is_its_own_however_many_are_measured_at_once(tmp_path):
    learner = learner_of(tiny(tmp_path))
    bag = read(BAG["path"], tmp_path, "data", "text", None, BAG["folders"])
    together = denoising_loss(learner, bag, np.arange(4), Denoising(draws=2), 7)
    learner.held_out_at_once = 3
    assert denoising_loss(learner, bag, np.arange(4), Denoising(draws=2), 7) == pytest.approx(
        together, rel=1e-5
    )
    assert [*together] == ["eval_loss", "eval_loss_noise_1", "eval_loss_noise_2"]
    assert denoising_loss(learner, bag, np.arange(4), Denoising(draws=2), 8) != together


@pytest.mark.parametrize("logit_normal", [True, False])
def test_levels_of_noise_are_quantiles_of_the_timesteps_that_training_draws(logit_normal):
    """Esser et al. 2024, Sec. 3.1: logit(t) is a standard normal."""
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
    noise = FlowNoise(config, logit_normal)
    levels = torch.tensor([0.0, 0.1587, 0.5, 0.8413, 1 - 1e-12], dtype=torch.float64)
    sigma = noise.time(noise.at(levels)) / 1000
    u = torch.sigmoid(torch.tensor([-torch.inf, -1.0, 0.0, 1.0, torch.inf])) if logit_normal else levels
    assert torch.allclose(sigma, u.float(), atol=2e-3)
    drawn = noise.time(noise.draw(4000, torch.Generator().manual_seed(0))) / 1000
    assert torch.allclose(drawn.quantile(sigma.new_tensor([0.1587, 0.5, 0.8413])), sigma[1:4], atol=0.03)


def test_the_test_set_is_measured_of_a_diffusion_model_whose_untrained_levels_all_miss_the_noise(tmp_path):
    model = {"kind": "diffusion", "resolution": 8, "channels": [32, 32], "attention": [], "layers": 1}
    section = {"evaluation": {"denoising": {"draws": 2}}, "model": model, "training.rounds": 1}
    evaluation = section["evaluation"] | {"inference_steps": 1, "images_per_prompt": 1}
    final = run(garments(tmp_path, section | {"evaluation": evaluation}), tmp_path / "run")["final"]
    levels = [final["eval_denoising_loss_noise_1"], final["eval_denoising_loss_noise_2"]]
    assert final["eval_denoising_loss"] == pytest.approx(np.mean(levels), abs=1e-6)


def test_a_class_prompt_compares_with_the_base_where_there_is_no_prior(tmp_path):
    reference = BAG | {"images_per_caption": 1, "plain_prompts": False, "class_prompt": "a photo of a bag"}
    metrics, _ = measured(tmp_path, {"reference": reference})
    assert metrics["eval_images"] == 6
    assert metrics["eval_prior_feature_distance"] == 0


@pytest.mark.parametrize("name", ["denoising", "inference_cost"])
def test_what_needs_images_of_captions_is_refused_for_a_classifier(name, tmp_path):
    with pytest.raises(ScenarioError, match=f"evaluation.{name}: got some for a classifier"):
        job_of(garments(tmp_path, {"evaluation": {name: BAG if name == "denoising" else {}}}))
