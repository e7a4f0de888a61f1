"""What a base model's folder holds, looked at without torch: that it is a Stable Diffusion which is trained
as it should be, whole, and nothing that would run code or ask the network."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedray.learners.base_files import Refuse, json_object, refuse_foreign
from fedray.learners.base_tokenizer import CLASSES as TOKENIZERS
from fedray.learners.base_tokenizer import verify_tokenizer
from fedray.learners.weights_file import refuse_pointer, tensors_in
from fedray.scenario.base import Refused

PIPELINE = "StableDiffusionPipeline"
PARTS = {  # by name: its library and classes
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "vae": ("diffusers", ("AutoencoderKL",)),
    "text_encoder": ("transformers", ("CLIPTextModel",)),
    "tokenizer": ("transformers", TOKENIZERS),
}
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
# Samplers of the noise that a Stable Diffusion is trained with: betas over discrete timesteps. Flow matching
# and EDM's are not.
SAMPLERS = (
    "DDPM DDPMParallel DDIM DDIMParallel PNDM LMSDiscrete EulerDiscrete EulerAncestralDiscrete HeunDiscrete"
    " KDPM2Discrete KDPM2AncestralDiscrete DPMSolverMultistep DPMSolverSinglestep DPMSolverSDE DEISMultistep"
    " UniPCMultistep SASolver LCM TCD"
)
PREDICTIONS = ("epsilon", "v_prediction")
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
FORMS = {  # what a part's configuration says that it is
    "unet": ("_class_name", "UNet2DConditionModel"),
    "vae": ("_class_name", "AutoencoderKL"),
    "text_encoder": ("model_type", "clip_text_model"),
}
# Entries of a U-Net that ask for more than noisy latents, a timestep and text.
BESIDE = (
    "addition_embed_type",
    "class_embed_type",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "num_class_embeds",
    "time_cond_proj_dim",
)
ATTENTION = (None, "eager", "sdpa")  # ours; others are kernels, some fetched from a hub as code
# of older versions of diffusers
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
MOST_STEPS = 100_000  # of noise
CONVERT = (
    "diffusers' StableDiffusionPipeline.from_single_file('{file}').save_pretrained('FOLDER'), then FOLDER"
)
REWRITE = (
    "safetensors: StableDiffusionPipeline.from_pretrained('{folder}',"
    " use_safetensors=False).save_pretrained('FOLDER'), then FOLDER"
)


def refuse_single_file(file: Path, key: str) -> None:
    """Raises Refused for one file in the place of a folder, and says how it becomes one."""
    if file.is_file():
        got = f"{str(file)!r}, a single file"
        raise Refused(key, got, f"a folder: {CONVERT.format(file=file)}")


def verify(folder: Path, key: str) -> None:
    """That a folder in diffusers' layout is a whole base model.

    Raises:
        Refused: naming the file, and the entry in it, that is not as it should be.
    """

    def refuse(got: object, expected: str) -> Refused:
        return Refused(key, got, expected)

    _verify_index(folder, refuse)
    _refuse_adapters(folder, refuse)
    configs = {name: json_object(folder / name / "config.json", refuse) for name in WEIGHTS}
    for name, config in configs.items():
        _verify_config(folder / name, config, refuse)
    _verify_shapes(folder, configs, refuse)
    file = folder / "scheduler" / "scheduler_config.json"
    _verify_scheduler(file, json_object(file, refuse), refuse)
    verify_tokenizer(folder / "tokenizer", configs["text_encoder"], refuse)
    for name, stem in WEIGHTS.items():
        _verify_weights(folder / name, stem, refuse)


def verify_loaded(
    name: str, configs: Mapping[str, Mapping[str, Any]], scheduler: Mapping[str, Any], key: str
) -> None:
    """The same of the configurations of a base on the hub, whose files nobody has looked at before they were
    loaded.

    Args:
        name: of the base model.
        configs: of its parts.
        scheduler: its noise schedule's configuration.
        key: the scenario's key that names the base, for errors.

    Raises:
        Refused: naming the file, and the entry in it.
    """

    def refuse(got: object, expected: str) -> Refused:
        return Refused(key, got, expected)

    folder = Path(name)
    _verify_shapes(folder, configs, refuse)
    _verify_scheduler(folder / "scheduler" / "scheduler_config.json", scheduler, refuse)


def _verify_index(folder: Path, refuse: Refuse) -> None:
    file = folder / "model_index.json"
    index = json_object(file, refuse)
    if (kind := index.get("_class_name")) != PIPELINE:
        raise refuse(f"a {kind!s:.60} ({file})", f"a {PIPELINE}, which is what text_to_image trains")
    for name, (library, classes) in PARTS.items():
        if index.get(name) not in [[library, one] for one in classes]:
            raise refuse(f"{name} {json.dumps(index.get(name))[:80]} in {file}", f"{library}'s {classes[0]}")
    refuse_foreign(file, index, refuse)


def _verify_config(part: Path, config: dict[str, Any], refuse: Refuse) -> None:
    file = part / "config.json"
    refuse_foreign(file, config, refuse)
    entry, known = FORMS[part.name]
    if (form := config.get(entry)) != known:
        raise refuse(f"{entry} {form!r:.60} in {file}", known)
    for entry in ("attn_implementation", "_attn_implementation"):
        if config.get(entry) not in ATTENTION:
            raise refuse(f"{entry} {config[entry]!r:.60} in {file}", "none: attention is torch's own")


def _refuse_adapters(folder: Path, refuse: Refuse) -> None:
    """What transformers would load by itself, and ask the network for."""
    for place in (folder, *(folder / name for name in PARTS)):
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            if (place / name).exists():
                raise refuse(
                    f"an adapter ({place / name}) beside the weights", "a base model: merge it first"
                )


def _verify_shapes(folder: Path, configs: Mapping[str, Mapping[str, Any]], refuse: Refuse) -> None:
    """That the parts fit each other, and that the U-Net takes what training gives it: noisy latents, a
    timestep, text."""
    unet = configs["unet"]
    vae = configs["vae"]
    text = configs["text_encoder"]
    file = folder / "unet" / "config.json"
    latents = vae.get("latent_channels", 4)
    for way in ("in_channels", "out_channels"):
        if (n := unet.get(way, 4)) != latents:
            raise refuse(
                f"{way} {n!r:.40} in {file}",
                f"{latents}, as many as the autoencoder's latents have: no inpainting, no depth",
            )
    for entry in BESIDE:
        if unet.get(entry) is not None:
            raise refuse(
                f"{entry} {unet[entry]!r:.40} in {file}",
                "none: it is given latents, a timestep and text alone",
            )
    if (attention := unet.get("attention_type", "default")) != "default":
        raise refuse(
            f"attention_type {attention!r:.40} in {file}", "default: it is given text alone, and no boxes"
        )
    wide = unet.get("cross_attention_dim", 1280)
    width = text.get("hidden_size", 512)
    if any(n != width for n in (wide if isinstance(wide, list) else [wide])):
        raise refuse(
            f"cross_attention_dim {wide!r:.40} in {file}", f"{width}, the text encoder's hidden_size"
        )
    if vae.get("shift_factor") is not None:
        raise refuse(
            f"shift_factor in {folder / 'vae' / 'config.json'}",
            "an autoencoder of Stable Diffusion 1 or 2, which has none",
        )
    if not _between(scale := vae.get("scaling_factor", 0.18215), 0, float("inf")):
        raise refuse(f"scaling_factor {scale!r:.40} in {folder / 'vae' / 'config.json'}", "a number above 0")


def _verify_scheduler(file: Path, config: Mapping[str, Any], refuse: Refuse) -> None:
    name = str(config.get("_class_name"))
    known = SAMPLERS.split()
    if name.removesuffix("Scheduler") not in known or config.get("use_flow_sigmas"):
        flow = (
            "flow matching"
            if config.get("use_flow_sigmas") or name.startswith("Flow")
            else "not what it is trained with"
        )
        raise refuse(
            f"_class_name {name!r:.60} in {file} ({flow})",
            f"one of {', '.join(f'{n}Scheduler' for n in known[:6])}, ...",
        )
    if (kind := config.get("prediction_type", "epsilon")) not in PREDICTIONS:
        raise refuse(f"prediction_type {kind!r:.40} in {file}", " or ".join(PREDICTIONS))
    if str(variance := config.get("variance_type")).startswith("learned"):
        raise refuse(
            f"variance_type {variance!r:.40} in {file}",
            "a fixed one: a variance that the U-Net predicts is not trained",
        )
    if config.get("rescale_betas_zero_snr") and kind == "epsilon":  # Lin et al. 2024 (2305.08891), sec. 3.2
        raise refuse(
            f"rescale_betas_zero_snr and epsilon in {file}",
            "v_prediction, where the last step is noise alone",
        )
    _verify_betas(file, config, refuse)


def _verify_betas(file: Path, config: Mapping[str, Any], refuse: Refuse) -> None:
    """What is not written would be a default, and samplers differ in theirs."""
    steps = config.get("num_train_timesteps", 1000)
    trained = config.get("trained_betas")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 < steps <= MOST_STEPS:
        raise refuse(
            f"num_train_timesteps {steps!r:.40} in {file}", f"a whole number from 1 to {MOST_STEPS:,}"
        )
    if trained is not None:
        if (
            not isinstance(trained, list)
            or len(trained) != steps
            or not all(_between(beta, 0, 1) for beta in trained)
        ):
            raise refuse(
                f"trained_betas in {file}", f"{steps} numbers between 0 and 1, one a timestep, or null"
            )
        return
    if (betas := config.get("beta_schedule")) not in BETAS:
        raise refuse(f"beta_schedule {betas!r:.40} in {file}", " or ".join(BETAS))
    start: Any = config.get("beta_start")
    end: Any = config.get("beta_end")
    if not (_between(start, 0, 1) and _between(end, 0, 1) and start <= end):
        raise refuse(
            f"beta_start {start!r:.40} and beta_end {end!r:.40} in {file}",
            "numbers between 0 and 1, the smaller first",
        )


def _between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low < value < high


def stored(folder: Path, name: str, key: str) -> set[str]:
    """The names of a part's tensors as its network has them; the libraries still load those of older
    versions.

    Raises:
        Refused: where its files are not whole.
    """

    def refuse(got: object, expected: str) -> Refused:
        return Refused(key, got, expected)

    names = set()
    for tensor in _verify_weights(folder / name, WEIGHTS[name], refuse):
        path = tensor.removeprefix("text_model.").split(".")
        if len(path) > 2 and "attentions" in path:
            path[-2] = OLD_ATTENTION.get(path[-2], path[-2])
        names.add(".".join(path))
    return names


def _verify_weights(part: Path, stem: str, refuse: Refuse) -> set[str]:
    """The names of the tensors in one safetensors file, or in several and an index of what is in which."""
    file = part / f"{stem}.safetensors"
    index = part / f"{stem}.safetensors.index.json"
    for one in (file, index):
        refuse_pointer(one, refuse)
    names = set(tensors_in(file, refuse)) if file.exists() else set()
    if not index.exists():
        if file.exists():
            return names
        raise _without_weights(part, stem, refuse)
    weight_map = json_object(index, refuse).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(name, str) for name in weight_map.values())
    ):
        raise refuse(f"{index} without a weight_map", "which tensor is in which file")
    for name in sorted(set(weight_map.values())):
        if not re.fullmatch(r"[\w.-]+\.safetensors", name):
            raise refuse(f"{name!r:.60} in {index}", "files beside it")
        if not (part / name).exists():
            raise refuse(f"{part} without {name}, which its index names", "all of its parts")
        there = tensors_in(part / name, refuse)
        lacking = [tensor for tensor, where in weight_map.items() if where == name and tensor not in there]
        if lacking:
            raise refuse(f"{part / name} without {listed(lacking)}", "what its index says of it")
        names |= there.keys()
    return names


def _without_weights(part: Path, stem: str, refuse: Refuse) -> Refused:
    variants = sorted(p.name for p in part.glob(f"{stem}*.safetensors*"))
    pickled = sorted(p.name for suffix in ("bin", "ckpt", "pt") for p in part.glob(f"*.{suffix}"))
    if variants:
        return refuse(
            f"{part} with {listed(variants)} alone",
            f"{stem}.safetensors (a variant by that name is read as it is)",
        )
    if pickled:
        return refuse(
            f"{part} with {listed(pickled)} alone, which are pickles", REWRITE.format(folder=part.parent)
        )
    return refuse(f"{part} without weights", f"{stem}.safetensors in it")


def listed(names: list[str], most: int = 5) -> str:
    """Names, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
