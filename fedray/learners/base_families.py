"""What the folder of a base model of each family holds. No torch here, so that `check` can look."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedray.learners.base_files import Refuse
from fedray.learners.base_scheduler import verify_flow_scheduler, verify_scheduler
from fedray.learners.base_tokenizer import TOKENIZERS

Configs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class PartFiles:
    """A part of a pipeline with weights.

    Attributes:
        library: that has its class.
        class_name: in the library.
        weights: the name of its safetensors file, without the suffix.
        entry: of its config.json, which says what it is.
        value: of that entry.
    """

    library: str
    class_name: str
    weights: str
    entry: str
    value: str


@dataclass(frozen=True)
class FamilyFiles:
    """A family's folder.

    Attributes:
        pipeline: diffusers' class, as model_index.json names it.
        implementation: `module:Class` of the family.
        parts: with weights, by name; the one that denoises first.
        tokenizers: the text encoder that each tokenizer is for.
        verify_shapes: raises what `refuse` makes of parts that do not fit each other, or take what training
            does not give them.
        stage_names: of the network that denoises, from its configuration.
        verify_scheduler: raises what `refuse` makes of noise that the family is not trained with.
        clips: what ComfyUI calls the text encoders that can learn new tokens, the first ones of `tokenizers`.
        discrete: whether noise has discrete timesteps with a signal-to-noise ratio each; otherwise it is flow
            matching.
        takes_negative_prompt: whether guidance leads away from a prompt; not where it is distilled into the
            network.
    """

    pipeline: str
    implementation: str
    parts: Mapping[str, PartFiles]
    tokenizers: Mapping[str, str]
    verify_shapes: Callable[[Path, Configs, Refuse], None]
    stage_names: Callable[[Mapping[str, Any]], list[str]]
    verify_scheduler: Callable[[Path, Mapping[str, Any], Refuse], None] = verify_scheduler
    clips: tuple[str, ...] = ()
    discrete: bool = True
    takes_negative_prompt: bool = True

    @property
    def trainable(self) -> tuple[str, ...]:
        """Names of the parts that training may change: all but the autoencoder and T5."""
        return tuple(name for name, part in self.parts.items() if name != "vae" and part != T5)

    def named_in_index(self) -> dict[str, list[list[str]]]:
        """What model_index.json may say of each part."""
        parts = {name: [[part.library, part.class_name]] for name, part in self.parts.items()}
        tokenizers = {
            name: [["transformers", kind] for kind in TOKENIZERS[self.parts[encoder].value]]
            for name, encoder in self.tokenizers.items()
        }
        return parts | tokenizers


def _diffusers(class_name: str) -> PartFiles:
    return PartFiles("diffusers", class_name, "diffusion_pytorch_model", "_class_name", class_name)


def _clip(class_name: str) -> PartFiles:
    return PartFiles("transformers", class_name, "model", "model_type", "clip_text_model")


T5 = PartFiles("transformers", "T5EncoderModel", "model", "model_type", "t5")


# Entries of a U-Net that ask for more than noisy latents, a timestep and text.
BESIDE = (
    "class_embed_type",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "num_class_embeds",
    "time_cond_proj_dim",
)


def _verify_stable_diffusion(folder: Path, configs: Configs, refuse: Refuse) -> None:
    """The U-Net takes noisy latents, a timestep and the one text encoder's tokens."""
    file = folder / "unet" / "config.json"
    if (added := configs["unet"].get("addition_embed_type")) is not None:
        expected = "none: it is given latents, a timestep and text alone"
        raise refuse(f"addition_embed_type {added!r:.40} in {file}", expected)
    _verify_unet(file, configs, refuse)
    _verify_text_width(file, configs, ("text_encoder",), refuse)
    _verify_scale(folder, configs["vae"], refuse)


def _stages_of_unet(config: Mapping[str, Any]) -> list[str]:
    levels = range(len(config["down_block_types"]))
    mid = ["mid"] if config.get("mid_block_type", True) else []
    return ["in", *(f"down_{i}" for i in levels), *mid, *(f"up_{i}" for i in levels), "out"]


