"""The kinds of tuning behind one face: `apply` says what trains and travels, `export` writes the result's files."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from torch import nn

from fedray.learners.text_to_image import TextToImage
from fedray.parameters import Layout, safetensors_bytes
from fedray.scenario.base import Refused
from fedray.scenario.tuning import Full, Lora, Tuning
from fedray.tuning import lora


def apply(section: Tuning, learner: TextToImage, seed: int) -> dict[str, nn.Parameter]:
    """The parameters that train and travel, by the name they travel under, in that order.

    Raises:
        Refused: for names that nothing in the model has.
    """
    if isinstance(section, Lora):
        found = lora.apply(section, learner.parts, seed)
    elif isinstance(section, Full):
        found = {f"{part}.{name}": p for part in section.parts for name, p in learner.parts[part].named_parameters()}
    else:
        names = {f"{part}.{name}": p for part in ("unet", "text_encoder") for name, p in learner.parts[part].named_parameters()}
        for pattern in section.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise Refused("tuning.patterns", repr(pattern), f"a pattern that names weights, such as {next(iter(names))!r}")
        found = {name: p for name, p in names.items() if any(fnmatchcase(name, pattern) for pattern in section.patterns)}
    for parameter in found.values():
        parameter.requires_grad_(True)
    return found


def export(section: Tuning, learner: TextToImage, layout: Layout, buffer: np.ndarray, folder: Path) -> None:
    """The result in its ecosystem's own files: the adapter, where there is one, and the whole pipeline, merged. The
    learner's parameters must hold `buffer` already; a LoRA learner has no adapter left afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(section, Lora):
        lora.save(layout.tensors(buffer), section, folder)
        lora.merge(learner.parts)
    learner.save(folder)


def export_files(section: Tuning, named: Mapping[str, nn.Parameter], layout: Layout) -> dict[str, int]:
    """Names and exact bytes of the files that hold what was trained, without writing them. The first is the one that
    diffusers reads."""
    entries = {n: (layout.file_dtype, s) for n, s in zip(layout.names, layout.shapes, strict=True)}
    if isinstance(section, Lora):
        kohya = {n: (layout.file_dtype, list(t.shape)) for n, t in lora.kohya_tensors(named, section.alpha_or_rank).items()}
        return {
            lora.DIFFUSERS_FILE: safetensors_bytes(entries),
            lora.KOHYA_FILE: safetensors_bytes(kohya),
        }
    return {"diffusion_pytorch_model.safetensors": safetensors_bytes(entries)}
