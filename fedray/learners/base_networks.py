"""The networks of a base model, with its weights or on the meta device, and what its files make the libraries
say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedray.errors import printable
from fedray.learners.base_families import FamilyFiles, PartFiles
from fedray.learners.base_folder import family_of, listed, stored, verify_loaded
from fedray.learners.base_precision import BasePrecision
from fedray.learners.base_tokenizer import TOKENIZERS
from fedray.learners.bases import Base
from fedray.scenario.base import Refused


def index_of(base: Base, name: str) -> tuple[FamilyFiles, dict[str, Any]]:
    """The family of a base model, and its model_index.json; `name` is what the scenario calls the base.

    Raises:
        Refused: for a pipeline of a family that is not trained here.
    """
    from diffusers import DiffusionPipeline

    source = str(base.configuration or base.source)
    index: Any = DiffusionPipeline.load_config(source, local_files_only=base.configuration is not None)
    return family_of(index, Path(name) / "model_index.json", partial(Refused, "model.base")), dict(index)


def load_parts(
    family: FamilyFiles, base: Base, name: str, device: torch.device, precision: BasePrecision
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The networks with their weights, and the tokenizers, each by name.

    Args:
        family: of the base.
        base: where they are.
        name: what the scenario calls it, for errors.
        device: where they shall be.
        precision: of frozen networks.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    parts = {}
    for part_name, part in family.parts.items():
        options: Any = {"subfolder": part_name, "use_safetensors": True, "local_files_only": base.local}
        if part.library == "transformers":  # it names no shapes otherwise; attention is torch's own
            options |= {"ignore_mismatched_sizes": True, "attn_implementation": "sdpa"}
        model, facts = network_class(part).from_pretrained(
            base.source, output_loading_info=True, **options, **precision.options(part_name, part)
        )
        network = whole(name, part_name, model, facts)
        parts[part_name] = precision.on_device(part_name, network, device, part_name == family.trainable[0])
    tokenizers = {
        part_name: _tokenizer_class(family.parts[encoder]).from_pretrained(
            base.source, subfolder=part_name, local_files_only=base.local
        )
        for part_name, encoder in family.tokenizers.items()
    }
    return parts, tokenizers


def network_class(part: PartFiles) -> Any:
    """diffusers' or transformers' class of a part."""
    return getattr(import_module(part.library), part.class_name)


def _tokenizer_class(encoder: PartFiles) -> Any:
    """transformers' class of the tokenizer for a text encoder."""
    return getattr(import_module("transformers"), TOKENIZERS[encoder.value][0])


def parts_on_meta(family: FamilyFiles, base: Base, name: str) -> dict[str, nn.Module]:
    """The same networks without weights or memory, for counting.

    Args:
        family: of the base.
        base: where their configurations are.
        name: what the scenario calls it, for errors.
    """
    from accelerate import init_empty_weights

    source = str(base.configuration or base.source)
    local = base.configuration is not None
    parts = {}
    for part_name, part in family.parts.items():
        kind = network_class(part)
        if part.library == "transformers":
            config = kind.config_class.from_pretrained(source, subfolder=part_name, local_files_only=local)
            build = kind
        else:
            config = kind.load_config(source, subfolder=part_name, local_files_only=local)
            build = kind.from_config
        with init_empty_weights(include_buffers=True):
            parts[part_name] = build(config)
    for part_name, model in parts.items() if base.local else ():
        there = stored(Path(base.source), part_name, family.parts[part_name].weights, "model.base")
        tied = getattr(model, "_tied_weights_keys", None) or ()  # a file holds them once
        lacking = [
            key
            for key in model.state_dict()
            if key not in tied and key.removeprefix("text_model.") not in there
        ]
        whole(name, part_name, model, {"missing_keys": lacking})
    return parts


def noise_config(
    family: FamilyFiles, base: Base, name: str, parts: Mapping[str, nn.Module]
) -> dict[str, Any]:
    """The configuration of the noise that a base was trained with. Of a base on the hub, whose files nobody
    has looked at before, it and the `parts` are verified.

    Args:
        family: of the base.
        base: where the configuration is.
        name: what the scenario calls it, for errors.
        parts: its networks.

    Raises:
        Refused: naming the file.
    """
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    result: Any = DDPMScheduler.load_config(
        str(base.configuration or base.source),
        subfolder="scheduler",
        local_files_only=base.configuration is not None,
    )
    if not base.local:
        loaded: dict[str, Any] = {part: network.config for part, network in parts.items()}
        for part, form in family.parts.items():
            if form.library == "transformers":
                loaded[part] = loaded[part].to_dict()
        verify_loaded(family, name, loaded, result, "model.base")
    config: dict[str, Any] = result
    return config


def whole(base: str, name: str, model: nn.Module, facts: Mapping[str, Any]) -> nn.Module:
    """The model, where all its weights were there and are numbers.

    Args:
        base: what the scenario calls it.
        name: of the part.
        model: the part's network.
        facts: what `from_pretrained` says of its loading.

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
    # quantized weights know no `isfinite`
    numbers = {key: t.dequantize() if type(t) is not torch.Tensor else t for key, t in numbers.items()}
    if broken := [key for key, t in numbers.items() if t.numel() and not _finite(t)]:
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


def _finite(numbers: Tensor) -> bool:
    """Whether none is infinite or no number. In one pass, as `isfinite` of each took half of a large base's
    loading; the least and the greatest are no number where any is."""
    return bool(torch.stack(torch.aminmax(numbers)).isfinite().all())


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
        expected = "a whole base model with safetensors weights"
        if device.type == "meta":
            expected = "a base model whose configuration is there, and whole"
        got = f"{base!r}, which does not load ({printable(reason[:200])})"
        raise Refused("model.base", got, expected) from e
