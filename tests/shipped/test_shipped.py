import json

import numpy as np
import pytest
import torch
from PIL import Image

from fedray import shipped
from fedray.data import fashion_mnist
from fedray.data.fashion_mnist import LABELS
from fedray.data.image_folder import read as read_folder
from fedray.data.samples import photo_prompt
from fedray.evaluation import judge as judges
from fedray.evaluation import style
from fedray.learners.base_folder import verify

MINI = shipped.HERE / "fashion_mnist_mini"


def size(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def tensor(images):
    return torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1).float() / 255 for i in images])


@pytest.fixture(scope="module")
def tiny_sd():
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(shipped.HERE / "tiny-sd")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_tiny_sd_is_a_whole_pipeline_under_12_mb(tiny_sd):
    assert size(shipped.HERE / "tiny-sd") < 12e6
    assert set(tiny_sd.components) >= {"vae", "text_encoder", "tokenizer", "unet", "scheduler"}
    image = tiny_sd("a photo of a bag", num_inference_steps=2).images[0]
    assert image.size == (32, 32)


def test_tiny_sds_card_says_how_it_was_made_and_what_it_reaches():
    card = json.loads((shipped.HERE / "tiny-sd" / "training.json").read_text())
    assert card["command"].startswith("python tools/train_tiny_sd.py")
    assert {"seed", "data_sha256", "autoencoder", "denoiser", "parameters"} <= set(card)
    assert card["autoencoder"]["steps"]
    assert card["denoiser"]["steps"]
    assert card["denoiser"]["loss"]
    measured = card["measured"]
    assert measured["of"] == 500
    assert measured["photos_recognised"] >= 0.95
    assert measured["judge_sha256"] == judges.load(shipped.HERE / "garments-photo.safetensors").sha256


def test_tiny_sd2_is_as_small_and_says_what_it_knows_of_emoji():
    base = shipped.HERE / "tiny-sd2"
    assert size(base) < 12e6
    verify(base, "model.base")
    card = json.loads((base / "training.json").read_text())
    emoji = json.loads((shipped.HERE / "emoji" / "source.json").read_text())
    assert card["emoji"]["pictures_sha256"] == emoji["pictures_sha256"]
    assert card["measured"]["photos_recognised"] >= 0.95
    assert card["emoji_measured"]["named_nearest"] >= 0.9
    assert card["emoji_measured"]["psnr_db"]["emoji-heldout"] >= 21


def test_tiny_sd2_paints_emoji_by_their_names():
    from diffusers import StableDiffusionPipeline

    emoji = read_folder("shipped:emoji", shipped.HERE, "data", "text", None)
    pictures = tensor([emoji.image(i) for i in range(len(emoji))])
    things = ["red-apple", "tomato", "dress", "rainbow", "dolphin"]
    rows = [[file.stem for file in emoji.files].index(thing) for thing in things]
    pipeline = StableDiffusionPipeline.from_pretrained(shipped.HERE / "tiny-sd2")
    pipeline.set_progress_bar_config(disable=True)
    noise = [torch.Generator().manual_seed(i) for i in rows]
    options = {"num_inference_steps": 12, "guidance_scale": 3.0, "generator": noise, "output_type": "pt"}
    images = pipeline([emoji.captions[i] for i in rows], **options).images.float()
    views = (pictures, pictures.flip(3))  # it learned them mirrored too
    apart = torch.stack([torch.cdist(images.flatten(1), view.flatten(1)) for view in views]).amin(0)
    nearest = apart.argsort(1)[:, :5].tolist()
    assert sum(row in near for row, near in zip(rows, nearest, strict=True)) >= 4


def test_garments_prompted_as_photos_are_recognised(tiny_sd):
    judge = judges.load(shipped.HERE / "garments-photo.safetensors")
    prompts = [photo_prompt(label) for label in LABELS] * 2
    noise = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    images = tiny_sd(
        prompts, generator=noise, num_inference_steps=12, guidance_scale=3.0, output_type="pt"
    ).images
    _, probabilities = judges.look(judge, images.float())
    assert style.recognised(probabilities, style.labels_in(prompts, judge.labels)) >= 0.9


@pytest.mark.parametrize("name", ["garments", "garments-photo"])
def test_a_judge_knows_real_photos_it_was_not_trained_on(name):
    judge = judges.load(shipped.HERE / f"{name}.safetensors")
    assert sorted(judge.labels) == sorted(LABELS)
    garments = fashion_mnist.garments(MINI, "test")
    _, probabilities = judges.look(judge, tensor([garments.image(i) for i in range(len(garments))]))
    assert (
        style.recognised(probabilities, style.labels_in([LABELS[k] for k in garments.labels], judge.labels))
        >= 0.85
    )


