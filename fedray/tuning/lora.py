"""LoRA (Hu et al. 2021): w' = w + (alpha / rank) B A, through peft."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fedray.randomness import SERVER, key
from fedray.scenario.base import Refused
from fedray.scenario.tuning import Lora

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
KOHYA_UNET = [*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
KOHYA_FILE = "kohya_lora.safetensors"
KOHYA_TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def apply(
    section: Lora, parts: Mapping[str, nn.Module], seed: int, freeze_a: bool = False
) -> dict[str, nn.Parameter]:
    """Puts adapters beside the target layers; their first values are keyed by the seed, B is zero. Gives what
    trains: A and B, or B alone.

    Raises:
        Refused: for targets that no layer has.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = {"attention": {"unet": ATTENTION}, "kohya": {"unet": KOHYA_UNET, "text_encoder": KOHYA_TEXT}}
    chosen = targets[section.targets] if isinstance(section.targets, str) else {"unet": list(section.targets)}
    for part, names in chosen.items():
        model = parts[part]
        layers = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding)
        ]
        for name in names:
            if not any(f".{layer}".endswith(f".{name}") for layer in layers):
                raise Refused(
                    "tuning.targets", repr(name), f"names of layers of the {part}, such as {ATTENTION[0]}"
                )
        meta = next(model.parameters()).is_meta
        options: dict[str, Any] = {
            "r": section.rank,
            "lora_alpha": section.alpha_or_rank,
            "lora_dropout": section.dropout,
        }
        config = LoraConfig(**options, target_modules=names, init_lora_weights="gaussian")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(seed, 0, SERVER, f"adapter {part}"))
            inject_adapter_in_model(config, model, low_cpu_mem_usage=meta)
    found = adapters(parts)
    for parameter in found.values():
        parameter.requires_grad_(False)
    return {name: p for name, p in found.items() if not (freeze_a and ".lora_A." in name)}


def adapters(parts: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Every adapter tensor by its key in diffusers' file, in the keys' order."""
    named = (
        (file_name(part, name), p)
        for part, model in parts.items()
        for name, p in model.named_parameters()
        if ".lora_" in name
    )
    return dict(sorted(named))


def base_weights(parts: Mapping[str, nn.Module], names: Sequence[str]) -> list[Tensor]:
    """The frozen weights that the adapters of these names stand beside, in the names' order, one a layer."""
    layers = {
        file_name(part, name): module
        for part, model in parts.items()
        for name, module in model.named_modules()
    }
    beside = (name.removesuffix(".lora_A.weight") for name in names if name.endswith(".lora_A.weight"))
    return [cast(Any, layers[name]).get_base_layer().weight for name in beside]


def file_name(part: str, name: str) -> str:
    """An adapter tensor's key in diffusers' file: peft's names, the text encoder by the prefix it had before
    transformers 5.6, which new readers know too. (The names diffusers' own conversion would give are mixed
    for these targets, `.lora.down` beside `.lora_A`, and its reader then leaves out the U-Net's
    attention.)"""
    if part == "text_encoder" and not name.startswith("text_model."):
        name = "text_model." + name
    return f"{part}.{name.replace('.default.', '.')}"


def kohya_tensors(adapter: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The same adapter under kohya-ss's names, with an alpha a layer, for ComfyUI and A1111."""
    out: dict[str, Tensor] = {}
    for name, tensor in adapter.items():
        layer, _, side = name.removesuffix(".weight").rpartition(".lora_")
        part, path = layer.split(".", 1)
        stem = {"unet": "lora_unet_", "text_encoder": "lora_te_"}[part] + path.replace(".", "_")
        out[stem + (".lora_down.weight" if side == "A" else ".lora_up.weight")] = tensor
        out[stem + ".alpha"] = torch.tensor(alpha, dtype=tensor.dtype, device=tensor.device)
    return out


def merge(parts: Mapping[str, nn.Module]) -> None:
    """w' = w + v, in place, and the adapters gone: inference costs what the base's did (huang2023, Step
    4)."""
    from diffusers.utils import recurse_remove_peft_layers
    from peft.tuners.tuners_utils import BaseTunerLayer

    for part in parts.values():
        for module in part.modules():
            if isinstance(module, BaseTunerLayer):
                module.merge()
        recurse_remove_peft_layers(part)


def save(adapter: Mapping[str, Tensor], section: Lora, folder: Path) -> None:
    """diffusers' file, opened by `load_lora_weights(folder)`, and kohya's beside it. diffusers takes alpha =
    rank where a file does not say, so there B carries the scale alpha / rank."""
    from safetensors.torch import save_file

    scaled = {n: t * section.scale if n.endswith(".lora_B.weight") else t for n, t in adapter.items()}
    save_file(scaled, str(folder / DIFFUSERS_FILE), metadata={"format": "pt"})
    save_file(
        kohya_tensors(adapter, section.alpha_or_rank), str(folder / KOHYA_FILE), metadata={"format": "pt"}
    )
