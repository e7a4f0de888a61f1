"""`evaluation.features`: in whose features images are compared, against the libraries that have them."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from fedray.checks import check
from fedray.data import holdings
from fedray.data.samples import pixels_of
from fedray.evaluation.features import open_features
from fedray.evaluation.quality import distances
from fedray.learners.contexts import EvaluationContext
from fedray.planning.plan import plan
from fedray.scenario import Refused, ScenarioError
from fedray.scenario.features import Clip, Dino, Inception
from tests.helpers import garments, job_of, run, tiny
from tests.learners.families.tiny_bases import tokenizer

CPU = torch.device("cpu")
TEXTS = ["a photo of a bag", "a photo of a sneaker in ink style", "a photo of a bag"]
VAE = {"kind": "vae", "latent": 4, "channels": [4, 8], "resolution": 8}
MINE = '''"""Mean colours."""

import fedray


class MeanColours(fedray.Features):
    def features(self, images):
        return images.float().mean((2, 3))
'''


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Random networks of the kinds that are opened: their folders, which are named after them."""
    from transformers import (
        BitImageProcessor,
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        Dinov2Config,
        Dinov2Model,
    )

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("networks")
    known = tokenizer()
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = small | {
        "vocab_size": len(known),
        "max_position_embeddings": known.model_max_length,
        "eos_token_id": known.eos_token_id,
    }
    vision = small | {"image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).save_pretrained(
        folder / "clip"
    )
    crop = {"height": 32, "width": 32}
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=crop)
    CLIPProcessor(images, known).save_pretrained(folder / "clip")
    dino = {k: v for k, v in small.items() if k != "intermediate_size"} | {"image_size": 28, "patch_size": 14}
    Dinov2Model(Dinov2Config(**dino)).save_pretrained(folder / "dino")
    crop = {"height": 28, "width": 28}
    BitImageProcessor(size={"shortest_edge": 28}, crop_size=crop).save_pretrained(folder / "dino")
    return folder


