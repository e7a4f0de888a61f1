import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from fedray.checks import check
from fedray.data import DatasetInfo
from fedray.executors.serial import SerialExecutor
from fedray.learners import vae
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.pictures import ImageShard
from fedray.learners.stage_names import of_vae
from fedray.learners.vae import ImagesWithNoise, Vae
from fedray.planning.plan import plan
from fedray.scenario import Refused, ScenarioError
from fedray.scenario.vae import Vae as Section
from tests.helpers import begin, garments, job_of, rows, run

SMALL = {"kind": "vae", "latent": 3, "channels": [4, 6]}
TRAINED = {
    "model": SMALL | {"warmup_rounds": 2},
    "training.rounds": 3,
    "training.clip_norm": 1e6,
    "training.optimizer": {"kind": "adamw", "learning_rate": 1e-3},
}
DECODER_ONLY = {"tuning": {"kind": "full", "local": ["encoder.*"]}}


def learner(size=8, channels=1, **changes):
    section = Section.model_validate(SMALL | changes)
    return Vae.load(section, LearnerContext(DatasetInfo(channels, size, ("a", "b"))))


def some_batch(made, n=5):
    generator = torch.Generator().manual_seed(0)
    channels = made.context.dataset.channels
    images = torch.rand(n, channels, made.size, made.size, generator=generator) * 2 - 1
    return ImagesWithNoise(images, torch.randn(n, made.section.latent, generator=generator))


# The loss


def test_the_kl_divergence_is_that_of_torch_distributions():
    mean, log_variance = torch.randn(7, 3), torch.randn(7, 3)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    assert torch.allclose(vae.kl_divergence(mean, log_variance), expected, atol=1e-6)


def test_the_bernoulli_likelihood_of_black_and_white_pixels_is_that_of_torch_distributions():
    logits, pixels = torch.randn(4, 1, 3, 3), torch.randint(2, (4, 1, 3, 3)).float()
    expected = -Independent(Bernoulli(logits=logits), 3).log_prob(pixels)
    assert torch.allclose(vae.bernoulli(logits, pixels), expected, atol=1e-5)


def test_a_grey_pixel_has_the_mean_likelihood_of_black_and_white_ones():
    logits = torch.tensor([[0.7]])
    black, white, grey = (vae.bernoulli(logits, torch.tensor([[x]])) for x in (0.0, 1.0, 0.3))
    assert torch.allclose(grey, 0.7 * black + 0.3 * white)


def test_the_gaussian_likelihood_is_that_of_torch_distributions():
    means, pixels = torch.rand(4, 1, 3, 3), torch.rand(4, 1, 3, 3)
    expected = -Independent(Normal(means, 0.2), 3).log_prob(pixels)
    assert torch.allclose(vae.gaussian(means, pixels, 0.2), expected, atol=1e-4)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_loss_is_the_negative_evidence_lower_bound_by_hand(likelihood):
    """By torch's distributions, from the encoder's own Gaussian, with pixels drawn black or white."""
    made = learner(likelihood=likelihood, beta=0.5)
    batch = some_batch(made)
    batch.images = batch.images.sign()
    with torch.no_grad():
        mean, log_variance = made.encode_images(batch.images)
        posterior = Independent(Normal(mean, (log_variance / 2).exp()), 1)
        logits = made.decoder(mean + posterior.base_dist.scale * batch.noise)
        pixel = Bernoulli(logits=logits) if likelihood == "bernoulli" else Normal(logits.sigmoid(), 0.1)
        reconstruction = -Independent(pixel, 3).log_prob((batch.images + 1) / 2)
        kl = kl_divergence(posterior, Independent(Normal(torch.zeros(3), torch.ones(3)), 1))
        assert torch.allclose(made.loss(batch), (reconstruction + 0.5 * kl).mean(), rtol=1e-5)


def test_free_bits_count_at_least_so_much_for_each_latent_number():
    made = learner(free_bits=0.5)
    plain = learner()
    with torch.no_grad():
        for one in (made, plain):  # a posterior that is the prior: no divergence at all
            one.encoder.posterior.weight.zero_()
            one.encoder.posterior.bias.zero_()
        batch = some_batch(made)
        assert torch.allclose(made.loss(batch) - plain.loss(batch), torch.tensor(3 * 0.5), atol=1e-3)


def test_a_weight_says_what_a_sample_counts():
    made = learner()
    batch = some_batch(made)
    alone = ImagesWithNoise(batch.images[:1], batch.noise[:1])
    batch.weight = torch.tensor([5.0, 0, 0, 0, 0])
    assert torch.allclose(made.loss(batch), made.loss(alone), rtol=1e-5)


def test_the_weight_of_the_divergence_rises_in_a_line_over_rounds():
    section = Section.model_validate(SMALL | {"beta": 2.0, "warmup_rounds": 4})
    assert [section.kl_weight(n) for n in range(1, 8)] == [0, 0.5, 1, 1.5, 2, 2, 2]
    assert Section.model_validate(SMALL).kl_weight(1) == 1


