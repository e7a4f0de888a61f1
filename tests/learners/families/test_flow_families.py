"""Stable Diffusion 3 and Flux: a step is that of diffusers' training scripts, and their sizes are known."""

import json

import pytest
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling

from fedray.checks import check
from fedray.learners.bases import verify_base
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.families.flow_noise import FlowNoise
from fedray.learners.families.flux import TARGETS
from fedray.learners.families.sd3 import ATTENTION
from fedray.learners.latents import NoisedLatents
from fedray.learners.learners import NO_DATA
from fedray.learners.stage_names import of_text_to_image
from fedray.learners.text_to_image import TextToImage
from fedray.scenario import ScenarioError
from fedray.scenario.base import Refused
from fedray.scenario.text_to_image import TextToImage as Section
from fedray.scenario.textual_inversion import TextualInversion
from fedray.tuning.textual_inversion import TextualInversionTuning
from tests.helpers import PROMPT, tiny
from tests.learners.families.tiny_bases import flow, flux, sd3

CAPTIONS = [PROMPT, "a photo of a bag"]
TIMESTEPS = torch.tensor([10, 700])  # indices in the scheduler's


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    made = {"sd3": sd3(folder / "sd3"), "flux": flux(folder / "flux")}
    return made | {"schnell": flux(folder / "schnell", guidance=False)}


def section(folder, **more):
    return Section(kind="text_to_image", base=str(folder), **more)


def learner(folder):
    return TextToImage.load(section(folder), LearnerContext(NO_DATA))


def latents_and_noise():
    return torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def sigmas_of(schedule):
    return schedule.sigmas[TIMESTEPS][:, None, None, None]


@torch.no_grad()
def test_an_sd3_step_is_that_of_diffusers_training_script(folders):
    """As in train_dreambooth_lora_sd3.py with `--precondition_outputs 0`: its default multiplies the same
    error by sigma squared."""
    model = learner(folders["sd3"])
    pipeline = model.pipeline()
    text, _, pooled, _ = pipeline.encode_prompt(CAPTIONS, CAPTIONS, CAPTIONS, max_sequence_length=256)
    latents, noise = latents_and_noise()
    sigmas = sigmas_of(pipeline.scheduler)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    predicted = model.parts["transformer"](
        hidden_states=noisy,
        timestep=pipeline.scheduler.timesteps[TIMESTEPS],
        encoder_hidden_states=text,
        pooled_projections=pooled,
        return_dict=False,
    )[0]
    error = predicted - (noise - latents)
    ids = model.family.tokenize(CAPTIONS)
    for given in (ids, {"text": text, "pooled": pooled}):
        loss = model.loss(NoisedLatents(latents, noise, TIMESTEPS, **given))
        assert loss.item() == pytest.approx((error**2).mean().item(), rel=1e-5)
    preconditioned = predicted * (-sigmas) + noisy - latents
    torch.testing.assert_close(preconditioned, -sigmas * error, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["flux", "schnell"])