def _verify_sdxl(folder: Path, configs: Configs, refuse: Refuse) -> None:
    """The U-Net takes the tokens of both text encoders side by side, and beside the timestep the second one's
    pooled text and an image's size and crop."""
    file = folder / "unet" / "config.json"
    unet = configs["unet"]
    if (added := unet.get("addition_embed_type")) != "text_time":
        raise refuse(f"addition_embed_type {added!r:.40} in {file}", "text_time, as SDXL has it")
    _verify_unet(file, configs, refuse)
    _verify_text_width(file, configs, ("text_encoder", "text_encoder_2"), refuse)
    pooled = configs["text_encoder_2"].get("projection_dim", 512)
    wide = unet.get("projection_class_embeddings_input_dim")
    each = unet.get("addition_time_embed_dim")
    if not isinstance(each, int) or wide != pooled + 6 * each:
        got = f"projection_class_embeddings_input_dim {wide!r:.40} in {file}"
        raise refuse(got, f"{pooled} of pooled text and 6 times addition_time_embed_dim, {each!r:.40}")
    _verify_scale(folder, configs["vae"], refuse)


def _verify_unet(file: Path, configs: Configs, refuse: Refuse) -> None:
    unet = configs["unet"]
    latents = configs["vae"].get("latent_channels", 4)
    for way in ("in_channels", "out_channels"):
        if (n := unet.get(way, 4)) != latents:
            expected = f"{latents}, as many as the autoencoder's latents have: no inpainting, no depth"
            raise refuse(f"{way} {n!r:.40} in {file}", expected)
    for entry in BESIDE:
        if unet.get(entry) is not None:
            expected = "none: it is given latents, a timestep and text alone"
            raise refuse(f"{entry} {unet[entry]!r:.40} in {file}", expected)
    if (attention := unet.get("attention_type", "default")) != "default":
        expected = "default: it is given text alone, and no boxes"
        raise refuse(f"attention_type {attention!r:.40} in {file}", expected)


def _verify_text_width(file: Path, configs: Configs, encoders: tuple[str, ...], refuse: Refuse) -> None:
    wide = configs["unet"].get("cross_attention_dim", 1280)
    widths = [configs[name].get("hidden_size", 512) for name in encoders]
    if not all(isinstance(width, int) for width in widths):
        raise refuse(f"hidden_size {widths!r:.40} of the text encoder", "a whole number")
    if any(n != sum(widths) for n in (wide if isinstance(wide, list) else [wide])):
        many = "the text encoder's hidden_size" if len(widths) == 1 else "both text encoders' hidden_size"
        raise refuse(f"cross_attention_dim {wide!r:.40} in {file}", f"{sum(widths)}, {many}")


def _verify_scale(folder: Path, vae: Mapping[str, Any], refuse: Refuse) -> None:
    file = folder / "vae" / "config.json"
    if vae.get("shift_factor") is not None:
        expected = "an autoencoder of Stable Diffusion 1, 2 or XL, which has none"
        raise refuse(f"shift_factor in {file}", expected)
    scale = vae.get("scaling_factor", 0.18215)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < float("inf"):
        raise refuse(f"scaling_factor {scale!r:.40} in {file}", "a number above 0")


def _verify_sd3(folder: Path, configs: Configs, refuse: Refuse) -> None:
    """The transformer takes latents in patches, the tokens of both CLIPs side by side and those of T5 behind
    them, and both CLIPs' pooled text."""
    transformer = configs["transformer"]
    clips = [configs[name] for name in ("text_encoder", "text_encoder_2")]
    pooled = sum(clip.get("projection_dim", 512) for clip in clips)
    latents = configs["vae"].get("latent_channels", 4)
    expected = {
        "in_channels": (16, latents, "as many as the autoencoder's latents have"),
        "out_channels": (16, latents, "as many as the autoencoder's latents have"),
        "joint_attention_dim": (4096, configs["text_encoder_3"].get("d_model", 512), "T5's d_model"),
        "pooled_projection_dim": (2048, pooled, "both CLIPs' projection_dim"),
    }
    _verify_entries(folder / "transformer" / "config.json", transformer, expected, refuse)
    wide = sum(clip.get("hidden_size", 512) for clip in clips)
    if wide > transformer.get("joint_attention_dim", 4096):
        got = f"text encoders of hidden_size {wide} together in {folder}"
        raise refuse(got, "at most the transformer's joint_attention_dim")
    _verify_shifted_scale(folder, configs["vae"], refuse)


def _stages_of_sd3(config: Mapping[str, Any]) -> list[str]:
    return ["in", *(f"block_{i}" for i in range(config.get("num_layers", 18))), "out"]