# Pieces, evaluation, samples, files


def test_its_stages_are_those_that_a_scenario_may_name():
    made = learner()
    assert [stage.name for stage in made.stages] == of_vae(made.section, None)


def test_what_is_drawn_for_a_batch_comes_from_the_generator_alone():
    made = learner()
    shard = ImageShard(torch.zeros(9, 1, 8, 8, dtype=torch.uint8), torch.zeros(9, dtype=torch.long))
    drawn = [made.draw(shard, np.arange(4), torch.Generator().manual_seed(s)).noise for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_latent_number_whose_mean_varies_over_images_is_active_and_others_are_not():
    """Burda et al. 2016: active where the variance of its posterior mean is over 0.01."""
    from fedray import shipped
    from fedray.data.fashion_mnist import garments as read_garments

    made = learner(size=28)
    samples = read_garments(shipped.HERE / "fashion_mnist_mini", "test")
    with torch.no_grad():
        made.encoder.posterior.weight.zero_()
        made.encoder.posterior.bias.fill_(3.0)  # far from the prior, but the same of every image
        assert made.measure(samples, np.arange(40))["eval_active_units"] == 0
        made.encoder.posterior.weight[1].normal_()
    found = made.measure(samples, np.arange(40))
    assert found["eval_active_units"] == 1
    assert found["eval_negative_elbo"] == pytest.approx(found["eval_reconstruction_loss"] + found["eval_kl"])


def test_an_image_depends_on_its_own_seed_and_not_on_its_neighbours():
    made = learner(channels=3)
    together, alone = (made.sample([""] * len(s), s, Sampling()) for s in ([3, 4, 5], [4]))
    assert together.shape == (3, 3, 8, 8)
    assert torch.allclose(together[1], alone[0], atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    assert 0 <= together.min() <= together.max() <= 1


def test_what_is_saved_says_what_it_was_built_for_and_opens_again(tmp_path):
    made = learner()
    with torch.no_grad():
        made.decoder.expand[0].bias.normal_()
    made.save(tmp_path)
    info = Vae.exported_dataset(made.section, tmp_path)
    opened = Vae.from_export(made.section, LearnerContext(info, seed=9), tmp_path)
    assert torch.equal(opened.loss(some_batch(made)), made.loss(some_batch(made)))


def test_a_size_that_cannot_be_halved_as_often_is_refused():
    section = Section.model_validate(SMALL | {"channels": [4, 4, 4]})
    with pytest.raises(Refused, match=r"model\.resolution: got 12, expected a multiple of 8, for 3"):
        Vae.load(section, LearnerContext(DatasetInfo(1, 12, ())))
    with pytest.raises(Refused, match=r"model\.resolution: got nothing, expected pixels a side"):
        Vae.load(section, LearnerContext(DatasetInfo(1, None, ())))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": SMALL | {"std": 0.2}}, r"model\.std: got 0\.2, expected none for bernoulli"),
        ({"model": SMALL | {"warmup_rounds": 2}}, r"model\.warmup_rounds: got 2, expected less than"),
        ({"model": SMALL | {"beta": -1.0}}, r"model\.beta: got -1\.0"),
        (
            {"model": SMALL, "tuning": {"kind": "lora", "rank": 2}},
            r"tuning\.kind: got lora, expected full or partial",
        ),
        (
            {"model": SMALL, "evaluation": {"prompts": ["a bag"]}},
            r"evaluation\.prompts: got some for a vae",
        ),
    ],
)
def test_what_does_not_go_with_a_vae_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ScenarioError, match=message):
        job_of(garments(tmp_path, changes))


# In a federation


def test_both_parts_train_and_travel_by_default(tmp_path):
    _, job = job_of(garments(tmp_path, TRAINED))
    executor = SerialExecutor(job)
    whole = sum(p.numel() for part in executor.clients.learner.parts.values() for p in part.parameters())
    assert {name.split(".")[0] for name in executor.layout.names} == {"encoder", "decoder"}
    assert executor.layout.trained == whole


def test_the_first_round_of_a_warm_up_leaves_the_divergence_out_whatever_was_trained_before(tmp_path):
    _, job = job_of(garments(tmp_path, TRAINED))
    executor = SerialExecutor(job)
    begin(executor)
    start = torch.from_numpy(executor.initial.view(np.float32).copy())
    ends = {}
    for n in (1, 3, 1):
        executor.clients.run(n, 0, start, {})
        found = executor.clients.model.flat.all.detach().clone()
        assert n not in ends or torch.equal(ends[n], found)
        ends[n] = found
        assert executor.clients.learner.kl_weight == {1: 0, 3: 1}[n]


