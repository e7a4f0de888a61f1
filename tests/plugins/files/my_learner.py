"""Learners as a user writes them: a network of their own on the data set's images."""

from dataclasses import dataclass

import torch
from my_network import Small  # a module beside this one
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

import fedray


@dataclass
class LabelledImages:
    images: Tensor  # [b, c, h, w] in 0..1
    labels: Tensor  # [b] int64


class SmallNet(fedray.Learner):
    """An own network, with names for the places where it may be cut."""

    class Section(fedray.Learner.Section):
        width: int = Field(default=8, ge=1, description="Numbers between the two layers.")

    def __init__(self, section, context):
        super().__init__(section, context)
        numbers = context.dataset.channels * self.size**2
        self.network = Small(numbers, section.width, len(context.dataset.label_names))
        self.parts = {"network": self.network}
        first, last = self.network.first, self.network.last
        pieces = [
            fedray.Stage("first", ("images",), ("x",), lambda x: F.relu(first(x.flatten(1))), (first,)),
            fedray.Stage("last", ("x",), ("logits",), last, (last,)),
        ]
        loss = fedray.Stage(
            "loss", ("logits", "labels"), ("loss",), lambda x, y: F.cross_entropy(x.float(), y)
        )
        self.stages = self.staged(pieces, loss)

    def draw(self, shard, indices, generator):
        i = torch.from_numpy(indices).to(self.device)
        return LabelledImages(shard.images[i].float() / 255, shard.labels[i])


class Countless(fedray.Learner):
    """It looks at its numbers, which there are none of on the meta device, and says itself what a step
    costs."""

    flops_per_sample = 1234.0

    def __init__(self, section, context):
        super().__init__(section, context)
        self.scale = nn.Linear(1, len(context.dataset.label_names))
        self.parts = {"scale": self.scale}

    def draw(self, shard, indices, generator):
        i = torch.from_numpy(indices).to(self.device)
        return LabelledImages(shard.images[i].float() / 255, shard.labels[i])

    def loss(self, batch):
        mean = float(batch.images.mean())
        brightness = batch.images.flatten(1).mean(1, keepdim=True) - mean
        return F.cross_entropy(self.scale(brightness), batch.labels)
