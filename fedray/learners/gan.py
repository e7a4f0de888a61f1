"""gan: a generator and a discriminator that learn from each other (Goodfellow et al. 2014).

One backward pass gives both networks their gradients. The discriminator's loss is of real images and of
generated ones that are detached from the generator; the generator's passes through the discriminator with
detached weights and copied buffers. So neither loss reaches the other's weights, and one flat buffer and one
optimizer, with groups where rates differ, serve both.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from fedray.data import DatasetInfo, Samples, captions
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.flops import counted_flops
from fedray.learners.gan_networks import Discriminator, Generator
from fedray.learners.learner import Learner
from fedray.learners.losses import weighted_mean
from fedray.learners.pictures import ImageShard, scaled
from fedray.learners.stages import Stage
from fedray.scenario.base import Refused
from fedray.scenario.gan import Gan as Section

AT_ONCE = 250  # images that are sampled in one go
CONFIG = "config.json"


@dataclass
class ImagesAndNoise:
    """One step's inputs, every draw made. b samples."""

    images: Tensor  # [b, c, h, w] in -1..1
    noise: Tensor  # [b, latent]
    labels: Tensor | None = None  # [b] int64, of real and of generated images
    weight: Tensor | None = None  # [b], of each sample in the loss


class Judged(NamedTuple):
    """Logits of the discriminator [b]."""

    real: Tensor
    detached: Tensor  # of generated images, from which no gradient reaches the generator
    generated: Tensor  # of the same, from which none reaches the discriminator


