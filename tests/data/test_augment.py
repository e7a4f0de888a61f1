"""Images that are changed at random while they are trained on: what changes do, who may, and that tests and
the same draws stay what they are."""

import textwrap

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from fedray.data import DatasetInfo, open_source
from fedray.data.augment import Augment
from fedray.learners.contexts import LearnerContext
from fedray.learners.flops import counted_flops
from fedray.learners.learners import learner_class
from fedray.learners.learners import load as loaded
from fedray.learners.pictures import ImageShard
from fedray.planning.plan import plan
from fedray.scenario import Refused, ScenarioError, load
from fedray.scenario.augment import AnyAugment
from fedray.scenario.kinds import implementation
from fedray.scenario.model import Model
from tests.helpers import TWO_ACTORS, UNSEEN, garments, job_of, run, tiny, unevaluated

SECTIONS = TypeAdapter(AnyAugment)
MODELS = TypeAdapter(Model)
ALL = ["flip", {"crop": 2}, {"resize_crop": [0.5, 1]}, {"rotate": 20}, {"color_jitter": {"contrast": 0.3}}]


def images(n=40, channels=3, size=8):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, channels, size, size), generator=generator, dtype=torch.uint8)


def changed(spelled, of, seed=0):
    section = SECTIONS.validate_python(spelled)
    made = implementation(section)(section, of.shape[1], of.shape[-1])
    return made.change(of, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("spelled", ALL, ids=lambda spelled: str(spelled))
def test_a_change_keeps_shape_and_type_leaves_its_input_and_follows_its_generator(spelled, channels):
    of = images(channels=channels)
    before = of.clone()
    once = changed(spelled, of)
    assert once.shape == of.shape
    assert once.dtype == torch.uint8
    assert torch.equal(of, before)
    assert not torch.equal(once, of)
    state = torch.random.get_rng_state()
    assert torch.equal(changed(spelled, of), once)
    assert torch.equal(torch.random.get_rng_state(), state)  # dropout's
    assert not torch.equal(changed(spelled, of, seed=1), once)


def test_a_flip_mirrors_as_many_as_its_probability_says():
    of = images(2000, 1, 2)
    made = changed({"flip": 0.3}, of)
    mirrored = (made == of.flip(-1)).flatten(1).all(1)
    assert (mirrored | (made == of).flatten(1).all(1)).all()
    assert 0.25 < mirrored.float().mean() < 0.36
    assert torch.equal(changed({"flip": 1.0}, of), of.flip(-1))


@pytest.mark.parametrize("fill", [7, "reflect"])
def test_a_crop_is_one_of_the_windows_of_the_padded_image_each_as_likely(fill):
    (of,) = images(1)
    made = changed({"crop": {"padding": 2, "fill": fill}}, of.expand(2000, -1, -1, -1))
    padded = F.pad(of, [2], fill=7) if fill == 7 else F.pad(of, [2], padding_mode="reflect")
    windows = [padded[:, i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
    counts = [int((made == window).flatten(1).all(1).sum()) for window in windows]
    assert sum(counts) == 2000
    assert min(counts) > 40  # of 80


@pytest.mark.parametrize(
    ("spelled", "theirs"),
    [
        ({"resize_crop": {"scale": [0.3, 0.9]}}, v2.RandomResizedCrop(8, (0.3, 0.9), antialias=True)),
        ({"rotate": 30}, v2.RandomRotation(30, v2.InterpolationMode.BILINEAR)),
        ({"color_jitter": {"brightness": 0.4, "hue": 0.2}}, v2.ColorJitter(0.4, 0, 0, 0.2)),
    ],
)
def test_the_others_are_torchvision_s_with_draws_of_each_image_s_own(spelled, theirs):
    of = images()
    seed = int(torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(0)))
    torch.manual_seed(seed)
    assert torch.equal(changed(spelled, of), torch.stack([theirs(image) for image in of]))


# --- learners

LEARNERS = [
    {"kind": "classifier", "network": "cnn"},
    {"kind": "diffusion", "channels": [32, 32], "layers": 1, "attention": []},
    {"kind": "gan"},
    {"kind": "vae", "latent": 3, "channels": [4, 6]},
    {"kind": "transformer", "objective": "classification", "layers": 1, "width": 8, "heads": 2, "patch": 4},
    {"kind": "codec", "channel": {"kind": "awgn", "snr_db": [0, 15]}, "width": 4, "hidden": 8},
]


def learner(model, *spelled, size=16):
    section = MODELS.validate_python(model)
    augment = tuple(SECTIONS.validate_python(one) for one in spelled)
    context = LearnerContext(DatasetInfo(1, size, ("a", "b")), augment=augment)
    return learner_class(section).load(section, context)


@pytest.mark.parametrize("model", LEARNERS, ids=lambda model: model["kind"])
def test_every_learner_of_images_trains_on_changed_ones_and_is_tested_on_them_as_they_are(model):
    made = learner(model, {"flip": 1.0})
    shard = ImageShard(images(4, 1, 16), torch.tensor([0, 1, 0, 1]))
    chosen = np.array([2, 1])

    def drawn(draw):
        return draw(shard, chosen, torch.Generator().manual_seed(0))

    trained = drawn(made.draw_training)
    plain = drawn(made.draw)
    assert torch.equal(trained.images, plain.images.flip(-1))
    made.refuse_augment(made.blank_shard(2))
    without = learner(model)
    assert torch.equal(drawn(without.draw_training).images, plain.images)


def test_changes_are_drawn_anew_in_each_step_and_alike_in_serial_and_in_actors(tmp_path, cluster):
    def digest(name, **changes):
        file = garments(tmp_path, {"training.local_steps": 2, **changes}, f"{name}.yaml")
        with unevaluated():
            return run(file, tmp_path / name)["weights_sha256"]

    augment = {"data.augment": ALL}
    serial = digest("serial", **augment)
    assert serial == digest("actors", **augment, runtime=TWO_ACTORS)
    assert serial != digest("plain")


def test_a_user_s_own_change_is_one_and_what_it_gets_wrong_is_its_client_s_failure(tmp_path):
    code = "\n".join(Augment.__doc__.split("\n")[2:7])
    (tmp_path / "darker.py").write_text(f"import fedray\nimport torch\n{textwrap.dedent(code)}\n")
    file = garments(tmp_path, {"data.augment": ["darker:Darken"]})
    made = implementation(load(file).scenario.data.augment[0])(None, 1, 8)
    of = images(100, 1, 8)
    shares = made.change(of, torch.Generator().manual_seed(0)).sum((1, 2, 3)) / of.sum((1, 2, 3))
    assert 0.45 < shares.min() < 0.6
    assert 0.9 < shares.max() <= 1
    assert run(file, tmp_path / "out")["status"] == "done"
    wrong = code.replace(".to(torch.uint8)", "")
    (tmp_path / "brighter.py").write_text(f"import fedray\nimport torch\n{textwrap.dedent(wrong)}\n")
    with pytest.raises(Exception, match=r"got \[8, 1, 28, 28\] torch.float32 of .*, expected uint8 images"):
        run(garments(tmp_path, {"data.augment": ["brighter:Darken"]}, "wrong.yaml"), tmp_path / "wrong")


def test_samples_of_one_s_own_that_are_more_than_images_are_refused():
    made = learner(LEARNERS[0], "flip")
    with pytest.raises(Refused, match=r"data\.augment: got flip for samples that are no images alone"):
        made.refuse_augment({"images": None, "masks": None})


# --- latents


def test_latents_are_flipped_by_encoding_both_which_the_plan_counts(tmp_path):
    def made(name, *augment):
        _, job = job_of(tiny(tmp_path, {"data.augment": list(augment), **UNSEEN}, f"{name}.yaml"))
        return loaded(job.scenario, job.folder, torch.device("cpu"), torch.float32, job.dataset)

    flipping = made("flip", {"flip": 1.0})
    samples = open_source(load(tmp_path / "flip.yaml").scenario.data, tmp_path)
    shard = flipping.encode_client(0, samples, np.arange(2))
    mean, std = shard.mirrored
    chosen = flipping.augmented(shard, np.array([1, 0]), torch.Generator())
    assert torch.equal(chosen.mean, mean[[1, 0]])
    assert torch.equal(chosen.std, std[[1, 0]])
    assert chosen.texts.tolist() == shard.texts[[1, 0]].tolist()
    pixels = torch.from_numpy(samples.pixels(np.array([0]), flipping.size).copy()).float() / 255
    with torch.no_grad():
        theirs = flipping.vae.encode(pixels.flip(-1) * 2 - 1).latent_dist.mean
    assert torch.allclose(mean[:1], theirs, atol=1e-5)
    assert flipping.encode(samples, np.arange(2)).mirrored is None
    pixels = torch.zeros(1, 3, flipping.size, flipping.size)
    once = counted_flops(lambda: flipping.vae.encode(pixels))
    assert flipping.encode_flops() - made("plain").encode_flops() == once > 0


# --- what is refused


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ([{"flp": 0.5}], "data.augment.0.kind: got 'flp', expected 'flip' or"),
        ([{"flip": 1.5}], "data.augment.0.flip: got 1.5, expected at most 1"),
        ([{"crop": 0}], "data.augment.0.crop: got 0, expected at least 1"),
        ([{"color_jitter": 3}], "data.augment.0.kind: got color_jitter with 3, expected its keys"),
        ([{"color_jitter": {}}], "got color_jitter of nothing, expected one of brightness"),
        (["flip", {"resize_crop": [0.9, 0.5]}], "data.augment.1.scale: got [0.9, 0.5], expected the smaller"),
        ([{"resize_crop": [0.5, 2.0]}], "data.augment.0.scale: got [0.5, 2.0], expected at most 1"),
    ],
)
def test_changes_that_are_none_are_refused(tmp_path, augment, message):
    with pytest.raises(ScenarioError) as caught:
        load(garments(tmp_path, {"data.augment": augment}))
    assert any(message in problem for problem in caught.value.problems), caught.value.problems


