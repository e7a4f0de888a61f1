"""classifier: images to labels, by a small convolutional network or torchvision's ResNet-18."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedray.data import Form, Samples
from fedray.learners.pictures import Shard, scaled
from fedray.randomness import SERVER, key
from fedray.scenario.base import Refused
from fedray.scenario.model import Classifier as Section

CHUNK = 500  # images that are classified in one go


class Classifier:
    keeps_shards = False
    weights_file = "model.safetensors"

    def __init__(self, section: Section, form: Form, seed: int, device: torch.device, compute: torch.dtype) -> None:
        self.section, self.form, self.device, self.compute = section, form, device, compute
        if (size := section.resolution or form.size) is None:
            raise Refused("model.resolution", "nothing", "pixels a side, since these images have no size of their own")
        self.size = size
        self.channels = 3 if section.network == "resnet18" else form.channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(seed, 0, SERVER, "weights"))
            with torch.device("meta") if device.type == "meta" else nullcontext():
                self.network = build(section, self.channels, self.size, len(form.label_names)).to(device).requires_grad_(False)
        self.parts: dict[str, nn.Module] = {"network": self.network}

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        self.network.train()

    def encode(self, samples: Samples, indices: np.ndarray) -> Shard:
        return Shard.of(samples, indices, self.size, self.device)

    def draw(self, shard: Shard, indices: np.ndarray, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        i = torch.from_numpy(indices).to(self.device)
        return self._scaled(shard.images[i]), shard.labels[i]

    def blank_batch(self) -> tuple[tuple[Tensor, Tensor], int]:
        """Two images: batch normalisation wants more than one."""
        images = torch.zeros(2, self.channels, self.size, self.size, device=self.device)
        return (images, torch.zeros(2, dtype=torch.long, device=self.device)), 2

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross entropy. A batch of one is normalised by the running means: alone it has no spread of its own."""
        images, labels = batch
        alone = len(images) == 1 and self.section.network == "resnet18" and self.section.norm == "batch"
        if alone:
            self.network.eval()
        loss = F.cross_entropy(self._logits(images), labels)
        if alone:
            self.network.train()
        return loss

    @torch.no_grad()
    def test(self, samples: Samples, chosen: np.ndarray) -> tuple[float, float]:
        """Accuracy and mean cross entropy over these images of a test set."""
        training = self.network.training
        self.network.eval()
        right, loss = 0, 0.0
        for start in range(0, len(chosen), CHUNK):
            shard = self.encode(samples, chosen[start : start + CHUNK])
            logits = self._logits(self._scaled(shard.images))
            right += int((logits.argmax(1) == shard.labels).sum())
            loss += float(F.cross_entropy(logits, shard.labels, reduction="sum"))
        self.network.train(training)
        return right / len(chosen), loss / len(chosen)

    def save(self, folder: Path) -> None:
        """Weights as safetensors under the network's own names, and what built it."""
        from safetensors.torch import save_file

        tensors = {name: t.detach().clone().contiguous() for name, t in self.network.state_dict().items()}
        save_file(tensors, str(folder / self.weights_file), metadata={"format": "pt"})
        facts: dict[str, Any] = self.section.model_dump()
        facts |= {
            "channels": self.channels,
            "size": self.size,
            "labels": list(self.form.label_names),
        }
        (folder / "config.json").write_text(json.dumps(facts, indent=2) + "\n")

    def _scaled(self, images: Tensor) -> Tensor:
        """Grey as three equal channels where the network wants colour."""
        return scaled(images.expand(-1, self.channels, -1, -1))

    def _logits(self, images: Tensor) -> Tensor:
        if self.compute == torch.float32:
            return self.network(images)
        with torch.autocast(self.device.type, self.compute):
            return self.network(images).float()


def build(section: Section, channels: int, size: int, labels: int) -> nn.Module:
    if section.network == "cnn":
        side = ((size - 2) // 2 - 2) // 2
        return nn.Sequential(
            nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * side * side, 128), nn.ReLU(), nn.Linear(128, labels),
        )  # fmt: skip
    from torchvision.models import resnet18

    group = None if section.norm == "batch" else lambda channels: nn.GroupNorm(32, channels)  # 32: Wu and He 2018
    return resnet18(num_classes=labels, norm_layer=group)