def test_the_garments_judge_knows_ink_and_the_photo_judge_does_not():
    held_out = read_folder("shipped:ink-heldout", shipped.HERE, "data", "text", None)
    images = tensor([held_out.image(i) for i in range(len(held_out))])
    share = {}
    for name in ("garments", "garments-photo"):
        judge = judges.load(shipped.HERE / f"{name}.safetensors")
        _, probabilities = judges.look(judge, images)
        share[name] = style.recognised(probabilities, style.labels_in(held_out.captions, judge.labels))
    assert share["garments"] >= 0.85
    assert share["garments-photo"] < 0.5


def test_the_garments_judge_tells_ink_from_photos():
    judge = judges.load(shipped.HERE / "garments.safetensors")
    garments = fashion_mnist.garments(MINI, "test")
    ink, held_out = (
        read_folder(f"shipped:{n}", shipped.HERE, "data", "text", None) for n in ("ink", "ink-heldout")
    )
    features = [judges.look(judge, tensor([f.image(i) for i in range(20)]))[0] for f in (ink, held_out)]
    photos, _ = judges.look(judge, tensor([garments.image(i) for i in range(200)]))
    assert style.feature_distance(photos, features[1]) > 3 * style.feature_distance(features[0], features[1])


def test_a_file_that_is_no_judge_is_refused(tmp_path):
    file = tmp_path / "judge.safetensors"
    whole = (shipped.HERE / "garments.safetensors").read_bytes()
    weights = (shipped.HERE / "tiny-sd" / "text_encoder" / "model.safetensors").read_bytes()
    for content in (b"", b"text", whole[:1000], whole[:-50], weights):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"judge\.safetensors is no judge of garments"):
            judges.load(file)


def test_a_judge_looks_at_32_pixels_only():
    judge = judges.load(shipped.HERE / "garments.safetensors")
    with pytest.raises(ValueError, match=r"images \[N, 3, 32, 32\], not \[2, 3, 64, 64\]"):
        judges.look(judge, torch.zeros(2, 3, 64, 64))
    features, probabilities = judges.look(judge, torch.rand(300, 3, 32, 32))
    assert features.shape == (300, 64)
    assert probabilities.sum(1).allclose(torch.ones(300))


def test_ink_is_five_folders_of_four_captioned_images_and_twenty_held_out():
    ink = read_folder("shipped:ink", shipped.HERE, "data", "text", None)
    assert len(ink) == 20
    assert sorted(map(ink.groups.count, sorted(set(ink.groups)))) == [4] * 5
    held_out = read_folder("shipped:ink-heldout", shipped.HERE, "data", "text", None)
    assert len(held_out) == 20
    for some in (ink, held_out):
        assert all(c.endswith("in ink style") for c in some.captions)
        assert sorted(style.labels_in(some.captions, LABELS).tolist()) == sorted([*range(10), *range(10)])
        assert all(some.image(i).size == (32, 32) for i in range(20))
    assert not {ink.image(i).tobytes() for i in range(20)} & {held_out.image(i).tobytes() for i in range(20)}


def test_fashion_mnist_mini_is_2500_and_500_garments_of_ten_kinds_under_2_mb():
    assert size(MINI) < 2e6
    assert "MIT" in (MINI / "LICENSE").read_text()
    for split, n in (("train", 2500), ("test", 500)):
        garments = fashion_mnist.garments(MINI, split)
        assert len(garments) == n
        assert garments.array.shape == (n, 1, 28, 28)
        assert garments.array.dtype == np.uint8
        assert garments.labels.shape == (n,)
        assert set(garments.labels.tolist()) == set(range(10))
        assert np.bincount(garments.labels).min() > n / 20
        assert garments.label_names == LABELS
    garments = fashion_mnist.garments(MINI, "train")
    assert garments.image(0).size == (32, 32)
    assert garments.image(0).mode == "RGB"
    assert {style.labels_in([c], LABELS)[0].item() for c in garments.captions[:300]} == set(range(10))
    assert np.array_equal(np.array(garments.image(7))[2:-2, 2:-2, 0], garments.array[7, 0])
    assert not np.array(garments.image(7))[[0, 1, -2, -1]].any()


def test_an_article_goes_with_its_garment():
    assert photo_prompt("ankle boot") == "a photo of an ankle boot"
    assert photo_prompt("bag") == "a photo of a bag"


def test_what_ships_is_found_by_name():
    assert shipped.resolve("shipped:ink", Image.__file__) == shipped.HERE / "ink"
    assert shipped.resolve("shipped:garments", Image.__file__) == shipped.HERE / "garments.safetensors"
    with pytest.raises(FileNotFoundError, match="shipped:fashion_mnist_mini"):
        shipped.resolve("shipped:nothing", shipped.HERE)
    calendar = "instructions/calendar.jsonl"
    assert shipped.resolve(f"shipped:{calendar}", shipped.HERE) == shipped.HERE / calendar
    for outside in ("instructions/../devices.json", "instructions//devices.json", "instructions/no.jsonl"):
        with pytest.raises(FileNotFoundError, match="shipped:instructions"):
            shipped.resolve(f"shipped:{outside}", shipped.HERE)
    for name in shipped.names():
        assert shipped.resolve(f"shipped:{name.removesuffix('.safetensors')}", shipped.HERE).exists()
