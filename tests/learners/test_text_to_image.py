from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedray import shipped
from fedray.checks import check
from fedray.data import open_source
from fedray.executors.serial import SerialExecutor
from fedray.learners.bases import locate
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.latents import NoisedLatents
from fedray.learners.learners import NO_DATA
from fedray.learners.text_to_image import TextToImage
from fedray.scenario.text_to_image import TextToImage as Section
from fedray.scenario.tuning import Full, Lora
from fedray.tuning.tunings import tuning
from tests.helpers import PROMPT, UNSEEN, begin, job_of, tiny


def learner(compute=torch.float32, **section):
    section = Section(kind="text_to_image", base="tiny-sd", **section)
    return TextToImage.load(section, LearnerContext(NO_DATA, compute=compute))


@pytest.fixture(scope="module")
def samples():
    loaded = check(shipped.scenarios()["quickstart"])
    return open_source(loaded.scenario.data, loaded.folder)


def a_batch(model, samples, n=4, seed=0):
    shard = model.encode(samples, np.arange(n))
    return model.draw(shard, np.arange(n), torch.Generator().manual_seed(seed))


def test_latents_are_the_autoencoders_mean_and_deviation_the_same_each_time(samples):
    model = learner()
    shard, again = model.encode(samples, np.array([3, 1])), model.encode(samples, np.array([3, 1]))
    assert all(torch.equal(getattr(shard, k), getattr(again, k)) for k in ("mean", "std"))
    assert all(torch.equal(getattr(shard, k)["text"], getattr(again, k)["text"]) for k in ("ids", "hidden"))
    pixels = torch.from_numpy(np.array(samples.image(1))).permute(2, 0, 1).float()[None] / 127.5 - 1
    with torch.no_grad():
        posterior = model.vae.encode(
            F.interpolate(pixels, (32, 32)) if pixels.shape[-1] != 32 else pixels
        ).latent_dist
    assert torch.allclose(shard.mean[1:], posterior.mean, atol=1e-5)
    assert torch.allclose(shard.std[1:], posterior.std, atol=1e-5)
    assert len(shard) == 2
    assert shard.mean.shape[1:] == model.latent_shape


def test_an_images_latents_do_not_depend_on_its_neighbours(samples):
    model = learner()
    together, alone = model.encode(samples, np.arange(3)), model.encode(samples, np.array([1]))
    assert torch.equal(together.mean[1], alone.mean[0])


def test_text_is_embedded_once_where_its_encoder_is_frozen_and_kept_as_tokens_where_it_trains(samples):
    frozen = learner()
    tuning(Lora(kind="lora", rank=2, targets="attention"), 0).apply(frozen)
    shard = frozen.encode(samples, np.arange(2))
    assert shard.hidden is not None
    assert not shard.hidden["text"].requires_grad
    with torch.no_grad():
        assert torch.equal(
            shard.hidden["text"][:2],
            frozen.parts["text_encoder"](frozen.tokenize([samples.captions[0], samples.captions[1], ""]))[0][
                :2
            ],
        )
    calls = []
    frozen.parts["text_encoder"].register_forward_hook(lambda *_: calls.append(1))
    frozen.loss(frozen.draw(shard, np.arange(2), torch.Generator()))
    assert calls == []

    trains = learner()
    tuning(Lora(kind="lora", rank=2, targets="kohya"), 0).apply(trains)
    shard = trains.encode(samples, np.arange(2))
    assert shard.hidden is None
    assert trains.draw(shard, np.arange(2), torch.Generator()).text.dtype == torch.int64


def test_a_caption_of_many_samples_is_embedded_once_and_a_few_at_a_time(samples):
    model = learner(caption_dropout=0.0)
    tuning(Lora(kind="lora", rank=2, targets="attention"), 0).apply(model)
    sizes = []
    model.parts["text_encoder"].register_forward_hook(lambda *call: sizes.append(len(call[1][0])))
    captions = ["a photo" + " of" * (i % 20) for i in range(30)]
    many = SimpleNamespace(image=lambda i: samples.image(0), captions=captions, pads=False)
    shard = model.encode(many, np.arange(30))
    assert sizes == [16, 5]  # 20 captions and the empty one
    batch = model.draw(shard, np.array([23, 3, 4]), torch.Generator())
    with torch.no_grad():
        alone = model.parts["text_encoder"](model.tokenize([captions[3]]))[0]
    assert torch.equal(batch.text[:2], alone.expand(2, -1, -1))
    assert not torch.equal(batch.text[2], batch.text[1])