def test_changes_that_do_not_fit_images_are_refused_by_the_plan(tmp_path):
    for augment, message in (
        ({"crop": 28}, "crop with padding 28, expected less than 28 pixels"),
        ({"color_jitter": {"hue": 0.1}}, "saturation or hue of grey images"),
    ):
        with pytest.raises(ScenarioError, match=message):
            plan(load(garments(tmp_path, {"data.augment": [augment]})))


def test_texts_and_latents_are_refused_what_only_pixels_can(tmp_path):
    with pytest.raises(ScenarioError, match=r"data\.augment\.1: got crop for a text_to_image, expected flip"):
        load(tiny(tmp_path, {"data.augment": ["flip", {"crop": 4}]}))
    text = {"kind": "text", "path": "shipped:shakespeare", "partition": {"kind": "folder"}}
    with pytest.raises(ScenarioError, match=r"data\.augment\.0: got flip of samples, expected none: they"):
        load(garments(tmp_path, {"data": text | {"augment": ["flip"]}}))


def test_augment_says_the_same_in_short_and_in_full(tmp_path):
    spelled = ["flip", {"crop": 4}, {"rotate": {"degrees": 5, "fill": 9}}]
    short = load(garments(tmp_path, {"data.augment": spelled}))
    full = [
        {"kind": "flip", "probability": 0.5},
        {"kind": "crop", "padding": 4, "fill": 0},
        {"kind": "rotate", "degrees": 5.0, "fill": 9},
    ]
    assert [one.model_dump() for one in short.scenario.data.augment] == full
    assert load(garments(tmp_path, {"data.augment": full})).scenario.data == short.scenario.data
