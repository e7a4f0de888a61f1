import json

import numpy as np
import pytest
import torch

from fedray import shipped
from fedray.checks import check
from fedray.data import DatasetInfo
from fedray.data.fashion_mnist import garments as read_garments
from fedray.executors.serial import SerialExecutor
from fedray.learners import codec_linear
from fedray.learners.codec import Codec
from fedray.learners.codec_channels import Awgn, Rayleigh, transmitted
from fedray.learners.codec_linear import LinearCodec, Moments, allocated, capacity, gaussian_distortions
from fedray.learners.contexts import LearnerContext
from fedray.planning.plan import plan
from fedray.scenario import Refused, ScenarioError
from fedray.scenario.codec import AwgnSection, RayleighSection
from fedray.scenario.codec import Codec as Section
from tests.helpers import begin, garments, job_of, rows, run

MODEL = {"kind": "codec", "channel": {"kind": "awgn", "snr_db": [0, 15]}, "width": 4, "hidden": 8}
SMALL = MODEL | {"resolution": 8}
TRAINED = {
    "model": SMALL,
    "training.local_steps": None,
    "training.local_epochs": 1,
    "training.batch_size": 50,
    "training.optimizer": {"kind": "adamw", "learning_rate": 2e-3},
}


def learner(size=8, channels=1, **changes):
    section = Section.model_validate(SMALL | {"resolution": None} | changes)
    return Codec.load(section, LearnerContext(DatasetInfo(channels, size, ("a", "b"))))


def batch_of(made, n=6):
    generator = torch.Generator().manual_seed(0)
    shard = made.blank_shard(n)
    shard.images = torch.randint(256, shard.images.shape, generator=generator, dtype=torch.uint8)
    return made.draw(shard, np.arange(n), generator)


@pytest.fixture(scope="module")
def images():
    """All training images of shipped garments [2500, 784] in 0..1."""
    array = read_garments(shipped.HERE / "fashion_mnist_mini", "train").array
    return torch.tensor(array).flatten(1).float() / 255


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one round in which each client sees each of its images once."""
    folder = tmp_path_factory.mktemp("codec")
    seen = {"snr_db": [0.0], "beside": ["linear", "jpeg", "prompt"]}
    changes = {"training.rounds": 1, "model": MODEL, "evaluation": {"transmission": seen}}
    run(garments(folder, TRAINED | changes), folder / "run")
    return folder / "run"


# The closed form


def test_the_powers_of_two_components_are_those_of_the_conditions_for_a_least_error():
    """l s2 / (p + s2)^2 is the same for both where both have power: l = 4 and 1, s2 = 1, power 4 give
    (p1 + 1) = 2 (p2 + 1), so p1 = 3 and p2 = 1; of a power of .5, all is the first's."""
    powers = allocated(torch.tensor([4.0, 1.0]), torch.tensor([1.0]), 4.0)
    assert powers[0].tolist() == pytest.approx([3.0, 1.0])
    few = allocated(torch.tensor([4.0, 1.0]), torch.tensor([1.0]), 0.5)
    assert few[0].tolist() == pytest.approx([0.5, 0])


def test_no_other_powers_leave_less_error_than_those_that_scipy_finds():
    from scipy.optimize import minimize

    variances = np.array([5.0, 2.0, 0.7, 0.1])
    noise = 0.4

    def error(powers):
        return (variances * noise / (powers + noise)).sum()

    fits = {"type": "eq", "fun": lambda powers: powers.sum() - 2.0}
    found = minimize(error, np.full(4, 0.5), bounds=[(0, 2)] * 4, constraints=fits, tol=1e-12).x
    made = allocated(torch.tensor(variances), torch.tensor([noise], dtype=torch.float64), 2.0)
    assert made[0].tolist() == pytest.approx(found.tolist(), abs=1e-4)


