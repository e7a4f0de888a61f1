"""A base of each family trains, is exported, and opens in diffusers with the image that fedray makes."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import fedray
from fedray.learners.base_families import FAMILIES
from fedray.learners.bases import locate
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.learners import NO_DATA
from fedray.learners.text_to_image import TextToImage
from fedray.scenario.base import Refused
from fedray.scenario.text_to_image import TextToImage as Section
from tests.helpers import ONE_ACTOR, PROMPT, UNSEEN, run, tiny
from tests.learners.families.out_of_reach import offload_out_of_reach
from tests.learners.families.tiny_bases import BASES, sdxl

LEARNT = {"training.optimizer.learning_rate": 2e-2, "training.rounds": 2, "training.local_steps": 1}


@pytest.fixture(scope="module", params=BASES)
def base(request, tmp_path_factory):
    return BASES[request.param](tmp_path_factory.mktemp("base") / "base")


def learner(base, **section):
    return TextToImage.load(Section(kind="text_to_image", base=str(base), **section), LearnerContext(NO_DATA))


def picture(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    given = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "np", "generator": generator}
    return pipeline(PROMPT, height=32, width=32, **given).images[0]


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """The run folder of two rounds of LoRA on text encoders too, at a rate that shows."""
    folder = tmp_path_factory.mktemp("run")
    changes = {"model.base": str(base), "tuning": {"kind": "lora", "rank": 2, "alpha": 4, "targets": "kohya"}}
    run(tiny(folder, UNSEEN | changes | LEARNT), folder / "run")
    return folder / "run"


def test_every_family_has_a_tiny_base_here():
    assert BASES.keys() == FAMILIES.keys()


def test_the_merged_pipeline_opens_in_diffusers_and_makes_what_fedray_generates(trained, base):
    from diffusers import DiffusionPipeline

    expected = picture(DiffusionPipeline.from_pretrained(trained / "model"))
    section = Section(kind="text_to_image", base=str(base))
    ours = TextToImage.from_export(section, LearnerContext(NO_DATA), trained / "model")
    image = ours.sample([PROMPT], [0], Sampling(steps=3, guidance_scale=3.0))[0]
    assert np.abs(image.permute(1, 2, 0).numpy() - expected).max() < 1 / 255
    assert np.abs(picture(DiffusionPipeline.from_pretrained(base)) - expected).max() > 5 / 255


def test_the_base_with_the_adapters_files_makes_the_merged_pipelines_picture(trained, base):
    """ComfyUI reads diffusers' file of Stable Diffusion 3 and Flux, and kohya's of the others."""
    from diffusers import DiffusionPipeline

    merged = picture(DiffusionPipeline.from_pretrained(trained / "model"))
    files = sorted(file.name for file in (trained / "model").glob("*.safetensors"))
    kohya = [] if (base / "transformer").is_dir() else ["kohya_lora.safetensors"]
    assert files == [*kohya, "pytorch_lora_weights.safetensors"]
    for file in files:
        pipeline = DiffusionPipeline.from_pretrained(base)
        pipeline.load_lora_weights(trained / "model", weight_name=file)
        assert np.abs(picture(pipeline) - merged).max() < 2 / 255


def test_generate_makes_a_picture_of_a_finished_run(trained):
    (image,) = fedray.open(trained).generate(PROMPT, num=1)
    assert image.size == (32, 32)


def test_text_encoders_are_on_the_device_for_texts_alone_and_make_the_same_pictures(base):
    sampling = Sampling(steps=1, guidance_scale=3.0)
    made = []
    for offloading in (True, False):
        with pytest.MonkeyPatch.context() as patched:
            memories = offload_out_of_reach(patched) if offloading else []
            model = learner(base)
        model.prepare_training(False)
        given = model.embed(PROMPT), model.embed("")
        images = [model.sample([PROMPT], [0], sampling), model.sample_embedded(*given, [0], sampling)]
        assert model.sample_flops(sampling) > 0
        assert all(memory.moves[-1] == "cpu" for memory in memories)
        made.append(torch.cat(images))
    assert torch.equal(*made)
    assert torch.allclose(made[0][0], made[0][1], atol=1 / 255)


def test_training_whole_parts_on_ray_has_the_bits_of_one_process(cluster, tmp_path):
    base = BASES["StableDiffusion3Pipeline"](tmp_path / "base")
    changes = {"model.base": str(base), "tuning": {"kind": "full"}, "training.rounds": 2}
    changes |= {"training.local_steps": 1}
    runtimes = {"serial": {"executor": "serial"}, "ray": ONE_ACTOR}
    hashes = {
        name: run(tiny(tmp_path, UNSEEN | changes | {"runtime": runtime}, f"{name}.yaml"), tmp_path / name)[
            "weights_sha256"
        ]
        for name, runtime in runtimes.items()
    }
    assert hashes["serial"] == hashes["ray"]


def test_the_meta_network_is_the_loaded_ones_twin(base):
    section = Section(kind="text_to_image", base=str(base))
    meta = TextToImage.load(section, LearnerContext(NO_DATA, device=torch.device("meta")))
    real = learner(base)
    for name, part in real.parts.items():
        shapes = {n: p.shape for n, p in part.named_parameters()}
        assert shapes == {n: p.shape for n, p in meta.parts[name].named_parameters()}
    assert meta.sample_flops(Sampling(steps=2)) > meta.sample_flops(Sampling(steps=1)) > 0
    assert meta.encode_flops() > 0


def test_an_xl_step_is_that_of_diffusers_training_script(tmp_path):
    """As in train_text_to_image_lora_sdxl.py: `encode_prompt`, `compute_time_ids`, the loss."""
    model = learner(sdxl(tmp_path / "sdxl"))
    ids = model.family.tokenize([PROMPT, "a photo of a bag"])
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([10, 700])
    time_ids = model.family.image_conditions([(64, 48), (32, 32)], 32)
    assert time_ids["time_ids"].tolist() == [[48, 64, 0, 5, 32, 32], [32, 32, 0, 0, 32, 32]]
    from fedray.learners.latents import NoisedLatents

    unet, first, second = (model.parts[name] for name in ("unet", "text_encoder", "text_encoder_2"))
    with torch.no_grad():
        embeds = [
            encoder(tokens, output_hidden_states=True, return_dict=False)
            for encoder, tokens in ((first, ids["text"]), (second, ids["text_2"]))
        ]
        pooled = embeds[1][0]
        prompt_embeds = torch.concat([embeds[0][-1][-2], embeds[1][-1][-2]], dim=-1)
        noisy = model.family.noise.schedule.add_noise(latents, noise, timesteps)
        added = {"time_ids": time_ids["time_ids"], "text_embeds": pooled}
        predicted = unet(noisy, timesteps, prompt_embeds, added_cond_kwargs=added, return_dict=False)[0]
        expected = F.mse_loss(predicted.float(), noise.float(), reduction="mean")
        for given in (ids, {"text": prompt_embeds, "pooled": pooled}):
            loss = model.loss(NoisedLatents(latents, noise, timesteps, **given, **time_ids))
            assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_empty_caption_of_sdxl_is_zeros_as_in_its_pipeline(tmp_path):
    folder = sdxl(tmp_path / "sdxl")
    texts = learner(folder).embed("")
    assert not texts["text"].any()
    assert not texts["pooled"].any()
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"force_zeros_for_empty_prompt": False}))
    assert learner(folder).embed("")["text"].any()


@pytest.mark.parametrize(
    ("part", "changes", "expected"),
    [
        ("unet", {"addition_embed_type": None}, "addition_embed_type None in "),
        ("unet", {"cross_attention_dim": 32}, "both text encoders' hidden_size"),
        ("text_encoder_2", {"projection_dim": 99}, "projection_class_embeddings_input_dim 64 in "),
        ("vae", {"shift_factor": 0.1}, "shift_factor in "),
    ],
)
def test_parts_of_sdxl_that_do_not_fit_are_refused_by_file(part, changes, expected, tmp_path):
    folder = sdxl(tmp_path / "sdxl")
    file = folder / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(Refused) as caught:
        locate(str(folder), tmp_path)
    assert expected in str(caught.value)


def test_sdxl_without_a_tensor_is_refused_by_its_name(tmp_path):
    folder = sdxl(tmp_path / "sdxl")
    file = folder / "text_encoder_2" / "model.safetensors"
    tensors = load_file(file)
    del tensors["text_projection.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(Refused, match=r"text_encoder_2 lacks text_projection\.weight"):
        learner(folder)