@pytest.mark.parametrize("split", [False, True])
def test_a_run_resumed_within_its_warm_up_has_the_bits_of_an_unbroken_one(split, tmp_path):
    cut = {"topology": {"kind": "split", "cut": "latent", "tail": "loss"}} if split else {}
    file = garments(tmp_path, TRAINED | cut)
    whole = run(file, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "round-0003")
    (tmp_path / "run" / "result.json").unlink()
    assert run(file, tmp_path / "run", resume=True)["weights_sha256"] == whole["weights_sha256"]


def test_an_encoder_that_stays_at_home_is_in_no_buffer_and_in_each_clients_state(tmp_path):
    file = garments(tmp_path, TRAINED | DECODER_ONLY)
    run(file, tmp_path / "run")
    _, job = job_of(file)
    layout = SerialExecutor(job).layout
    assert {name.split(".")[0] for name in layout.names} == {"decoder"}
    sends = [row for row in rows(tmp_path / "run" / "timeline.jsonl") if row["event"] == "send"]
    assert {row["bytes"] for row in sends} == {layout.nbytes}
    learner = Vae.load(job.scenario.model, LearnerContext(DatasetInfo(1, 28, ())))
    numbers = sum(p.numel() for p in learner.encoder.parameters())
    checkpoint = tmp_path / "run" / "checkpoints" / "round-0003"
    homes = [load_file(checkpoint / f"client-{client}.safetensors")["home"] for client in range(5)]
    assert [home.numel() for home in homes] == [numbers] * 5
    assert not torch.equal(homes[0], homes[1])


def test_a_server_without_the_encoder_measures_no_bound_and_saves_a_decoder_that_still_samples(tmp_path):
    run(garments(tmp_path, TRAINED | DECODER_ONLY), tmp_path / "run")
    metrics = rows(tmp_path / "run" / "metrics.jsonl")[-1]
    assert not [name for name in metrics if name.startswith("eval_")]
    samples = tmp_path / "run" / "samples"
    assert sorted(file.name for file in samples.iterdir()) == ["round-0000.png", "round-0003.png"]
    model = tmp_path / "run" / "model"
    assert {name.split(".")[0] for name in load_file(model / "model.safetensors")} == {"decoder"}
    section = Section.model_validate(TRAINED["model"])
    opened = Vae.from_export(section, LearnerContext(Vae.exported_dataset(section, model)), model)
    assert opened.sample([""], [1], Sampling()).shape == (1, 3, 28, 28)


def test_the_plan_knows_the_files_bytes_and_the_bytes_on_the_air(tmp_path):
    for changes in ({}, DECODER_ONLY):
        file = garments(tmp_path, TRAINED | changes | {"training.rounds": 1, "model": SMALL})
        planned = plan(check(file))
        out = tmp_path / f"run-{len(changes)}"
        run(file, out)
        assert (out / "model" / "model.safetensors").stat().st_size == planned["export_bytes"]
        assert rows(out / "metrics.jsonl")[-1]["bytes_uplink"] == 5 * planned["payload_bytes"]


def test_it_learns(tmp_path):
    """On garments at half of their size: the bound falls, and images are no noise any more."""
    changes = {
        "model": {"kind": "vae", "latent": 8, "channels": [8, 16], "resolution": 16},
        "training.rounds": 2,
        "training.local_steps": 15,
        "training.batch_size": 32,
        "training.clip_norm": 1e6,
        "training.optimizer": {"kind": "adamw", "learning_rate": 3e-3},
    }
    run(garments(tmp_path, changes), tmp_path / "run")
    before = json.loads((tmp_path / "run" / "baseline.json").read_text())
    after = rows(tmp_path / "run" / "metrics.jsonl")[-1]
    assert after["eval_negative_elbo"] < 0.8 * before["eval_negative_elbo"]
    assert (before["eval_active_units"], after["eval_active_units"]) == (0, 8)  # of 8
    sheets = sorted((tmp_path / "run" / "samples").glob("reconstructions-*"))
    assert [sheet.name for sheet in sheets] == ["reconstructions-0000.png", "reconstructions-0002.png"]
    errors = []
    for sheet in sheets:  # two rows of images, each below a gap of 16 pixels
        given, made = np.split(np.array(Image.open(sheet)).astype(float)[16:, ..., 0], 2)
        errors.append(np.abs(given - made).mean())
    assert errors[1] < 0.8 * errors[0], "what is below comes nearer to what is above"


def test_fedray_generate_samples_a_finished_run_and_wants_no_prompt(fedray, tmp_path):
    run(garments(tmp_path, TRAINED | DECODER_ONLY), tmp_path / "run")
    out = tmp_path / "grid.png"
    assert fedray("generate", tmp_path / "run", "--num", 4, "--out", out)[0] == 0
    assert out.stat().st_size
    code, _, err = fedray("generate", tmp_path / "run", "--prompt", "a bag")
    assert (code, "got prompts for a vae, expected none" in err) == (2, True)