def test_its_error_on_gaussian_images_is_that_of_the_closed_form():
    """The estimate of least squared error leaves l s2 / (p + s2) of each component."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(6, 6, generator=generator) / 4
    sources = torch.randn(200_000, 6, generator=generator) @ mixing.T + 0.5
    variances, vectors = torch.linalg.eigh(mixing @ mixing.T)
    codec = LinearCodec(torch.full((6,), 0.5), variances.flip(0), vectors.flip(1), uses=2)
    snr_db = torch.full((len(sources),), 3.0)
    noise = torch.randn(len(sources), 4, generator=generator)
    symbols = codec.encode(sources, snr_db)
    gain = torch.ones(len(sources))
    arrived = codec.decode(transmitted(symbols, gain, snr_db, noise), snr_db, gain)
    assert float(symbols.square().sum(1).mean()) == pytest.approx(2.0, rel=0.01)
    assert float((arrived - sources).square().mean()) == pytest.approx(
        float(codec.expected_error(snr_db[:1])), rel=0.01
    )


def test_a_channel_use_carries_what_shannon_says():
    assert [capacity(snr_db) for snr_db in (0.0, 10.0)] == pytest.approx([1.0, 3.459432], abs=1e-6)
    assert 98 * capacity(-5.0) == pytest.approx(38.85, abs=0.01), "36 bits of a label and a seed fit"


def test_bits_go_to_gaussian_components_by_reverse_water_filling():
    """Two of variance 4 and 1 with 1.5 bits: at a level of .7071 both have rates, 1.25 and .25 bits."""
    made = gaussian_distortions(torch.tensor([4.0, 1.0], dtype=torch.float64), 1.5)
    assert made.tolist() == pytest.approx([0.5**0.5] * 2, abs=1e-6)
    few = gaussian_distortions(torch.tensor([4.0, 1.0], dtype=torch.float64), 0.5)
    assert few.tolist() == pytest.approx([2.0, 1.0], abs=1e-6), "half a bit is the first's alone"


# What clients' moments add up to


def test_the_mean_of_clients_moments_by_their_samples_is_that_of_all_images(images):
    flat = images.view(-1, 1, 28, 28)[:, :, ::7, ::7].reshape(-1, 16)
    whole = Moments(1, 4)
    whole.add(flat)
    parts = flat.split([100, 900, 1500])
    clients = []
    for part in parts:
        clients.append(Moments(1, 4))
        for batch in part.split(64):
            clients[-1].add(batch)
    shares = [len(part) / 2500 for part in parts]
    for name in ("mean", "second"):
        summed = sum(share * getattr(one, name) for share, one in zip(shares, clients, strict=True))
        assert torch.allclose(summed, getattr(whole, name), atol=1e-6)
    assert np.allclose(whole.covariance(), np.cov(flat.numpy().T, bias=True), atol=1e-6)


def test_after_a_round_the_server_has_the_moments_of_all_clients_images(finished):
    _, job = job_of(finished.parent / "garments.yaml")
    info = DatasetInfo(1, 28, ("a",))
    made = Codec.from_export(job.scenario.model, LearnerContext(info), finished / "model")
    executor = SerialExecutor(job)
    flat = torch.cat([executor.clients.shard(k).images.flatten(1).float() / 255 for k in range(5)])
    assert len(flat) == 2500
    assert torch.allclose(made.encoder.moments.mean, flat.mean(0) - codec_linear.GREY, atol=1e-5)
    expected = torch.cov(flat.T, correction=0).double()
    assert torch.allclose(made.encoder.moments.covariance(), expected, atol=1e-5)


def test_before_any_client_has_told_of_its_images_components_are_nearly_cosines():
    """The first ones of a Markov line: flat, then odd (the cosine transform's derivation)."""
    codec = LinearCodec.of(Moments(1, 8), 4)
    first = codec.components[:, 0].view(8, 8)
    assert (first > 0).all()
    assert float(first.max() / first.min()) < 1.5
    assert float(codec.components[:, 1].sum()) == pytest.approx(0, abs=1e-3)


# Channels


def test_noise_has_the_power_of_its_ratio_and_rayleigh_gains_a_mean_power_of_one():
    generator = torch.Generator().manual_seed(0)
    n = 100_000
    gains = Rayleigh(RayleighSection(kind="rayleigh")).gains(n, generator)
    assert float(gains.square().mean()) == pytest.approx(1.0, abs=0.02)
    assert float(gains.mean()) == pytest.approx(np.sqrt(np.pi) / 2, abs=0.01), "the mean of its amplitude"
    assert float((gains >= 1).float().mean()) == pytest.approx(np.exp(-1), abs=0.01)
    awgn = Awgn(AwgnSection(kind="awgn", snr_db=10.0))
    assert torch.equal(awgn.gains(3, generator), torch.ones(3))
    assert torch.equal(awgn.snrs_db(3, generator), torch.full((3,), 10.0))
    noise = torch.randn(1000, 2 * 49, generator=generator)
    arrived = transmitted(torch.zeros(1000, 98), torch.ones(1000), torch.full((1000,), 10.0), noise)
    assert float(arrived.square().sum(1).mean() / 49) == pytest.approx(0.1, rel=0.02), "a complex symbol's"


def test_each_training_image_draws_its_own_ratio_from_the_range():
    snr_db = batch_of(learner(), 400).snr_db
    assert 0 <= snr_db.min() < 0.5
    assert 14.5 < snr_db.max() <= 15


# The learner


@pytest.mark.parametrize("start", ["linear", "random"])
def test_symbols_keep_to_the_power_whatever_the_network_adds(start, images):
    made = learner(size=28, start=start)
    torch.nn.init.normal_(made.encoder.residual.outer.weight)
    flat = images[:300]
    if start == "linear":
        made.encoder.moments.add(flat)
        made.prepare_round(1)
    made.encoder.eval()
    for snr_db in (-5.0, 15.0):
        symbols = made.encode_images(flat.view(-1, 1, 28, 28), torch.full((300,), snr_db))
        power = symbols.square().sum(1) / made.uses
        assert float(power.mean().detach()) == pytest.approx(1.0, abs=1e-3)
        if start == "random":
            assert torch.allclose(power, torch.ones(300), atol=1e-4)


def test_an_untrained_codec_is_the_linear_analog_codec():
    made = learner()
    batch = batch_of(made)
    flat = batch.images.flatten(1)
    received = transmitted(made.linear.encode(flat, batch.snr_db), batch.gain, batch.snr_db, batch.noise)
    expected = made.linear.decode(received, batch.snr_db, batch.gain).clamp(0, 1)
    assert torch.allclose(made.transmit(batch).flatten(1), expected, atol=1e-4)


def test_what_is_saved_opens_again_with_its_moments(tmp_path):
    made = learner()
    made.encoder.moments.add(torch.rand(50, 64))
    made.save(tmp_path)
    info = Codec.exported_dataset(made.section, tmp_path)
    opened = Codec.from_export(made.section, LearnerContext(info, seed=9), tmp_path)
    batch = batch_of(made)
    assert torch.equal(opened.transmit(batch), made.transmit(batch))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": MODEL | {"channel": {"kind": "awgn", "snr_db": [15, 0]}}}, r"snr_db: got \[15, 0\]"),
        ({"model": MODEL | {"uses": 0.0}}, r"model\.uses: got 0\.0"),
        ({"model": MODEL | {"uses": 0.6}}, r"model\.uses: got 0\.6"),
        ({"model": MODEL | {"task": "poetry"}}, r"model\.task: got"),
        ({"model": MODEL | {"resolution": 30}}, r"model\.resolution: got 30, expected a multiple of 4"),
        ({"model": MODEL, "topology": {"kind": "relay"}}, r"model\.start: got linear in a relay"),
        (
            {"evaluation": {"transmission": {}}},
            r"evaluation\.transmission: got some for a classifier, expected a codec",
        ),
    ],
)
def test_what_does_not_go_with_a_codec_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ScenarioError, match=message):
        job_of(garments(tmp_path, changes))


