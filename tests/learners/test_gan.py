"""gan: one backward pass for two networks, what travels of them, and what they generate."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import fedray
from fedray.data import DatasetInfo
from fedray.executors.local_training import batches
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.gan import Gan, ImagesAndNoise, Judged
from fedray.learners.learners import load
from fedray.network.radio import Radio
from fedray.planning.plan import plan
from fedray.planning.round import schedule_round
from fedray.randomness import generator, key
from fedray.scenario import Refused, ScenarioError
from fedray.scenario.gan import Gan as Section
from tests.helpers import begun, garments, job_of, rows, run

SMALL = {"kind": "gan", "width": 8, "latent": 6, "resolution": 8, "spectral_norm": True}
LABELS = ("circle", "square", "ankle boot")
ADAM = {"kind": "adamw", "learning_rate": 1e-3, "beta1": 0.5, "weight_decay": 0.0}
FASTER = {**ADAM, "learning_rate": 4e-3}
TRAINING = {
    "rounds": 2,
    "local_steps": 3,
    "batch_size": 8,
    "clip_norm": None,
    "optimizer": ADAM,
    "groups": [{"patterns": ["discriminator.*"], "optimizer": FASTER}],
}
CHANGES = {"model": SMALL | {"conditional": True}, "training": TRAINING}
ONE = CHANGES | {"population": {"clients": 1}, "data.partition": {"kind": "iid"}}


def learner(seed=0, labels=LABELS, channels=1, **changes):
    section = Section.model_validate(SMALL | changes)
    made = Gan.load(section, LearnerContext(DatasetInfo(channels, None, labels), seed=seed))
    for part in made.parts.values():
        part.requires_grad_(True)
    made.prepare_training(gradient_checkpointing=False)
    return made


def batch_of(gan, n=5):
    draws = torch.Generator().manual_seed(7)
    images = torch.rand(n, gan.context.dataset.channels, gan.size, gan.size, generator=draws) * 2 - 1
    noise = torch.randn(n, gan.section.latent, generator=draws)
    labels = torch.arange(n) % len(LABELS) if gan.section.conditional else None
    return ImagesAndNoise(images, noise, labels)


def given(labels):
    return () if labels is None else (labels,)


def loss_of_discriminator(gan, batch):
    """Goodfellow et al. 2014, Eq. 1, or Miyato et al. 2018, Eq. 16, with the generator as it is."""
    with torch.no_grad():
        generated = gan.generator(batch.noise, *given(batch.labels))
    labels = None if batch.labels is None else batch.labels.repeat(2)
    real, fake = gan.discriminator(torch.cat([batch.images, generated]), *given(labels)).chunk(2)
    if gan.section.loss == "hinge":
        return ((1 - real).clamp(min=0) + (1 + fake).clamp(min=0)).mean()
    return (F.softplus(-real) + F.softplus(fake)).mean()


def loss_of_generator(gan, batch):
    logits = gan.discriminator(gan.generator(batch.noise, *given(batch.labels)), *given(batch.labels))
    if gan.section.loss == "hinge":
        return -logits.mean()
    return F.softplus(-logits).mean()


def gradients(loss, part):
    return torch.autograd.grad(loss, list(part.parameters()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"conditional": True, "norm": "group"},
        {"loss": "hinge", "spectral_norm": False, "norm": "none"},
        {"loss": "hinge", "conditional": True},
    ],
    ids=str,
)
def test_one_backward_pass_gives_each_network_the_gradient_of_its_own_loss_to_the_bit(changes):
    gan = learner(**changes)
    batch = batch_of(gan)
    gan.loss(batch).backward()
    alone = learner(**changes)
    of_discriminator = gradients(loss_of_discriminator(alone, batch), alone.discriminator)
    # the generator's pass above has moved running means, which nothing in training reads
    of_generator = gradients(loss_of_generator(alone, batch), alone.generator)
    for part, expected in ((gan.discriminator, of_discriminator), (gan.generator, of_generator)):
        for parameter, gradient in zip(part.parameters(), expected, strict=True):
            assert torch.equal(parameter.grad, gradient)


def test_the_losses_are_the_cross_entropies_of_telling_real_from_generated_images():
    logits = torch.tensor([0.3, -2.0, 4.0])
    real, detached, generated = logits, logits.flip(0), logits * 2
    of_discriminator, of_generator = learner().losses(Judged(real, detached, generated))
    ones, zeros = torch.ones(3), torch.zeros(3)
    cross_entropy = partial(F.binary_cross_entropy_with_logits, reduction="none")
    torch.testing.assert_close(of_discriminator, cross_entropy(real, ones) + cross_entropy(detached, zeros))
    torch.testing.assert_close(of_generator, cross_entropy(generated, ones))


def test_a_step_moves_the_vectors_of_spectral_normalisation_once_and_leaves_none_to_the_generator():
    gan, alone = learner(conditional=True), learner(conditional=True)
    batch = batch_of(gan)
    gan.loss(batch)
    loss_of_discriminator(alone, batch)
    pairs = zip(gan.discriminator.buffers(), alone.discriminator.buffers(), strict=True)
    assert all(torch.equal(ours, once) for ours, once in pairs)
    before = {name: b.clone() for name, b in gan.discriminator.named_buffers()}
    loss_of_discriminator(alone, batch)
    assert any(not torch.equal(before[n], b) for n, b in alone.discriminator.named_buffers())


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (28, 3), (32, 4)])
def test_images_have_the_size_and_the_channels_of_the_data(size, channels):
    gan = learner(resolution=size, channels=channels)
    generated = gan.generator(torch.randn(2, 6))
    assert generated.shape == (2, channels, size, size)
    assert gan.discriminator(generated).shape == (2,)
    assert -1 <= generated.min() <= generated.max() <= 1


def test_a_sample_depends_on_its_own_seed_and_on_the_label_that_its_prompt_names():
    gan = learner(conditional=True)
    for _ in range(20):  # until its running means are those of what it makes
        gan.generator(torch.randn(32, 6), torch.arange(32) % 3)
    prompts = ["a photo of a circle", "an Ankle Boot, worn", "square"]
    together = gan.sample(prompts, [3, 4, 4], Sampling())
    alone = gan.sample(["ankle boot"], [4], Sampling(at_once=1))
    assert together.shape == (3, 3, 8, 8)
    assert torch.allclose(together[1], alone[0], atol=1e-6)
    assert (together[1] - together[2]).abs().max() > 0.01
    assert 0 <= together.min() <= together.max() <= 1


def test_a_prompt_that_names_no_label_is_refused():
    with pytest.raises(Refused, match="prompt: got 'a hat', expected one that names one of circle, square"):
        learner(conditional=True).sample(["a hat"], [0], Sampling())


def test_what_is_saved_is_the_same_model_again(tmp_path):
    gan = learner(conditional=True, channels=3)
    gan.save(tmp_path)
    info = Gan.exported_dataset(gan.section, tmp_path)
    assert (info.channels, info.size, info.label_names) == (3, 8, LABELS)
    opened = Gan.from_export(gan.section, LearnerContext(info, seed=1), tmp_path)
    prompts = ["circle", "square"]
    assert torch.equal(*(one.sample(prompts, [1, 2], Sampling()) for one in (gan, opened)))


# --- FedGAN: both travel, and are averaged every K steps


def trained_apart(executor, rounds):
    """Both networks after these rounds of a single client, each trained by an Adam and a loss of its own."""
    scenario = executor.job.scenario
    gan = load(scenario, executor.job.folder, torch.device("cpu"), torch.float32)
    for part in gan.parts.values():
        part.requires_grad_(True)
    shard = executor.clients.shard(0)
    for t in range(1, rounds + 1):
        optimizers = [
            torch.optim.Adam(gan.discriminator.parameters(), 4e-3, betas=(0.5, 0.999)),
            torch.optim.Adam(gan.generator.parameters(), 1e-3, betas=(0.5, 0.999)),
        ]
        draws = torch.Generator().manual_seed(key(scenario.seed, t, 0, "noise"))
        rng = generator(scenario.seed, t, 0, "batches")
        for indices in batches(scenario.training.batches(len(shard)), len(shard), rng):
            batch = gan.draw(shard, indices, draws)
            means = [b.clone() for b in gan.generator.buffers()]
            of_discriminator = gradients(loss_of_discriminator(gan, batch), gan.discriminator)
            for buffer, mean in zip(gan.generator.buffers(), means, strict=True):
                buffer.copy_(mean)  # that pass is the same one, made again
            vectors = [b.clone() for b in gan.discriminator.buffers()]
            of_generator = gradients(loss_of_generator(gan, batch), gan.generator)
            for buffer, vector in zip(gan.discriminator.buffers(), vectors, strict=True):
                buffer.copy_(vector)
            for part, own in ((gan.discriminator, of_discriminator), (gan.generator, of_generator)):
                for parameter, gradient in zip(part.parameters(), own, strict=True):
                    parameter.grad = gradient
            for optimizer in optimizers:
                optimizer.step()
    return {name: t for name, t in gan._state().items() if not name.endswith("num_batches_tracked")}


def test_fedgan_with_one_client_is_plain_training_by_two_losses_and_two_optimizers(tmp_path):
    executor = begun(garments(tmp_path, ONE))
    for t in (1, 2):
        scenario = executor.job.scenario
        list(executor.run_round(schedule_round(scenario, Radio(scenario.network), t)))
    ours = executor.layout.tensors(executor.buffer)
    expected = trained_apart(executor, 2)
    assert ours.keys() == expected.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5, msg=name)


def test_both_networks_travel_with_their_means_and_the_vectors_of_spectral_normalisation(tmp_path):
    loaded, _ = job_of(garments(tmp_path, ONE))
    planned = plan(loaded)
    gan = learner(labels=("",) * 10, conditional=True)
    state = {n: t for n, t in gan._state().items() if not n.endswith("num_batches_tracked")}
    assert planned["payload_bytes"] == 4 * sum(t.numel() for t in state.values())
    assert planned["trainable_parameters"] == sum(
        p.numel() for part in gan.parts.values() for p in part.parameters()
    )


@pytest.mark.parametrize("home", ["discriminator", "generator"])
def test_a_network_that_stays_at_home_trains_there_and_costs_nothing_on_the_air(home, tmp_path):
    local = {"tuning": {"kind": "full", "local": [f"{home}.*"]}}
    executor = begun(garments(tmp_path, CHANGES | local | {"population": {"clients": 2}}))
    scenario = executor.job.scenario
    list(executor.run_round(schedule_round(scenario, Radio(scenario.network), 1)))
    assert not [name for name in executor.layout.names if name.startswith(home)]
    kept = [executor.client_states[k]["home"] for k in (0, 1)]
    assert not np.array_equal(*kept)
    at_start = executor.clients.model.flat._initial_home.numpy()
    assert all(len(one) == len(at_start) and not np.array_equal(one, at_start) for one in kept)


def test_a_run_shows_a_row_a_label_measures_both_networks_and_generates(fedray, tmp_path):
    from PIL import Image

    model = {"model": SMALL | {"conditional": True, "ema_decay": 0.5}, "population": {"clients": 2}}
    file = garments(tmp_path, CHANGES | model | {"evaluation": {"quality": {"images": 16}}})
    run(file, tmp_path / "run")
    last = rows(tmp_path / "run" / "metrics.jsonl")[-1]
    assert 0 <= last["eval_recognised"] <= 1
    assert last["eval_classifier_fid"] > 0
    for name in ("real", "generated"):
        assert 0 <= last[f"eval_accuracy_{name}"] <= 1
    losses = last["eval_loss_discriminator"] + last["eval_loss_generator"]
    assert losses == pytest.approx(last["eval_loss"], rel=1e-4)
    grid = Image.open(tmp_path / "run" / "samples" / "round-0002.png")
    assert grid.height > 2 * grid.width  # ten rows of four
    code, out, _ = fedray("generate", tmp_path / "run", "--prompt", "an ankle boot", "--json")
    assert code == 0, out
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["labels"][-1] == "ankle boot"
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert {name.split(".")[0] for name in weights} == {"generator", "discriminator"}
    code, _, problem = fedray("generate", tmp_path / "run", "--prompt", "a hat")
    assert code == 2
    assert "expected one that names one of t-shirt" in problem


# --- bad input

WRONG = {
    "one network alone": (
        {"tuning": {"kind": "full", "parts": ["generator"]}},
        "tuning.parts: got .generator., expected .generator, discriminator., which both have to learn",
    ),
    "a network of another model": (
        {"tuning": {"kind": "full", "parts": ["network"]}},
        "tuning.parts: got .network., expected .generator, discriminator.",
    ),
    "a size that cannot be halved twice": (
        {"model": SMALL | {"resolution": 30}},
        "model.resolution: got 30, expected a multiple of 4",
    ),
    "a prompt without a label": (
        {"evaluation": {"prompts": ["a hat"]}},
        "evaluation.prompts: got 'a hat', expected one that names one of t-shirt",
    ),
    "a prompt for images without labels": (
        {"model": SMALL, "evaluation": {"prompts": ["a bag"]}},
        "evaluation.prompts: got some for a gan",
    ),
    "an adapter": (
        {"tuning": {"kind": "lora", "rank": 2}},
        "tuning.kind: got lora, expected full or partial",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_work_is_refused_before_anything_trains(what, tmp_path):
    changes, message = WRONG[what]
    with pytest.raises(ScenarioError, match=message):
        fedray.plan(garments(tmp_path, CHANGES | changes))


def test_labels_are_asked_for_where_there_are_none():
    with pytest.raises(Refused, match=r"model\.conditional: got true for data of 1 labels"):
        learner(conditional=True, labels=("circle",))


# --- MD-GAN: the generator at the server, a discriminator at each client

MD_GAN = CHANGES | {
    "topology": {"kind": "split", "cut": "z", "tail": "discriminator", "may_send": ["labels"]},
    "tuning": {"kind": "full", "local": ["discriminator.*"]},
    "data.partition": {"kind": "iid"},
}
SWAPPED = MD_GAN | {
    "topology": MD_GAN["topology"] | {"swap_every": 1},
    "population": {"clients": 3, "per_round": 3},
    "training": TRAINING | {"rounds": 3, "local_steps": 1},
}


def run_round(executor, t):
    scenario = executor.job.scenario
    schedule = schedule_round(scenario, Radio(scenario.network), t, executor.shared)
    assert all(report.failure is None for report in executor.run_round(schedule))
    return schedule


def test_md_gan_with_one_client_trains_both_networks_as_they_train_together(tmp_path):
    one = {"population": {"clients": 1}}
    cut = begun(garments(tmp_path, MD_GAN | one, "cut.yaml"))
    whole = begun(garments(tmp_path, MD_GAN | one | {"topology": {"kind": "parallel"}}, "whole.yaml"))
    for t in (1, 2):
        for executor in (cut, whole):
            run_round(executor, t)
    ours, theirs = (executor.layout.tensors(executor.buffer) for executor in (cut, whole))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-5, msg=name)
    homes = [executor.client_states[0]["home"] for executor in (cut, whole)]
    np.testing.assert_allclose(*homes, rtol=0, atol=1e-5)


def generator_after_the_mean_gradient(executor, rate):
    """Of all clients, as in Hardy et al. 2019, Algorithm 1, where a server takes one step a time."""
    scenario = executor.job.scenario
    means = []
    for client in range(scenario.population.clients):
        gan = load(scenario, executor.job.folder, torch.device("cpu"), torch.float32)
        gan.generator.requires_grad_(True)
        shard = executor.clients.shard(client)
        rng = generator(scenario.seed, 1, client, "batches")
        (indices,) = batches(scenario.training.batches(len(shard)), len(shard), rng)
        draws = torch.Generator().manual_seed(key(scenario.seed, 1, client, "noise"))
        batch = gan.draw(shard, indices, draws)
        means.append(gradients(loss_of_generator(gan, batch), gan.generator))
    steps = [rate * torch.stack(of_clients).mean(0) for of_clients in zip(*means, strict=True)]
    named = gan.generator.named_parameters()
    return {f"generator.{n}": p.detach() - step for (n, p), step in zip(named, steps, strict=True)}


def test_by_copies_that_take_one_step_of_sgd_md_gans_generator_follows_the_clients_mean_gradient(tmp_path):
    rate = 0.5
    sgd = {"kind": "sgd", "learning_rate": rate}
    changes = {
        # without spectral normalisation, whose vectors the discriminator's own pass moves first
        "model": SMALL | {"conditional": True, "spectral_norm": False},
        "topology": MD_GAN["topology"] | {"variant": "splitfed_v1"},
        "population": {"clients": 3},
        "data.partition": {"kind": "iid", "samples": 40},
        "training": {"rounds": 1, "local_steps": 1, "batch_size": 8, "clip_norm": None, "optimizer": sgd},
    }
    executor = begun(garments(tmp_path, MD_GAN | changes))
    run_round(executor, 1)
    ours = executor.layout.tensors(executor.buffer)
    expected = generator_after_the_mean_gradient(executor, rate)
    assert expected.keys() <= ours.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-6, msg=name)


def test_of_md_gan_cross_noise_and_labels_images_and_their_gradients_and_no_weights(tmp_path):
    loaded, _ = job_of(garments(tmp_path, MD_GAN | {"population": {"clients": 2}}))
    planned = plan(loaded)
    image, noise, label = 8 * 8 * 4, 6 * 4, 8  # bytes
    assert planned["payload_bytes"] == 0
    assert planned["total"]["bytes_downlink"] == 2 * 2 * 3 * 8 * image
    assert planned["total"]["bytes_uplink"] == 2 * 2 * 3 * 8 * (noise + label + image)
    assert planned["client_state_bytes"] == 4 * sum(
        t.numel() for t in learner(labels=("",) * 10, conditional=True).discriminator.state_dict().values()
    )


def test_swapped_discriminators_go_on_with_another_client_and_cost_a_sidelink_transfer_each(tmp_path):
    still = {**ADAM, "learning_rate": 1e-12}
    executor = begun(
        garments(
            tmp_path,
            SWAPPED | {"training.groups": [{"patterns": ["discriminator.*"], "optimizer": FASTER}]},
        )
    )
    assert not [s for s in run_round(executor, 1) if getattr(s, "state", False)]
    before = {k: state["home"] for k, state in executor.client_states.items()}
    groups = executor.clients.model.client.groups
    executor.clients.model.client.groups = [(loaded_optimizer(still), places) for _, places in groups]
    sends = [s for s in run_round(executor, 2) if getattr(s, "state", False)]
    assert {s.direction for s in sends} == {"sidelink"}
    givers = {s.receiver: s.sender for s in sends}
    assert givers.keys() == set(givers.values()) == {0, 1, 2}
    assert all(giver != receiver for receiver, giver in givers.items())
    parameters = slice(-sum(p.numel() for p in executor.clients.learner.discriminator.parameters()), None)
    for receiver, giver in givers.items():
        now = executor.client_states[receiver]["home"][parameters]
        np.testing.assert_allclose(now, before[giver][parameters], rtol=0, atol=1e-9)


def loaded_optimizer(tree):
    from fedray.scenario.optimizer import AdamW

    return AdamW.model_validate(tree)


def test_on_two_actors_md_gan_has_the_weights_and_the_discriminators_of_one_process(
    cluster, weights_alone, tmp_path
):
    one = run(garments(tmp_path, SWAPPED, "one.yaml"), tmp_path / "one")
    ray = {"runtime": {"executor": "ray", "actors": 2}}
    two = run(garments(tmp_path, SWAPPED | ray, "two.yaml"), tmp_path / "two")
    assert one["weights_sha256"] == two["weights_sha256"]
    for client in range(3):
        file = f"checkpoints/round-0003/client-{client}.safetensors"
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    sidelink = [row for row in rows(tmp_path / "two" / "timeline.jsonl") if row["id"].startswith("swap-")]
    assert len(sidelink) == 2 * 3
    planned = plan(job_of(tmp_path / "two.yaml")[0])
    assert {row["bytes"] for row in sidelink} == {planned["client_state_bytes"]}


def test_md_gan_goes_on_after_a_resume_with_the_bits_of_a_whole_run(tmp_path):
    whole = run(garments(tmp_path, SWAPPED, "whole.yaml"), tmp_path / "whole")
    run(garments(tmp_path, SWAPPED | {"training.rounds": 2}, "two.yaml"), tmp_path / "two")
    resumed = fedray.open(tmp_path / "two").resume(rounds=3, progress=False)
    assert resumed.result["weights_sha256"] == whole["weights_sha256"]


WRONG_SPLITS = {
    "labels that may not be sent": (
        {"topology": {"kind": "split", "cut": "z", "tail": "discriminator"}},
        "sends the server each client's labels, expected a tail",
    ),
    "a discriminator at the server": (
        {"topology": {"kind": "split", "cut": "generator", "may_send": ["labels", "images"]}},
        "tuning.local: got discriminator.body.*, which the server trains",
    ),
    "a swap of what travels": (
        {"topology": SWAPPED["topology"], "tuning": {"kind": "full"}},
        "topology.swap_every: got 1, expected none, or weights in tuning.local",
    ),
    "an attack on noise": ({"evaluation": {"leakage": {}}}, "evaluation.leakage: got one for a gan"),
}


@pytest.mark.parametrize("what", WRONG_SPLITS)
def test_what_cannot_work_in_a_split_is_refused_before_anything_trains(what, tmp_path):
    changes, message = WRONG_SPLITS[what]
    with pytest.raises(ScenarioError, match=message):
        fedray.plan(garments(tmp_path, MD_GAN | changes))
