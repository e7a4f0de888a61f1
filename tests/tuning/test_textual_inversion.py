"""New tokens train alone, travel in every topology, and open in diffusers with the image fedray makes."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from fedray import shipped
from fedray.checks import check
from fedray.executors import Job
from fedray.executors.model import Model
from fedray.learners.base_texts import cut_captions
from fedray.learners.bases import locate
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.learners import NO_DATA
from fedray.learners.text_to_image import NoisedLatents, TextToImage
from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from fedray.scenario.base import Refused
from fedray.scenario.text_to_image import TextToImage as Section
from fedray.scenario.textual_inversion import TextualInversion
from fedray.transport.buffer import Layout
from fedray.tuning.tunings import tuning
from tests.helpers import PROMPT, UNSEEN, run, tiny
from tests.learners.families.tiny_bases import sdxl

BASE = shipped.HERE / "tiny-sd"
TOKEN = "<ink>"
INK = {
    "kind": "textual_inversion",
    "token": TOKEN,
    "stands_for": "ink",
    "initializer": "photo",
    "vectors": 2,
}
CHANGES = UNSEEN | {"tuning": INK, "training.optimizer.learning_rate": 0.2, "training.local_steps": 2}
NAMED = PROMPT.replace("ink", TOKEN)


def tuned(base="tiny-sd", device="cpu", **changes):
    context = LearnerContext(NO_DATA, device=torch.device(device))
    learner = TextToImage.load(Section(kind="text_to_image", base=str(base)), context)
    made = tuning(TextualInversion(**(INK | changes)), 0)
    return learner, made, made.apply(learner)


def picture(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    given = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "np", "generator": generator}
    return pipeline(NAMED, height=32, width=32, **given).images[0]


@pytest.fixture(scope="module", params=["tiny-sd", "sdxl"])
def trained(request, tmp_path_factory):
    """A base and the run folder of two parallel rounds on it."""
    base = BASE if request.param == "tiny-sd" else sdxl(tmp_path_factory.mktemp("base") / "base")
    folder = tmp_path_factory.mktemp("run")
    changes = CHANGES | {"model.base": str(base), "topology": {"kind": "parallel"}}
    run(tiny(folder, changes), folder / "run")
    return base, folder / "run"


def test_the_untouched_base_with_the_embeddings_makes_the_exported_pipelines_and_fedrays_picture(trained):
    from diffusers import DiffusionPipeline

    base, folder = trained
    model = folder / "model"
    expected = picture(DiffusionPipeline.from_pretrained(model))
    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.load_textual_inversion(model, weight_name="learned_embeds.safetensors")
    if (model / "learned_embeds_2.safetensors").exists():
        second = {"text_encoder": pipeline.text_encoder_2, "tokenizer": pipeline.tokenizer_2}
        pipeline.load_textual_inversion(model, weight_name="learned_embeds_2.safetensors", **second)
    assert np.abs(picture(pipeline) - expected).max() < 1 / 255
    section = Section(kind="text_to_image", base=str(base))
    ours = TextToImage.from_export(section, LearnerContext(NO_DATA), model)
    image = ours.sample([NAMED], [0], Sampling(steps=3, guidance_scale=3.0))[0]
    assert np.abs(image.permute(1, 2, 0).numpy() - expected).max() < 1 / 255
    assert np.abs(picture(DiffusionPipeline.from_pretrained(base)) - expected).max() > 3 / 255


def test_plan_counts_each_file_of_a_run_exactly(trained):
    _, folder = trained
    loaded = check(folder / "scenario.resolved.yaml")
    files = plan(loaded)["export_files"]
    assert files == {name: (folder / "model" / name).stat().st_size for name in files}
    assert "ink.safetensors" in files


def test_sampling_in_a_run_makes_the_exported_models_picture_of_the_words_it_stands_for(trained):
    base, folder = trained
    loaded = check(folder / "scenario.resolved.yaml")
    model = Model(Job(loaded.scenario, loaded.folder), torch.device("cpu"))
    files = load_file(folder / "model" / "learned_embeds.safetensors")
    two = folder / "model" / "learned_embeds_2.safetensors"
    rows = [files[TOKEN], *([load_file(two)[TOKEN]] if two.exists() else [])]
    model.load(torch.cat([row.flatten() for row in rows]).float())
    sampling = Sampling(steps=2, guidance_scale=3.0)
    section = Section(kind="text_to_image", base=str(base))
    exported = TextToImage.from_export(section, LearnerContext(NO_DATA), folder / "model")
    ours = model.learner.sample([PROMPT], [0], sampling)
    assert torch.equal(ours, exported.sample([NAMED], [0], sampling))
    for name, value in model.learner.embed(PROMPT).items():
        assert torch.equal(value, exported.embed(NAMED)[name])


def test_comfyuis_file_has_its_names(trained):
    _, folder = trained
    names = load_file(folder / "model" / "ink.safetensors").keys()
    two = (folder / "model" / "learned_embeds_2.safetensors").exists()
    assert names == ({"clip_l", "clip_g"} if two else {"emb_params"})


def test_a_step_is_that_of_diffusers_training_script():
    """examples/textual_inversion/textual_inversion.py: the whole table trains, other rows are copied back."""
    from diffusers import DDPMScheduler, StableDiffusionPipeline

    learner, _, chosen = tuned()
    latents, noise = torch.randn(2, 2, *learner.latent_shape, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([10, 700])
    captions = [PROMPT, "a photo of a bag"]
    loss = learner.loss(NoisedLatents(latents, noise, timesteps, **learner.family.tokenize(captions)))
    loss.backward()

    pipeline = StableDiffusionPipeline.from_pretrained(BASE).to(torch.float32)
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    initial = tokenizer.encode("photo", add_special_tokens=False)
    tokenizer.add_tokens([TOKEN, f"{TOKEN}_1"])
    encoder.resize_token_embeddings(len(tokenizer))
    table = encoder.get_input_embeddings().weight
    with torch.no_grad():
        table[-2:] = table[initial]
    texts = [PROMPT.replace("ink", f"{TOKEN} {TOKEN}_1"), "a photo of a bag"]
    length = tokenizer.model_max_length
    ids = tokenizer(texts, padding="max_length", max_length=length, return_tensors="pt").input_ids
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    noisy = schedule.add_noise(latents, noise, timesteps)
    velocity = schedule.config.prediction_type == "v_prediction"
    target = schedule.get_velocity(latents, noise, timesteps) if velocity else noise
    predicted = pipeline.unet(noisy, timesteps, encoder(ids)[0]).sample
    expected = F.mse_loss(predicted, target)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (rows,) = chosen.travelling.values()
    assert rows.grad.abs().max() > 0
    assert torch.allclose(rows.grad, table.grad[-2:], rtol=1e-4, atol=1e-8)
    assert [name for name, p in learner.parts["text_encoder"].named_parameters() if p.requires_grad] == [
        name for name, p in learner.parts["text_encoder"].named_parameters() if p is rows
    ]


SPLIT = {"kind": "split", "cut": "text", "tail": "loss", "variant": "splitfed_v1"}
SENT = {"may_send": ["latents", "noise", "timesteps", "text"]}


@pytest.mark.parametrize(
    "topology",
    [{"kind": "relay"}, SPLIT | SENT],
    ids=["relay", "split"],
)
def test_only_the_rows_move_in_two_rounds(topology, tmp_path):
    run(tiny(tmp_path, CHANGES | {"topology": topology}), tmp_path / "run")
    model = tmp_path / "run" / "model"
    (rows,) = load_file(model / "learned_embeds.safetensors").values()
    before = load_file(BASE / "text_encoder" / "model.safetensors")
    after = load_file(model / "text_encoder" / "model.safetensors")
    for name, tensor in before.items():
        assert torch.equal(after[name][: len(tensor)].float(), tensor.float())
    grown = {len(after[name]) for name in before if len(after[name]) != len(before[name])}
    assert grown == {json.loads((model / "text_encoder" / "config.json").read_text())["vocab_size"]}
    assert not torch.equal(rows[0], rows[1])


def test_a_vector_of_stable_diffusion_15_is_1536_bytes_in_half():
    _, _, chosen = tuned("stable-diffusion-v1-5/stable-diffusion-v1-5", "meta", vectors=1)
    layout = Layout.of(chosen.travelling, "fp16")
    assert (layout.names, layout.nbytes) == ((TOKEN,), 1536)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"vectors": 31}, "at most 30: the text encoder reads 32 tokens"),
        ({"initializer": "a photo"}, "'a photo', which is 2 tokens"),
        ({"token": "<ink>"}, "<ink>_1"),
    ],
)
def test_what_the_tokenizer_does_not_allow_is_refused(changes, expected, monkeypatch):
    if "token" in changes:
        from transformers import CLIPTokenizer

        load = CLIPTokenizer.from_pretrained

        def knowing(*args, **options):
            tokenizer = load(*args, **options)
            tokenizer.add_tokens(["<ink>_1"])
            return tokenizer

        monkeypatch.setattr(CLIPTokenizer, "from_pretrained", knowing)
    with pytest.raises(Refused) as caught:
        tuned(**changes)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tuning": INK | {"vectors": 31}}, "at most 30: the text encoder reads 32 tokens"),
        ({"tuning": INK | {"initializer": "a photo"}}, "'a photo', which is 2 tokens"),
        (
            {"model.base": "black-forest-labs/FLUX.1-dev"},
            "a FluxPipeline, expected a base that is a StableDiffusionPipeline or StableDiffusionXLPipeline",
        ),
        ({"model.base": "stabilityai/stable-diffusion-3-medium-diffusers"}, "StableDiffusion3Pipeline"),
    ],
)
def test_check_refuses_what_the_base_models_files_do_not_allow(changes, expected, tmp_path):
    with pytest.raises(ScenarioError) as caught:
        check(tiny(tmp_path, CHANGES | changes))
    assert expected in str(caught.value)


def test_check_refuses_a_token_that_the_base_model_has(tmp_path):
    shutil.copytree(BASE, tmp_path / "base")
    file = tmp_path / "base" / "tokenizer" / "tokenizer.json"
    words = json.loads(file.read_text())
    words["added_tokens"].append(words["added_tokens"][-1] | {"id": 375, "content": "<ink>"})
    file.write_text(json.dumps(words))
    with pytest.raises(ScenarioError, match=r"tuning\.token: got <ink>, expected a token that the base"):
        check(tiny(tmp_path, CHANGES | {"model.base": str(tmp_path / "base")}))


def test_a_caption_is_cut_for_the_vectors_that_take_its_placeholders_place(tmp_path):
    """Beside two tokens of the text encoder's own, 32 have room for "a photo in" and 27 vectors."""
    base = locate("tiny-sd", tmp_path)
    captions = ["a photo in ink"]
    fits, long = (TextualInversion(**(INK | {"vectors": n})) for n in (27, 28))
    assert cut_captions(base, captions, fits.spelled) is None
    assert "1 of 1 captions" in cut_captions(base, captions, long.spelled)


def test_the_token_takes_the_place_of_whole_words_alone_and_once():
    named = TextualInversion(**INK).named
    assert named("Ink on pink, <ink>") == "<ink> on pink, <ink>"
    assert named(named("ink")) == "<ink>"


def test_a_model_without_text_is_refused(tmp_path):
    from tests.helpers import garments

    with pytest.raises(ScenarioError, match=r"new tokens need model\.kind text_to_image"):
        check(garments(tmp_path, {"tuning": INK}))