def test_both_ways_of_keeping_text_give_the_same_loss(samples):
    model = learner()
    batch = a_batch(model, samples, 2)
    tokens = model.tokenize([samples.captions[0], samples.captions[1]])
    with torch.no_grad():
        assert model.loss(batch) == pytest.approx(
            model.loss(NoisedLatents(batch.latents, batch.noise, batch.timesteps, tokens)).item(), rel=1e-5
        )


def test_a_draw_is_the_generators_alone(samples):
    model = learner()
    one, same, other = a_batch(model, samples), a_batch(model, samples), a_batch(model, samples, seed=1)
    for name in ("latents", "noise", "timesteps", "text"):
        assert torch.equal(getattr(one, name), getattr(same, name))
    assert not torch.equal(one.noise, other.noise)
    assert not torch.equal(one.latents, other.latents)
    assert one.timesteps.min() >= 0
    assert one.timesteps.max() < 1000


def test_captions_are_dropped_as_often_as_asked(samples):
    model = learner(caption_dropout=0.25)
    shard = model.encode(samples, np.arange(1))
    batch = model.draw(shard, np.zeros(2000, int), torch.Generator().manual_seed(0))
    dropped = sum(torch.equal(text, shard.hidden["text"][-1]) for text in batch.text)
    assert 400 < dropped < 600
    assert not torch.equal(shard.hidden["text"][0], shard.hidden["text"][-1])


def by_hand(model, batch):
    """[b]: squared error of each sample, and its signal-to-noise ratio."""
    alpha = model.family.noise.schedule.alphas_cumprod[batch.timesteps]
    a = alpha.view(-1, 1, 1, 1)
    with torch.no_grad():
        noisy = a.sqrt() * batch.latents + (1 - a).sqrt() * batch.noise
        predicted = model.parts["unet"](noisy, batch.timesteps, batch.text).sample
    velocity = model.family.noise.schedule.config.prediction_type == "v_prediction"
    target = a.sqrt() * batch.noise - (1 - a).sqrt() * batch.latents if velocity else batch.noise
    return (predicted - target).square().mean((1, 2, 3)), alpha / (1 - alpha), velocity


