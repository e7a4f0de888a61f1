"""The learners, by the `model.kind` a scenario names."""

from pathlib import Path

import torch

from fedray.data import form
from fedray.learners.bases import locate
from fedray.learners.learner import Learner
from fedray.scenario.model import Classifier as ClassifierSection
from fedray.scenario.model import TextToImage as TextToImageSection
from fedray.scenario.model import Transformer as TransformerSection
from fedray.scenario.scenario import Scenario


def load(scenario: Scenario, folder: Path, device: torch.device, compute: torch.dtype) -> Learner:
    """With weights: a base model's, or drawn from the seed."""
    section = scenario.model
    if isinstance(section, TextToImageSection):
        from fedray.learners.text_to_image import TextToImage

        base = locate(section.base, folder)
        return (
            TextToImage.on_meta(section, base)
            if device.type == "meta"
            else TextToImage.load(section, base, device, compute)
        )
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
    return load(scenario, folder, torch.device("meta"), torch.float32)
