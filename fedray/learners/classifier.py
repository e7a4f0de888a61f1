"""classifier: images to labels, by a small convolutional network or torchvision's ResNet-18."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedray.data import Samples
from fedray.learners.contexts import LearnerContext
from fedray.learners.learner import Learner, in_evaluation
from fedray.learners.losses import cross_entropy
from fedray.learners.pictures import ImageShard, scaled
from fedray.learners.stage_names import CLASSIFIERS
from fedray.learners.stages import Stage
from fedray.scenario.model import Classifier as Section

CHUNK = 500  # images that are classified in one go


@dataclass
class LabelledImages:
    """One step's inputs. b samples."""

    images: Tensor  # [b, c, h, w] in -1..1
    labels: Tensor  # [b] int64
    weight: Tensor | None = None  # [b], of each sample in the loss


class Classifier(Learner):
    counts_alike_on_cpu = True

    def __init__(self, section: Section, context: LearnerContext) -> None:
        super().__init__(section, context)
        self.refuse_no_size()
        dataset = context.dataset
        self.channels = 3 if section.network == "resnet18" else dataset.channels
        self.network = build(section, self.channels, self.size, len(dataset.label_names))
        self.parts = {"network": self.network}
        pieces = _pieces(section, self.network)
        needs = ("images", *["x"] * 9)
        stages = [
            Stage(name, (needed,), ("x",), step, modules)
            for needed, (name, step, modules) in zip(needs, pieces, strict=False)
        ]
        loss = Stage("loss", ("x", "labels"), ("loss",), cross_entropy, optional=("weight",))
        self.stages = self.staged(stages, loss)

    def draw(self, shard: ImageShard, indices: np.ndarray, generator: torch.Generator) -> LabelledImages:
        i = torch.from_numpy(indices).to(self.device)
        return LabelledImages(self._scaled(shard.images[i]), shard.labels[i])

    @torch.no_grad()
    def metrics(self, batch: LabelledImages) -> dict[str, float]:
        with self.autocast():
            logits = self.network(batch.images)
        return {"eval_accuracy": float((logits.argmax(1) == batch.labels).float().mean())}

    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, float]:
        accuracy, loss = self.test(samples, indices)
        return {"eval_accuracy": accuracy, "eval_loss": loss, "eval_samples": float(len(indices))}

    @torch.no_grad()
    def test(self, samples: Samples, chosen: np.ndarray) -> tuple[float, float]:
        """Accuracy and mean cross entropy over these images of a test set."""
        right = 0
        loss = 0.0
        with self.evaluating(), self.autocast():
            for start in range(0, len(chosen), CHUNK):
                shard = self.encode(samples, chosen[start : start + CHUNK])
                logits = self.network(self._scaled(shard.images)).float()
                right += int((logits.argmax(1) == shard.labels).sum())
                loss += float(F.cross_entropy(logits, shard.labels, reduction="sum"))
        return right / len(chosen), loss / len(chosen)

    @torch.no_grad()
    def probabilities(self, samples: Samples) -> np.ndarray:
        """What each image [n] shows, in its view: fp32 [n, labels], each row's sum 1."""
        rows: list[np.ndarray] = []
        with self.evaluating(), self.autocast():
            for start in range(0, len(samples), CHUNK):
                chunk = np.arange(start, min(start + CHUNK, len(samples)))
                logits = self.network(self._scaled(self.encode(samples, chunk).images)).float()
                rows.append(logits.softmax(1).cpu().numpy())
        return np.concatenate(rows)

    def save(self, folder: Path) -> None:
        """Weights as safetensors under the network's own names, and what built it."""
        super().save(folder)
        facts = self.section.model_dump() | {
            "channels": self.channels,
            "size": self.size,
            "labels": list(self.context.dataset.label_names),
        }
        (folder / "config.json").write_text(json.dumps(facts, indent=2) + "\n")

    def _scaled(self, images: Tensor) -> Tensor:
        """Grey as three equal channels where the network wants colour."""
        return scaled(images.expand(-1, self.channels, -1, -1))


def build(section: Section, channels: int, size: int, labels: int) -> nn.Module:
    if section.network in ("cnn", "cnn_norm"):
        side = ((size - 2) // 2 - 2) // 2
        norm = _norm(section.norm) if section.network == "cnn_norm" else lambda channels: ()
        return nn.Sequential(
            nn.Conv2d(channels, 32, 3),
            *norm(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            *norm(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * side * side, 128),
            nn.ReLU(),
            nn.Linear(128, labels),
        )
    if section.network == "lenet":
        return _lenet(channels, size, labels)
    from torchvision.models import resnet18

    return resnet18(num_classes=labels, norm_layer=lambda channels: _norm(section.norm)(channels)[0])


def _norm(kind: str) -> Callable[[int], tuple[nn.Module, ...]]:
    """A normalization layer of so many channels."""
    if kind == "batch":
        return lambda channels: (nn.BatchNorm2d(channels),)
    return lambda channels: (nn.GroupNorm(min(32, channels), channels),)  # 32: Wu and He 2018


def _lenet(channels: int, size: int, labels: int) -> nn.Module:
    """The network that Zhu et al. 2019 invert, with their initial weights: sigmoids instead of ReLU, strides
    instead of pooling."""
    side = -(-size // 4)
    network = nn.Sequential(
        nn.Conv2d(channels, 12, 5, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, padding=2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(12 * side * side, labels),
    )
    for weight in network.parameters():
        nn.init.uniform_(weight, -0.5, 0.5)
    return network


def _pieces(
    section: Section, network: Any
) -> list[tuple[str, Callable[[Tensor], Tensor], tuple[nn.Module, ...]]]:
    """The network's pieces: names, what they do, their modules."""
    if section.network != "resnet18":
        starts = {"cnn": (0, 3, 6, 9), "cnn_norm": (0, 4, 8, 11), "lenet": (0, 2, 4, 6)}[section.network]
        parts = [network[slice(*ends)] for ends in pairwise((*starts, None))]
        return [(name, part, (part,)) for name, part in zip(CLASSIFIERS[section.network], parts, strict=True)]
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    layers = [network.layer1, network.layer2, network.layer3, network.layer4]
    pieces: list[tuple[str, Callable[[Tensor], Tensor], tuple[nn.Module, ...]]] = []
    for name, module in zip(CLASSIFIERS["resnet18"], (stem, *layers), strict=False):
        pieces.append((name, _alone(module) if section.norm == "batch" else module, (module,)))
    return [*pieces, ("head", lambda x: network.fc(network.avgpool(x).flatten(1)), (network.fc,))]


def _alone(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A batch of one is normalised by the running means: alone it has no spread of its own."""

    def run(x: Tensor) -> Tensor:
        if len(x) > 1 or not module.training:
            return module(x)
        with in_evaluation(module):
            return module(x)

    return run