def test_a_flux_step_is_that_of_diffusers_training_script(name, folders):
    """As in train_dreambooth_lora_flux.py."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    model = learner(folders[name])
    transformer = model.parts["transformer"]
    text, pooled, text_ids = model.pipeline().encode_prompt(CAPTIONS, max_sequence_length=512)
    schedule = FlowMatchEulerDiscreteScheduler.from_pretrained(folders[name], subfolder="scheduler")
    latents, noise = latents_and_noise()
    sigmas = sigmas_of(schedule)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    predicted = transformer(
        hidden_states=FluxPipeline._pack_latents(noisy, 2, 4, 8, 8),
        timestep=schedule.timesteps[TIMESTEPS] / 1000,
        guidance=torch.tensor([3.5]).expand(2) if transformer.config.guidance_embeds else None,
        pooled_projections=pooled,
        encoder_hidden_states=text,
        txt_ids=text_ids,
        img_ids=FluxPipeline._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32),
        return_dict=False,
    )[0]
    factor = 2 ** (len(model.vae.config.block_out_channels) - 1)
    predicted = FluxPipeline._unpack_latents(predicted, 8 * factor, 8 * factor, factor)
    expected = ((predicted - (noise - latents)) ** 2).mean()
    ids = model.family.tokenize(CAPTIONS)
    for given in (ids, {"text": text, "pooled": pooled}):
        loss = model.loss(NoisedLatents(latents, noise, TIMESTEPS, **given))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("scheme", "logit_normal"), [("logit_normal", True), ("none", False)])
def test_timesteps_are_drawn_as_in_diffusers_scripts(scheme, logit_normal):
    given = {"batch_size": 100, "logit_mean": 0.0, "logit_std": 1.0, "mode_scale": 1.29}
    u = compute_density_for_timestep_sampling(scheme, generator=torch.Generator().manual_seed(3), **given)
    noise = FlowNoise(
        flow(shift=3.0).config | {"_class_name": "FlowMatchEulerDiscreteScheduler"}, logit_normal
    )
    drawn = noise.draw(100, torch.Generator().manual_seed(3))
    assert drawn.tolist() == (u * 1000).long().tolist()


def test_latents_are_shifted_and_scaled_as_the_pipeline_undoes_it(folders):
    model = learner(folders["sd3"])
    latents = torch.ones(1, 4, 8, 8)
    assert model.family.scaled(latents).unique().tolist() == pytest.approx([(1 - 0.0609) * 1.5305])


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_check_names_the_stages_that_a_loaded_learner_has(name, folders, tmp_path):
    names = [stage.name for stage in learner(folders[name]).stages]
    assert of_text_to_image(section(folders[name]), tmp_path) == names


@pytest.mark.parametrize("name", ["sd3", "flux"])
@pytest.mark.parametrize(("key", "value"), [("min_snr_gamma", 5.0), ("control", {"condition": "edges"})])
def test_what_flow_matching_lacks_is_refused_by_name(key, value, name, folders, tmp_path):
    with pytest.raises(
        Refused, match=json.loads((folders[name] / "model_index.json").read_text())["_class_name"]
    ) as e:
        verify_base(section(folders[name], **{key: value}), tmp_path)
    assert e.value.key == f"model.{key}"


def test_check_refuses_a_negative_prompt_that_flux_would_ignore(folders, tmp_path):
    changes = {"model.base": str(folders["flux"]), "evaluation": {"negative_prompt": "ink"}}
    with pytest.raises(ScenarioError, match=r"evaluation\.negative_prompt: got 'ink' for a FluxPipeline"):
        check(tiny(tmp_path, changes))
    check(tiny(tmp_path, changes | {"model.base": str(folders["sd3"])}))


def test_a_negative_prompt_is_refused_by_a_loaded_flux(folders):
    """Where the base is on the hub, `check` does not know its family."""
    with pytest.raises(Refused, match="guidance distilled into it"):
        learner(folders["flux"]).sample([PROMPT], [0], Sampling(steps=1, negative_prompt="ink"))


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_new_tokens_are_refused_by_the_pipelines_name(name, folders):
    given = {"token": "<ink>", "initializer": "ink", "stands_for": "ink"}
    tuning = TextualInversionTuning(TextualInversion(kind="textual_inversion", **given), 0)
    with pytest.raises(Refused, match="textual_inversion for "):
        tuning.select(learner(folders[name]))


@pytest.mark.parametrize(
    ("name", "part", "changes", "expected"),
    [
        ("sd3", "transformer", {"pooled_projection_dim": 99}, "both CLIPs' projection_dim"),
        ("sd3", "vae", {"shift_factor": None}, "shift_factor None in "),
        ("flux", "transformer", {"in_channels": 4}, "4 times the channels"),
        ("flux", "scheduler", {"_class_name": "DDIMScheduler"}, "FlowMatchEulerDiscreteScheduler"),
        ("flux", "tokenizer_2", {"tokenizer_class": "CLIPTokenizer"}, "T5Tokenizer"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_file(name, part, changes, expected, tmp_path):
    folder = {"sd3": sd3, "flux": flux}[name](tmp_path / "base")
    file = next(f for f in sorted((folder / part).glob("*config.json")))
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(Refused) as caught:
        verify_base(section(folder), tmp_path)
    assert expected in str(caught.value)
    assert part in str(caught.value)


SD3_MEDIUM = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
SD35_MEDIUM = SD3_MEDIUM | {
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}


@pytest.mark.parametrize(
    ("kind", "config", "parameters", "targets", "adapter"),
    [
        ("SD3Transformer2DModel", SD3_MEDIUM, 2_028_328_000, ATTENTION, 2_347_008),
        ("SD3Transformer2DModel", SD35_MEDIUM, 2_243_171_520, ATTENTION, 2_347_008),
        ("FluxTransformer2DModel", {"guidance_embeds": True}, 11_901_408_320, TARGETS, 11_206_656),
    ],
)
def test_sizes_are_those_of_the_published_networks(kind, config, parameters, targets, adapter):
    import diffusers
    from accelerate import init_empty_weights
    from peft import LoraConfig, inject_adapter_in_model

    with init_empty_weights(include_buffers=True):
        network = getattr(diffusers, kind)(**config)
    assert sum(p.numel() for p in network.parameters()) == parameters
    inject_adapter_in_model(LoraConfig(r=4, target_modules=targets), network, low_cpu_mem_usage=True)
    assert sum(p.numel() for n, p in network.named_parameters() if ".lora_" in n) == adapter
