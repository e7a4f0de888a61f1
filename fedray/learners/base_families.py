"""What the folder of a base model of each family holds. No torch here, so that `check` can look."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedray.learners.base_files import Refuse
from fedray.learners.base_tokenizer import CLASSES as CLIP_TOKENIZERS

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
    """

    pipeline: str
    implementation: str
    parts: Mapping[str, PartFiles]
    tokenizers: Mapping[str, str]
    verify_shapes: Callable[[Path, Configs, Refuse], None]

    @property
    def trainable(self) -> tuple[str, ...]:
        """Names of the parts that training may change: all but the autoencoder."""
        return tuple(name for name in self.parts if name != "vae")

    def named_in_index(self) -> dict[str, list[list[str]]]:
        """What model_index.json may say of each part."""
        tokenizers = [["transformers", name] for name in CLIP_TOKENIZERS]
        parts = {name: [[part.library, part.class_name]] for name, part in self.parts.items()}
        return parts | {name: tokenizers for name in self.tokenizers}


def _diffusers(class_name: str) -> PartFiles:
    return PartFiles("diffusers", class_name, "diffusion_pytorch_model", "_class_name", class_name)


def _clip(class_name: str) -> PartFiles:
    return PartFiles("transformers", class_name, "model", "model_type", "clip_text_model")


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
)

FAMILIES = {family.pipeline: family for family in (STABLE_DIFFUSION, SDXL)}
