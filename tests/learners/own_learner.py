"""A learner as a user writes one: a network of their own that finds the bright pixels of an image."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedray.learners.learner import Learner
from fedray.learners.losses import weighted_mean
from fedray.learners.pictures import scaled
from fedray.learners.stages import Stage
from fedray.scenario.model_section import ModelSection


class SegmenterSection(ModelSection):
    kind: Literal["segmenter"] = "segmenter"
    width: int = 4

    implementation: ClassVar[str] = "tests.learners.own_learner:Segmenter"
    generates: ClassVar[Literal["images"]] = "images"


class CountlessSection(SegmenterSection):
    implementation: ClassVar[str] = "tests.learners.own_learner:Countless"


@dataclass
class MaskedPixels:
    images: Tensor  # [b, 1, h, w] in -1..1
    masks: Tensor  # [b, 1, h, w] in 0..1
    weight: Tensor | None = None


class Segmenter(Learner):
    def __init__(self, section, context):
        super().__init__(section, context)
        self.first = nn.Conv2d(context.dataset.channels, section.width, 3, padding=1)
        self.normal = nn.BatchNorm2d(section.width)
        self.last = nn.Conv2d(section.width, 1, 1)
        self.parts = {"network": nn.ModuleList([self.first, self.normal, self.last])}
        pieces = [
            Stage("first", ("images",), ("x",), self.first, (self.first,)),
            Stage("normal", ("x",), ("x",), lambda x: F.relu(self.normal(x)), (self.normal,)),
            Stage("last", ("x",), ("x",), self.last, (self.last,)),
        ]
        loss = Stage("loss", ("x", "masks"), ("loss",), self.error, optional=("weight",))
        self.stages = self.staged(pieces, loss)

    def draw(self, shard, indices, generator):
        images = scaled(shard.images[torch.from_numpy(indices).to(self.device)])
        return MaskedPixels(images, (images > 0).float())

    @staticmethod
    def error(x, masks, weight=None):
        each = F.binary_cross_entropy_with_logits(x.float(), masks, reduction="none").flatten(1).mean(1)
        return weighted_mean(each, weight)

    def evaluate(self, context):
        found = super().evaluate(context)
        samples, indices = context.test_set()
        with torch.no_grad(), self.evaluating():
            batch = self.draw(self.encode(samples, indices), np.arange(len(indices)), torch.Generator())
            said, true = self.masks(batch.images) > 0, batch.masks > 0
        return found | {"eval_iou": float((said & true).sum() / (said | true).sum())}

    def masks(self, images):
        return self.last(F.relu(self.normal(self.first(images))))

    def sample(self, prompts, seeds, sampling):
        """Masks of noise."""
        shape = self.context.dataset.channels, self.size, self.size
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        with torch.no_grad(), self.evaluating():
            return self.masks(torch.stack(noise)).sigmoid().expand(-1, 3, -1, -1)


class Countless(Segmenter):
    """It runs neither on the meta device nor in pieces."""

    flops_per_sample = 1e6

    def __init__(self, section, context):
        super().__init__(section, context)
        self.stages = ()

    def blank_batch(self):
        raise AssertionError("nobody asks for it")

    def loss(self, batch):
        return self.error(self.masks(batch.images), batch.masks, batch.weight)
