"""DreamBooth's prior: class images by the untouched base join each batch."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fedray
from fedray.checks import check
from fedray.executors.local_training import LocalTraining
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.latents import NoisedLatents
from fedray.learners.learners import NO_DATA
from fedray.learners.prior import class_images, joined, untouched
from fedray.learners.text_to_image import TextToImage
from fedray.scenario.explain import ScenarioError
from fedray.scenario.text_to_image import TextToImage as Section
from tests.helpers import ONE_ACTOR, UNSEEN, job_of, run, tiny

PRIOR = {"prompt": "a photo of a bag", "images": 3, "inference_steps": 2}
SUBJECTS = {
    "data": {
        "kind": "image_folder",
        "path": "shipped:emoji-subject",
        "folders": ["bag", "t-shirt"],
        "partition": {"kind": "folder"},
    },
    "population": {"clients": 2, "per_round": 2},
    "model.prior": PRIOR,
}

OTHERS = {key: value for key, value in SUBJECTS.items() if key != "model.prior"}


def learner(device="cpu", **prior):
    section = Section(kind="text_to_image", base="tiny-sd", prior=PRIOR | prior)
    return TextToImage.load(section, LearnerContext(NO_DATA, device=torch.device(device)))


def dreambooth(folder, changes=None, name="tiny.yaml"):
    return tiny(folder, UNSEEN | SUBJECTS | (changes or {}), name)


def test_a_step_is_that_of_diffusers_dreambooth_script():
    """examples/dreambooth/train_dreambooth_lora.py, --with_prior_preservation: chunks, both losses."""
    model = learner(weight=0.7)
    latents, noise = torch.randn(2, 4, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([10, 700, 30, 400])
    texts = ["a photo of a sks bag"] * 2 + ["a photo of a bag"] * 2
    hidden = model.family.embed(model.family.tokenize(texts))
    halves = [
        NoisedLatents(latents[i], noise[i], timesteps[i], **{k: v[i] for k, v in hidden.items()})
        for i in (slice(0, 2), slice(2, 4))
    ]
    ours = model.loss(joined(*halves, 0.7))

    with torch.no_grad():
        noisy = model.family.noise.schedule.add_noise(latents, noise, timesteps)
        predicted = model.parts["unet"](noisy, timesteps, hidden["text"], return_dict=False)[0]
    predicted, of_class = torch.chunk(predicted, 2, dim=0)
    assert model.family.noise.schedule.config.prediction_type == "v_prediction"
    velocity = model.family.noise.schedule.get_velocity(latents, noise, timesteps)
    target, target_of_class = torch.chunk(velocity, 2, dim=0)
    expected = F.mse_loss(predicted, target) + 0.7 * F.mse_loss(of_class, target_of_class)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_has_as_many_class_images_as_samples_with_draws_of_their_own(tmp_path):
    _, job = job_of(dreambooth(tmp_path))
    training = LocalTraining(job, torch.device("cpu"))
    shard = training.shard(0)
    batch = training.learner.draw(shard, np.array([0, 4]), torch.Generator().manual_seed(0))
    assert len(shard.class_images) == 3
    assert batch.weight.tolist() == [2, 2, 2, 2]
    assert len({n.sum().item() for n in batch.noise}) == len(batch.timesteps) == 4
    assert torch.equal(batch.text[2], shard.class_images.ids["text"][0])
    assert not torch.equal(batch.text[2], batch.text[0])


def test_class_images_are_each_clients_own_and_come_again():
    model = learner()
    first, again, other = (class_images(model, client).images for client in (0, 0, 1))
    assert first.shape == (3, 32, 32, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


def test_who_is_selected_late_in_full_tuning_has_the_untouched_bases_class_images(tmp_path):
    """Client 1 is asked for its shard by a worker that trained client 0 before, and by a fresh one."""
    _, job = job_of(dreambooth(tmp_path, {"tuning": {"kind": "full"}}))
    late, fresh = (LocalTraining(job, torch.device("cpu")) for _ in range(2))
    received = late.model.flat.all.detach().clone()
    before = late.learner.parts["unet"].conv_in.weight.detach().clone()
    for round_number in (1, 2):
        late.run(round_number, 0, received, {})
        received = late.model.flat.all.detach().clone()
    assert not torch.equal(late.learner.parts["unet"].conv_in.weight, before)
    assert torch.equal(untouched(late.learner).parts["unet"].conv_in.weight, before)
    assert torch.equal(late.shard(1).class_images.mean, fresh.shard(1).class_images.mean)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    return run(dreambooth(folder), folder / "run")


def test_ray_has_the_bits_of_one_process(cluster, finished, tmp_path):
    file = dreambooth(tmp_path, {"runtime": ONE_ACTOR})
    assert run(file, tmp_path / "run")["weights_sha256"] == finished["weights_sha256"]


def test_a_run_resumed_in_the_middle_has_the_same_bits(finished, tmp_path):
    file = dreambooth(tmp_path)
    run(file, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "round-0002")
    (tmp_path / "run" / "result.json").unlink()
    assert run(file, tmp_path / "run", resume=True)["weights_sha256"] == finished["weights_sha256"]


def test_a_class_prompts_images_are_compared_with_the_bases_own(tmp_path):
    from fedray import shipped
    from fedray.data import Dataset
    from fedray.evaluation import judge as judges
    from fedray.evaluation.prior_kept import prior_kept
    from fedray.learners.contexts import EvaluationContext

    loaded, _ = job_of(dreambooth(tmp_path, {"evaluation": {"prompts": [], "inference_steps": 1}}))
    dataset = Dataset.of(loaded.scenario, loaded.folder)
    context = EvaluationContext.of(loaded.scenario, loaded.folder, tmp_path / "sheet.png", dataset)
    judge = judges.load(shipped.resolve("shipped:garments", loaded.folder))
    model = learner()
    kept = prior_kept(model, context, judge, "a photo of a bag")
    assert kept["eval_prior_feature_distance"] == 0
    assert kept["eval_prior_recognised"] == kept["eval_prior_recognised_base"]
    with torch.no_grad():
        model.parts["unet"].conv_out.weight.zero_()
    assert prior_kept(model, context, judge, "a photo of a bag")["eval_prior_feature_distance"] > 0


def test_a_step_is_planned_as_twice_the_work_and_class_images_once(tmp_path):
    with_prior = fedray.plan(dreambooth(tmp_path))
    without = fedray.plan(tiny(tmp_path, UNSEEN | OTHERS, "without.yaml"))
    assert with_prior["flops_per_sample"] == 2 * without["flops_per_sample"]
    an_image = learner("meta").sample_flops(Sampling(steps=2, guidance_scale=3.0))
    assert with_prior["preparation_flops"] == 3 * (an_image + with_prior["encode_flops_per_sample"])
    assert without["preparation_flops"] == 0


def test_class_images_from_the_server_are_the_same_and_are_paid_there_and_on_the_downlink(finished, tmp_path):
    file = dreambooth(tmp_path, {"model.prior.at": "server"})
    result = run(file, tmp_path / "run")
    assert result["weights_sha256"] == finished["weights_sha256"]
    sent = 2 * 3 * 32 * 32 * 3  # bytes: of two clients three images of three channels
    assert result["final"]["bytes_downlink"] == finished["final"]["bytes_downlink"] + sent
    plan = fedray.plan(file)
    assert plan["total"]["bytes_downlink"] == result["final"]["bytes_downlink"]
    assert plan["preparation_flops"] == 3 * plan["encode_flops_per_sample"]
    assert plan["pictures"] == 2 * 3
    timeline = [json.loads(line) for line in (tmp_path / "run" / "timeline.jsonl").open()]
    painted = {(e["node"], e["round"], e["flops"]) for e in timeline if e["event"] == "generate"}
    assert painted == {("server", 1, 3 * plan["flops_per_picture"])}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model.prior.images": 0}, "greater than or equal to 1|at least 1"),
        ({"model.prior.prompt": " "}, "names the class"),
        ({"model.prior.prompt": None}, "prompt"),
        ({"topology": {"kind": "split", "cut": "middle"}}, "model.prior"),
    ],
)
def test_a_prior_that_cannot_work_is_refused(changes, expected, tmp_path):
    with pytest.raises(ScenarioError, match=expected):
        check(dreambooth(tmp_path, changes))