@pytest.fixture(scope="module")
def images():
    return torch.randint(256, (3, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_fid_precision_and_recall_are_those_of_torch_fidelity():
    draws = np.random.default_rng(0)
    real = torch.from_numpy(draws.normal(size=(120, 6))).float()
    made = torch.from_numpy(0.7 * draws.normal(size=(120, 6)) + 0.4).float()
    ours = distances(real, made, 0)
    theirs = prc_features_to_metric(made, real, verbose=False)
    assert (ours["precision"], ours["recall"]) == pytest.approx((theirs["precision"], theirs["recall"]))
    assert ours["precision"] > ours["recall"] > 0.1
    statistics = [fid_features_to_statistics(x.double()) for x in (made, real)]
    fid = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert ours["fid"] == pytest.approx(fid, rel=1e-4)


def test_clips_features_and_score_are_those_of_transformers(folders, images):
    from transformers import CLIPModel, CLIPProcessor

    features = open_features(Clip(kind="clip", weights=str(folders / "clip")), folders, CPU)
    network = CLIPModel.from_pretrained(folders / "clip").eval()
    processor = CLIPProcessor.from_pretrained(folders / "clip")
    given = processor(text=TEXTS, images=list(images), padding=True, return_tensors="pt")
    with torch.no_grad():
        out = network(**given)
    seen = features.in_chunks(images)
    assert seen.shape == (3, 12)
    assert torch.allclose(torch.nn.functional.normalize(seen, dim=1), out.image_embeds, atol=1e-5)
    cosine = out.logits_per_image.diag() / network.logit_scale.exp()  # what Hessel et al. 2021 call cos(c, v)
    assert torch.allclose(features.score(images, TEXTS), (100 * cosine).clamp(min=0), atol=1e-3)


def test_dinos_features_are_the_class_token_of_transformers(folders, images):
    from transformers import BitImageProcessor, Dinov2Model

    features = open_features(Dino(kind="dino", weights="dino"), folders, CPU)
    given = BitImageProcessor.from_pretrained(folders / "dino")(list(images), return_tensors="pt")
    with torch.no_grad():
        expected = Dinov2Model.from_pretrained(folders / "dino").eval()(**given).pooler_output
    assert torch.allclose(features.in_chunks(images), expected, atol=1e-5)


def test_inceptions_features_are_torch_fidelitys_of_a_file_that_brings_no_code(tmp_path, images, monkeypatch):
    with monkeypatch.context() as patch:  # there are no weights here: random ones
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        patch.setattr(
            "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {}
        )
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    features = open_features(Inception(kind="inception", weights="weights.pth"), tmp_path, CPU)
    assert torch.equal(features.in_chunks(images[:1]), network(images[:1])[0])
    torch.save({"state": tmp_path}, tmp_path / "code.pth")
    with pytest.raises(Refused, match=r"evaluation\.features\.weights: got .*code\.pth, which is none"):
        open_features(Inception(kind="inception", weights="code.pth"), tmp_path, CPU)


def test_a_run_measures_in_each_of_several_features_and_records_their_weights(folders, tmp_path):
    (tmp_path / "my_features.py").write_text(MINE)
    features = ["my_features:MeanColours", {"kind": "dino", "weights": str(folders / "dino")}]
    evaluation = {"quality": {"images": 16}, "features": features, "images_per_prompt": 1}
    file = garments(tmp_path, {"model": VAE, "evaluation": evaluation, "training.rounds": 1})
    final = run(file, tmp_path / "run")["final"]
    for name in ("meancolours", "dino"):
        assert final[f"eval_{name}_fid"] > 0
        assert 0 <= final[f"eval_{name}_recall"] <= 1
    assert "eval_classifier_fid" not in final
    recorded = json.loads((tmp_path / "run" / "env.json").read_text())
    weights = (folders / "dino" / "model.safetensors").read_bytes()
    assert recorded["features"] == {"dino": hashlib.sha256(weights).hexdigest()}
    assert [*recorded["code"]] == ["my_features"]


def test_prompts_are_scored_beside_the_captions_of_real_images(folders, tmp_path):
    clip = {"kind": "clip", "weights": str(folders / "clip")}
    quality = {"quality": {"images": 16}, "features": clip, "inference_steps": 1, "guidance_scale": 1.0}
    data = {"kind": "fashion_mnist_mini", "partition": {"kind": "iid", "samples": 4}}
    changes = {"data": data, "training.rounds": 1, "evaluation": quality, "model.resolution": 16}
    final = run(tiny(tmp_path, changes), tmp_path / "run")["final"]
    assert 0 <= final["eval_clip_score"] <= 100
    assert 0 <= final["eval_clip_score_floor"] <= 100
    assert final["eval_quality_images"] == 16


def test_real_images_are_the_held_out_ones_where_there_is_no_test_set(tmp_path):
    loaded, job = job_of(tiny(tmp_path, {"data.holdout": 0.5}))
    context = EvaluationContext.of(loaded.scenario, job.folder, tmp_path / "sheet.png", job.dataset)
    trained = np.concatenate(list(holdings(loaded.scenario, job.folder)[1].values()))
    real = context.real()[1]
    assert np.array_equal(np.sort([*trained, *real]), np.arange(len(job.dataset.train)))


def test_real_images_are_cut_square_where_features_have_no_size_of_their_own():
    assert pixels_of(Image.new("RGB", (30, 20)), 8).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ("clipp", r"evaluation\.features\.kind: got 'clipp', .*clip"),
        (
            {"kind": "clip", "weights": "nowhere"},
            r"weights: got 'nowhere', which is no folder and not",
        ),
        ("dino", r"got 'facebook/dinov2-base', which .* `hf download facebook/dinov2-base` has fetched"),
        (
            {"kind": "dino", "weights": "."},
            r"weights: got '\.' without config\.json, expected model",
        ),
        ("inception", r"evaluation\.features\.weights: got none, and no .*6726825d\.pth, expected"),
        (["garments", "garments"], r"evaluation\.features: got garments twice, expected each kind once"),
        ([], r"evaluation\.features: got 0 of them, expected at least 1"),
    ],
    ids=["near", "no folder", "not cached", "not whole", "no file", "twice", "none"],
)
def test_features_that_cannot_be_seen_are_refused_with_what_to_do(features, said, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    evaluation = {"quality": {"images": 16}, "features": features}
    with pytest.raises(ScenarioError, match=r":\d+: .*" + said):
        check(garments(tmp_path, {"model": VAE, "evaluation": evaluation}))


def test_features_without_quality_are_refused_and_so_is_a_folder_of_another_network(folders, tmp_path):
    with pytest.raises(ScenarioError, match=r"features: got some alone, expected evaluation\.quality"):
        check(garments(tmp_path, {"model": VAE, "evaluation": {"features": "garments"}}))
    other = {"quality": {"images": 16}, "features": {"kind": "clip", "weights": str(folders / "dino")}}
    with pytest.raises(ScenarioError, match=r"which is no CLIPModel"):  # before anything trains
        plan(check(garments(tmp_path, {"model": VAE, "evaluation": other})))