class Gan(Learner):
    counts_alike_on_cpu = True

    def __init__(self, section: Section, context: LearnerContext) -> None:
        super().__init__(section, context)
        self.refuse_no_size()
        if self.size % 4:
            raise Refused("model.resolution", self.size, "a multiple of 4: images are doubled twice")
        dataset = context.dataset
        labels = len(dataset.label_names) if section.conditional else 0
        if section.conditional and labels < 2:
            got = f"true for data of {labels} labels"
            raise Refused("model.conditional", got, "false, or data of two labels or more")
        self.generator = Generator(section, dataset.channels, self.size, labels)
        self.discriminator = Discriminator(section, dataset.channels, labels)
        self.parts = {"generator": self.generator, "discriminator": self.discriminator}
        label = ("labels",) if section.conditional else ()
        pieces = [
            Stage("z", ("noise",), ("z",), lambda noise: noise),
            Stage("generator", ("z", *label), ("generated",), self.generator, (self.generator,)),
        ]
        loss = Stage(
            "discriminator",
            ("generated", "images", *label),
            ("loss",),
            self._loss if section.conditional else self._unconditional_loss,
            (self.discriminator,),
            optional=("weight",),
        )
        self.stages = self.staged(pieces, loss)

    def draw(self, shard: ImageShard, indices: np.ndarray, generator: torch.Generator) -> ImagesAndNoise:
        i = torch.from_numpy(indices).to(self.device)
        noise = torch.randn((len(indices), self.section.latent), generator=generator).to(self.device)
        labels = shard.labels[i] if self.section.conditional else None
        return ImagesAndNoise(scaled(shard.images[i]), noise, labels)

    def judge(self, generated: Tensor, images: Tensor, labels: Tensor | None = None) -> Judged:
        """What the discriminator makes of a batch, with the gradients that each loss needs.

        Args:
            generated: [b, c, h, w] in -1..1.
            images: real ones, as many.
            labels: [b], of both.
        """
        discriminator = self.discriminator
        both = torch.cat([images, generated.detach()])
        real, detached = discriminator(both, None if labels is None else labels.repeat(2)).chunk(2)
        # its weights without gradients; copies of its buffers, which a pass may change, and has changed
        fixed = {name: weight.detach() for name, weight in discriminator.named_parameters()}
        fixed |= {name: buffer.clone() for name, buffer in discriminator.named_buffers()}
        inputs = (generated,) if labels is None else (generated, labels)
        return Judged(real, detached, functional_call(discriminator, fixed, inputs))

    def losses(self, judged: Judged) -> tuple[Tensor, Tensor]:
        """Of the discriminator and of the generator, each [b] in fp32."""
        real, detached, generated = (logits.float() for logits in judged)
        if self.section.loss == "hinge":
            return F.relu(1 - real) + F.relu(1 + detached), -generated
        return F.softplus(-real) + F.softplus(detached), F.softplus(-generated)

    def metrics(self, batch: ImagesAndNoise) -> dict[str, float]:
        """Both losses, and the shares of real and of generated images that the discriminator takes for what
        they are."""
        with self.autocast():
            generated = self.generator(batch.noise, batch.labels)
            judged = self.judge(generated, batch.images, batch.labels)
        of_discriminator, of_generator = self.losses(judged)
        return {
            "eval_loss_discriminator": float(of_discriminator.mean()),
            "eval_loss_generator": float(of_generator.mean()),
            "eval_accuracy_real": float((judged.real > 0).float().mean()),
            "eval_accuracy_generated": float((judged.detached <= 0).float().mean()),
        }

    @torch.no_grad()
    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> Tensor:
        """One image a seed; where images follow a label, of the label that its prompt names.

        Raises:
            Refused: for a prompt that names none.
        """
        labels = None
        if self.section.conditional:
            labels = torch.tensor(labels_in(prompts, self.context.dataset.label_names, "prompt"))
        latent = self.section.latent
        noise = torch.stack([torch.randn(latent, generator=torch.Generator().manual_seed(s)) for s in seeds])
        at_once = sampling.at_once or AT_ONCE
        images = []
        with self.evaluating(), self.autocast():
            for start in range(0, len(seeds), at_once):
                some = slice(start, start + at_once)
                of_labels = () if labels is None else (labels[some].to(self.device),)
                images.append(self.generator(noise[some].to(self.device), *of_labels).float().cpu())
        return (torch.cat(images) / 2 + 0.5).clamp(0, 1).expand(-1, 3, -1, -1)

    def sample_flops(self, sampling: Sampling) -> float:
        noise = torch.zeros(1, self.section.latent, device=self.device)
        labels = torch.zeros(1, dtype=torch.long, device=self.device) if self.section.conditional else None
        with self.evaluating():
            return float(counted_flops(lambda: self.generator(noise, labels)))

    def usual_prompts(self) -> list[str]:
        if self.section.conditional:
            return list(self.context.dataset.label_names)
        return super().usual_prompts()

    @classmethod
    def refuse_prompts(cls, section: Section, prompts: Sequence[str], dataset: DatasetInfo) -> None:
        if section.conditional:
            labels_in(prompts, dataset.label_names, "evaluation.prompts")

    def prompts_of(self, samples: Samples, indices: np.ndarray) -> list[str]:
        return [samples.label_names[k] for k in samples.labels[indices]]

    def travelling_buffers(self) -> dict[str, Tensor]:
        """With the vectors by which spectral normalisation finds singular values: they follow the weights."""
        vectors = {
            f"discriminator.{name}": buffer
            for name, buffer in self.discriminator.named_buffers()
            if name.endswith(("._u", "._v"))
        }
        return super().travelling_buffers() | vectors

    @property
    def default_parts(self) -> list[str]:
        return list(self.parts)

    def name_in_file(self, name: str) -> str:
        return name

    def save(self, folder: Path) -> None:
        """Both networks' weights as safetensors, and what built them."""
        super().save(folder)
        dataset = self.context.dataset
        facts = self.section.model_dump() | {
            "channels": dataset.channels,
            "size": self.size,
            "labels": list(dataset.label_names),
        }
        (folder / CONFIG).write_text(json.dumps(facts, indent=2) + "\n")

    @classmethod
    def exported_dataset(cls, section: Section, folder: Path) -> DatasetInfo:
        facts = json.loads((folder / CONFIG).read_text())
        return DatasetInfo(facts["channels"], facts["size"], tuple(facts["labels"]))

    def _loss(
        self, generated: Tensor, images: Tensor, labels: Tensor | None, weight: Tensor | None = None
    ) -> Tensor:
        """Both losses' sum: each has gradients for its own network alone."""
        with self.autocast():
            judged = self.judge(generated, images, labels)
        of_discriminator, of_generator = self.losses(judged)
        return weighted_mean(of_discriminator + of_generator, weight)

    def _unconditional_loss(self, generated: Tensor, images: Tensor, weight: Tensor | None = None) -> Tensor:
        return self._loss(generated, images, None, weight)


def labels_in(prompts: Sequence[str], names: Sequence[str], key: str) -> list[int]:
    """The number of the label that each prompt names; `key` is what an error says that the prompts are.

    Raises:
        Refused: for a prompt that names none.
    """
    try:
        return captions.labels_in(prompts, names)
    except captions.NoLabel as e:
        raise Refused(key, repr(e.text), f"one that names one of {', '.join(names)}") from None