def _verify_flux(folder: Path, configs: Configs, refuse: Refuse) -> None:
    """The transformer takes latents packed by 2 x 2, T5's tokens, and CLIP's pooled text."""
    packed = 4 * configs["vae"].get("latent_channels", 4)
    expected = {
        "in_channels": (64, packed, "4 times the channels of the autoencoder's latents"),
        "joint_attention_dim": (4096, configs["text_encoder_2"].get("d_model", 512), "T5's d_model"),
        "pooled_projection_dim": (768, configs["text_encoder"].get("hidden_size", 512), "CLIP's hidden_size"),
    }
    transformer = configs["transformer"]
    _verify_entries(folder / "transformer" / "config.json", transformer, expected, refuse)
    if transformer.get("out_channels") not in (None, packed):
        got = f"out_channels {transformer['out_channels']!r:.40} in {folder / 'transformer' / 'config.json'}"
        raise refuse(got, f"none, or {packed}")
    _verify_shifted_scale(folder, configs["vae"], refuse)


def _stages_of_flux(config: Mapping[str, Any]) -> list[str]:
    double = range(config.get("num_layers", 19))
    single = range(config.get("num_single_layers", 38))
    return ["in", *(f"block_{i}" for i in double), *(f"single_{i}" for i in single), "out"]


def _verify_entries(
    file: Path, config: Mapping[str, Any], expected: Mapping[str, tuple[Any, Any, str]], refuse: Refuse
) -> None:
    """That a configuration says what the other parts have.

    Args:
        file: that it is in.
        config: the configuration.
        expected: of an entry, what it is where it is not written, what it must be, and what that is.
        refuse: makes the error.
    """
    for entry, (default, value, what) in expected.items():
        if (got := config.get(entry, default)) != value:
            raise refuse(f"{entry} {got!r:.40} in {file}", f"{value}, {what}")


def _verify_shifted_scale(folder: Path, vae: Mapping[str, Any], refuse: Refuse) -> None:
    file = folder / "vae" / "config.json"
    shift = vae.get("shift_factor")
    if isinstance(shift, bool) or not isinstance(shift, int | float) or not abs(shift) < float("inf"):
        raise refuse(f"shift_factor {shift!r:.40} in {file}", "a number, as this family's autoencoder has")
    _verify_scale(folder, {**vae, "shift_factor": None}, refuse)


STABLE_DIFFUSION = FamilyFiles(
    "StableDiffusionPipeline",
    "fedray.learners.families.stable_diffusion:StableDiffusion",
    {
        "unet": _diffusers("UNet2DConditionModel"),
        "vae": _diffusers("AutoencoderKL"),
        "text_encoder": _clip("CLIPTextModel"),
    },
    {"tokenizer": "text_encoder"},
    _verify_stable_diffusion,
    _stages_of_unet,
    clips=("clip_l",),
)
SDXL = FamilyFiles(
    "StableDiffusionXLPipeline",
    "fedray.learners.families.sdxl:StableDiffusionXL",
    {
        "unet": _diffusers("UNet2DConditionModel"),
        "vae": _diffusers("AutoencoderKL"),
        "text_encoder": _clip("CLIPTextModel"),
        "text_encoder_2": _clip("CLIPTextModelWithProjection"),
    },
    {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"},
    _verify_sdxl,
    _stages_of_unet,
    clips=("clip_l", "clip_g"),
)
SD3 = FamilyFiles(
    "StableDiffusion3Pipeline",
    "fedray.learners.families.sd3:StableDiffusion3",
    {
        "transformer": _diffusers("SD3Transformer2DModel"),
        "vae": _diffusers("AutoencoderKL"),
        "text_encoder": _clip("CLIPTextModelWithProjection"),
        "text_encoder_2": _clip("CLIPTextModelWithProjection"),
        "text_encoder_3": T5,
    },
    {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2", "tokenizer_3": "text_encoder_3"},
    _verify_sd3,
    _stages_of_sd3,
    verify_flow_scheduler,
    discrete=False,
)
FLUX = FamilyFiles(
    "FluxPipeline",
    "fedray.learners.families.flux:Flux",
    {
        "transformer": _diffusers("FluxTransformer2DModel"),
        "vae": _diffusers("AutoencoderKL"),
        "text_encoder": _clip("CLIPTextModel"),
        "text_encoder_2": T5,
    },
    {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"},
    _verify_flux,
    _stages_of_flux,
    verify_flow_scheduler,
    discrete=False,
    takes_negative_prompt=False,
)

FAMILIES = {family.pipeline: family for family in (STABLE_DIFFUSION, SDXL, SD3, FLUX)}