def test_images_without_room_for_a_symbol_or_with_too_many_numbers_are_refused():
    with pytest.raises(Refused, match=r"model\.uses: got 0\.001, expected at least 1 / 64"):
        learner(uses=0.001)
    with pytest.raises(Refused, match=r"model\.start: got linear for images of 12288 numbers"):
        learner(size=64, channels=3)


# In a federation


def test_moments_are_charged_for_and_every_round_uses_those_that_it_received(tmp_path):
    file = garments(tmp_path, TRAINED | {"training.rounds": 1})
    _, job = job_of(file)
    executor = SerialExecutor(job)
    begin(executor)
    numbers = 64 + 64 * 65 // 2
    assert executor.layout.numel - executor.layout.trained == numbers
    assert plan(check(file))["payload_bytes"] == 4 * executor.layout.numel
    start = torch.from_numpy(executor.initial.view(np.float32).copy())
    ends = []
    for client in (0, 1, 0):  # whoever else a worker has trained before
        executor.clients.run(1, client, start, {})
        ends.append(executor.clients.model.flat.all.detach().clone())
    assert torch.equal(ends[0], ends[2])
    assert not torch.equal(ends[0], ends[1])


def test_a_step_makes_less_of_what_the_linear_codec_leaves():
    """Over and over on the same few images, through both networks and the channel."""
    made = learner(width=8, hidden=32)
    batch = batch_of(made, 16)
    weights = [p.requires_grad_() for part in made.parts.values() for p in part.parameters()]
    optimizer = torch.optim.Adam(weights, lr=1e-2)
    made.prepare_round(1)
    made.encoder.eval()
    losses = []
    for _ in range(30):
        loss = made.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert made.encoder.residual.outer.weight.detach().abs().max() > 0, "through the channel"


def test_a_run_writes_all_ways_beside_each_other(finished):
    last = rows(finished / "metrics.jsonl")[-1]
    samples = finished / "samples"
    names = sorted(file.name for file in samples.iterdir())
    assert names[1::2] == ["reconstructions-0001.png", "round-0001.png", "transmission-0001.json"]
    ways = json.loads((samples / "transmission-0001.json").read_text())["ways"]
    assert set(ways) == {"codec", "linear", "jpeg", "prompt"}
    assert ways["codec"]["0"]["psnr"] == pytest.approx(last["eval_psnr_0db"], abs=1e-3)
    assert ways["linear"]["0"]["psnr"] == pytest.approx(last["eval_psnr_0db_floor"], abs=1e-3)
    assert ways["jpeg"]["0"]["psnr"] < 12, "no file fits"
    assert ways["prompt"]["0"] == {"uses": 36, "recognised": pytest.approx(0.978)}