def test_the_loss_is_the_mean_squared_error_of_what_the_network_predicts(samples):
    model = learner()
    batch = a_batch(model, samples)
    error, _, _ = by_hand(model, batch)
    assert model.loss(batch).item() == pytest.approx(error.mean().item(), rel=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("gamma", [0.5, 5.0])
def test_min_snr_weighting_is_its_papers_formula(prediction, gamma, samples):
    model = learner(min_snr_gamma=gamma)
    model.family.noise.schedule.register_to_config(prediction_type=prediction)
    batch = a_batch(model, samples)
    batch.timesteps = torch.tensor([1, 200, 600, 998])
    error, snr, velocity = by_hand(model, batch)
    weight = torch.minimum(snr, torch.full_like(snr, gamma)) / (snr + 1 if velocity else snr)
    assert velocity == (prediction == "v_prediction")
    assert snr.max() > gamma > snr.min()
    assert model.loss(batch).item() == pytest.approx((weight * error).mean().item(), rel=1e-4)


def test_gradient_checkpointing_gives_the_same_loss_and_gradient(samples):
    found = []
    for checkpointing in (False, True):
        model = learner()
        named = tuning(Full(kind="full", parts=["unet", "text_encoder"]), 0).apply(model).travelling
        model.prepare_training(checkpointing)
        loss = model.loss(a_batch(model, samples, 2))
        loss.backward()
        found.append(
            (loss.item(), torch.cat([p.grad.flatten() for p in named.values() if p.grad is not None]))
        )
    (loss, gradient), (loss2, gradient2) = found
    assert loss == loss2
    assert torch.isfinite(gradient).all()
    assert (gradient - gradient2).norm() <= 1e-5 * gradient.norm()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_turn_in_half_precision_is_finite_moves_the_adapter_and_follows_fp32(precision, tmp_path):
    losses = {}
    for name in ("fp32", precision):
        _, job = job_of(
            tiny(tmp_path, UNSEEN | {"training.precision": name, "training.local_steps": 2}, f"{name}.yaml")
        )
        executor = SerialExecutor(job)
        begin(executor)
        buffer, report, _ = executor.clients.train(1, 0, executor.buffer)
        assert report.failure is None
        assert report.trained == 8
        assert executor.layout.precision == name
        assert executor.layout.flat(buffer).isfinite().all()
        assert not np.array_equal(buffer, executor.buffer)
        losses[name] = report.loss
    assert losses[precision] == pytest.approx(losses["fp32"], rel=0.05)


def test_what_a_seed_draws_does_not_depend_on_its_neighbours():
    model = learner()
    prompts = [PROMPT, "a photo of a bag", "a photo of a dress"]
    together = model.sample(prompts, [1, 2, 3], Sampling(steps=2, at_once=3))
    apart = model.sample(prompts, [1, 2, 3], Sampling(steps=2, at_once=2))
    assert together.shape == (3, 3, 32, 32)
    assert together.min() >= 0
    assert together.max() <= 1
    assert (together - apart).abs().max() < 2 / 255
    assert torch.equal(model.sample(prompts, [1, 2, 3], Sampling(steps=2, at_once=3)), together)


def test_looking_leaves_the_parts_in_their_modes():
    model = learner()
    tuning(Lora(kind="lora", rank=2, targets="kohya", dropout=0.5), 0).apply(model)
    model.prepare_training(False)
    before = {name: part.training for name, part in model.parts.items()}
    one, two = (model.sample([PROMPT], [0], Sampling(steps=2)) for _ in range(2))
    assert torch.equal(one, two)  # dropout is off while looking
    assert before == {name: part.training for name, part in model.parts.items()}
    assert before["unet"]
    assert before["text_encoder"]
    assert not before["vae"]


def test_dropout_is_keyed_by_round_and_client(tmp_path):
    _, job = job_of(tiny(tmp_path, UNSEEN | {"tuning.dropout": 0.3}))
    executor = SerialExecutor(job)
    begin(executor)

    def turn(t, client):
        return executor.clients.train(t, client, executor.buffer)[1].loss

    first = turn(1, 0)
    turn(1, 1)
    assert turn(1, 0) == first != turn(2, 0)


def test_a_local_folder_in_diffusers_layout_is_a_base_like_any_other(tmp_path):
    import shutil

    shutil.copytree(shipped.HERE / "tiny-sd", tmp_path / "mine" / "sd")
    mine = locate("sd", tmp_path / "mine")
    assert mine.source == str((tmp_path / "mine" / "sd").resolve())
    assert locate(str(tmp_path / "mine" / "sd"), Path()).source == mine.source
    section = Section(kind="text_to_image", base="sd")
    theirs, ours = TextToImage.load(section, LearnerContext(NO_DATA, tmp_path / "mine")), learner()
    assert all(
        torch.equal(a, b)
        for a, b in zip(theirs.parts["unet"].parameters(), ours.parts["unet"].parameters(), strict=True)
    )


def test_the_meta_network_is_the_loaded_ones_twin():
    section = Section(kind="text_to_image", base="tiny-sd")
    meta, real = TextToImage.load(section, LearnerContext(NO_DATA, device=torch.device("meta"))), learner()
    for name, part in real.parts.items():
        assert {n: p.shape for n, p in part.named_parameters()} == {
            n: p.shape for n, p in meta.parts[name].named_parameters()
        }
    assert all(p.is_meta for part in meta.parts.values() for p in part.parameters())
    assert meta.resolution == real.resolution == 32
    assert meta.latent_shape == real.latent_shape
