"""The networks of a base model, with its weights or on the meta device, and what its files make the libraries
say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedray.errors import printable
from fedray.learners.base_folder import listed, stored, verify_loaded
from fedray.learners.bases import Base
from fedray.scenario.base import Refused


def load_parts(
    base: Base, name: str, device: torch.device, compute: torch.dtype
) -> tuple[dict[str, nn.Module], Any]:
    """U-Net, text encoder and autoencoder with their weights, by name, and the tokenizer.

    Args:
        base: where they are.
        name: what the scenario calls it, for errors.
        device: where they shall be.
        compute: the dtype of frozen networks; the autoencoder is in fp32, as half overflows in it.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.utils import logging as diffusers_logging
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()

    def part(kind: Any, part_name: str, dtype: torch.dtype) -> nn.Module:
        options: Any = {"subfolder": part_name, "use_safetensors": True, "local_files_only": base.local}
        if kind is CLIPTextModel:  # it names no shapes otherwise; attention is torch's own
            options |= {"ignore_mismatched_sizes": True, "attn_implementation": "sdpa"}
        model, facts = kind.from_pretrained(
            base.source, torch_dtype=dtype, output_loading_info=True, **options
        )
        return _whole(name, part_name, model, facts).to(device)

    parts = {
        "unet": part(UNet2DConditionModel, "unet", compute),
        "text_encoder": part(CLIPTextModel, "text_encoder", compute),
        "vae": part(AutoencoderKL, "vae", torch.float32),
    }
    tokenizer = CLIPTokenizer.from_pretrained(base.source, subfolder="tokenizer", local_files_only=base.local)
    return parts, tokenizer


def parts_on_meta(base: Base, name: str) -> dict[str, nn.Module]:
    """The same networks without weights or memory, for counting; `name` is what the scenario calls it."""
    from accelerate import init_empty_weights
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    source = str(base.configuration or base.source)
    options: Any = {"local_files_only": base.configuration is not None}
    unet = UNet2DConditionModel.load_config(source, subfolder="unet", **options)
    vae = AutoencoderKL.load_config(source, subfolder="vae", **options)
    text = CLIPTextConfig.from_pretrained(source, subfolder="text_encoder", **options)
    with init_empty_weights(include_buffers=True):
        parts = {"unet": UNet2DConditionModel.from_config(unet), "text_encoder": CLIPTextModel(text)}
        parts["vae"] = AutoencoderKL.from_config(vae)
    for part_name, model in parts.items() if base.local else ():
        there = stored(Path(base.source), part_name, "model.base")
        _whole(name, part_name, model, {"missing_keys": model.state_dict().keys() - there})
    return parts


def noise_config(base: Base, name: str, parts: Mapping[str, nn.Module]) -> dict[str, Any]:
    """The configuration of the noise that a base was trained with. Of a base on the hub, whose files nobody
    has looked at before, it and the `parts` are verified.

    Raises:
        Refused: naming the file, under the `name` that the scenario has for it.
    """
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    result: Any = DDPMScheduler.load_config(
        str(base.configuration or base.source),
        subfolder="scheduler",
        local_files_only=base.configuration is not None,
    )
    if not base.local:
        loaded: dict[str, Any] = {part: network.config for part, network in parts.items()}
        loaded["text_encoder"] = loaded["text_encoder"].to_dict()
        verify_loaded(name, loaded, result, "model.base")
    config: dict[str, Any] = result
    return config


def _whole(base: str, name: str, model: nn.Module, facts: Mapping[str, Any]) -> nn.Module:
    """The model, where all its weights were there and are numbers.

    Raises:
        Refused: with the names of those that were not.
    """
    place = f"{base!r}, whose {name}"
    others = [
        key
        for key in facts.get("unexpected_keys") or ()
        if not str(key).endswith(("position_ids", "text_projection.weight"))
    ]
    missing = facts.get("missing_keys")
    mismatched = facts.get("mismatched_keys")
    for what, entries in (("lacks", missing), ("has other shapes of", mismatched), ("has besides", others)):
        if names := sorted(str(entry if isinstance(entry, str) else entry[0]) for entry in entries or ()):
            raise Refused(
                "model.base",
                f"{place} {what} {listed(names)}",
                "a whole one: with all the weights that it was trained with, and no others",
            )
    numbers = {key: t for key, t in model.state_dict().items() if t.is_floating_point() and not t.is_meta}
    if broken := [key for key, t in numbers.items() if not t.isfinite().all()]:
        half = (
            f" as {str(dtype).removeprefix('torch.')}"
            if (dtype := next(model.parameters()).dtype) == torch.float16
            else ""
        )
        raise Refused(
            "model.base",
            f"{place} has numbers that are not finite{half} in {listed(broken)}",
            "weights that are numbers",
        )
    return model


def cut_captions(base: Base, captions: Sequence[str]) -> str | None:
    """What a person should know of captions that are longer than what the text encoder reads; None where none
    is, or where the tokenizer is not on this machine."""
    from transformers import CLIPTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # it would say the same of the first one alone
    try:
        tokenizer: Any = CLIPTokenizer.from_pretrained(
            base.source, subfolder="tokenizer", local_files_only=True
        )
    except (OSError, ValueError):
        return None
    most = int(tokenizer.model_max_length)
    distinct = dict.fromkeys(captions)
    lengths = (
        dict(zip(distinct, map(len, tokenizer(list(distinct), truncation=False).input_ids), strict=True))
        if distinct
        else {}
    )
    if not (cut := [caption for caption in captions if lengths[caption] > most]):
        return None
    first = printable(cut[0] if len(cut[0]) <= 80 else cut[0][:77] + "...")
    longer = (
        f"{len(cut)} of {len(captions)} captions have more than the {most} tokens that the text encoder reads"
    )
    return f"{longer}, and are cut; the first: {first}"


@contextmanager
def libraries_refuse(base: str, device: torch.device) -> Iterator[None]:
    """Whatever diffusers and transformers raise over a stranger's files, of which there are many kinds,
    refuses the base that the scenario names; memory that runs out does not."""
    try:
        yield
    except (Refused, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as e:
        reason = next(iter(str(e).strip().splitlines()), "") or type(e).__name__
        expected = "a whole Stable Diffusion with safetensors weights"
        if device.type == "meta":
            expected = "a base model whose configuration is there, and whole"
        got = f"{base!r}, which does not load ({printable(reason[:200])})"
        raise Refused("model.base", got, expected) from e
