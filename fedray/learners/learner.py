"""What every learner offers, and the learners by the `model.kind` a scenario names. No federation in them."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fedray.data import Samples, form
from fedray.learners.bases import locate
from fedray.learners.stages import Stage
from fedray.scenario.model import Classifier as ClassifierSection
from fedray.scenario.model import TextToImage as TextToImageSection
from fedray.scenario.model import Transformer as TransformerSection
from fedray.scenario.scenario import Scenario


class Learner(Protocol):
    """A model with its loss. `Any` stands for the learner's own shard (a client's samples) and batch (a step's draws)."""

    parts: dict[str, nn.Module]  # what a tuning may train, by name; frozen until it does
    keeps_shards: bool  # whether a client's encoded samples are dear enough to be kept
    weights_file: str  # the name under which `save` writes what a whole training changes

    stages: tuple[Stage, ...]  # a step's pieces, from a batch's fields to `loss`

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        """To be called once the tuning has said what trains."""
        ...

    def encode(self, samples: Samples, indices: np.ndarray) -> Any:
        """A client's samples on the learner's device. Raises ValueError for one that cannot be read."""
        ...

    def draw(self, shard: Any, indices: np.ndarray, generator: torch.Generator) -> Any:
        """One step's inputs, every draw made, on the CPU: the same on every device."""
        ...

    def blank_batch(self) -> tuple[Any, int]:
        """A batch with nothing in it, for counting work, and how many samples it stands for."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """What all its stages together make of a batch: the mean over its samples, each of which counts the same."""
        ...

    def save(self, folder: Path) -> None:
        """The whole model in its ecosystem's own files."""
        ...


def load(scenario: Scenario, folder: Path, device: torch.device, compute: torch.dtype) -> Learner:
    """With weights: a base model's, or drawn from the seed."""
    section = scenario.model
    if isinstance(section, TextToImageSection):
        from fedray.learners.text_to_image import TextToImage

        return TextToImage.load(section, locate(section.base, folder), device, compute)
    samples = form(scenario.data, folder)
    if isinstance(section, ClassifierSection):
        from fedray.learners.classifier import Classifier

        return Classifier(section, samples, scenario.seed, device, compute)
    if isinstance(section, TransformerSection):
        from fedray.learners.transformer import Transformer

        return Transformer(section, samples, scenario.seed, device, compute)
    if section.server_from is not None:
        from fedray.learners.collafuse import CollaFuse

        return CollaFuse(section, samples, scenario.seed, device, compute)
    from fedray.learners.diffusion import Diffusion

    return Diffusion(section, samples, scenario.seed, device, compute)


def on_meta(scenario: Scenario, folder: Path) -> Learner:
    """Without weights or memory, for counting."""
    if isinstance(scenario.model, TextToImageSection):
        from fedray.learners.text_to_image import TextToImage

        return TextToImage.on_meta(scenario.model, locate(scenario.model.base, folder))
    return load(scenario, folder, torch.device("meta"), torch.float32)
