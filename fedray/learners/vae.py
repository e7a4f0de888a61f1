"""vae: a variational autoencoder of images (Kingma and Welling 2014), whose encoder and decoder are parts."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedray.data import DatasetInfo, Samples
from fedray.learners.contexts import EvaluationContext, LearnerContext, Sampling
from fedray.learners.learner import Learner
from fedray.learners.losses import weighted_mean
from fedray.learners.pictures import ImageShard, scaled
from fedray.learners.sheets import write_sheet
from fedray.learners.stages import Stage
from fedray.randomness import SERVER, key
from fedray.scenario.base import Refused
from fedray.scenario.vae import Vae as Section

CONFIG = "config.json"
AT_ONCE = 250  # images that are measured or sampled in one go
RECONSTRUCTED = 8  # images on a sheet
ACTIVE = (
    0.01  # variance of a latent number's mean over images, from which on it is active (Burda et al. 2016)
)


@dataclass
class ImagesWithNoise:
    """One step's inputs, every draw made. b samples."""

    images: Tensor  # [b, c, h, w] in -1..1
    noise: Tensor  # [b, latent], from which the latent vector is drawn
    weight: Tensor | None = None  # [b], of each sample in the loss


class Encoder(nn.Module):
    """From images to the posterior of their latent vectors."""

    def __init__(self, section: Section, channels: int, side: int) -> None:
        """`channels` of an image; `side` of the smallest feature maps, in pixels."""
        super().__init__()
        widths = [channels, *section.channels]
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, behind, 4, stride=2, padding=1), nn.SiLU())
            for before, behind in pairwise(widths)
        )
        self.posterior = nn.Linear(widths[-1] * side**2, 2 * section.latent)


class Decoder(nn.Module):
    """From latent vectors to logits of the pixels' means."""

    def __init__(self, section: Section, channels: int, side: int) -> None:
        """`channels` of an image; `side` of the smallest feature maps, in pixels."""
        super().__init__()
        widths = [*reversed(section.channels), channels]
        self.expand = nn.Sequential(
            nn.Linear(section.latent, widths[0] * side**2),
            nn.Unflatten(1, (widths[0], side, side)),
            nn.SiLU(),
        )
        layers = [
            nn.ConvTranspose2d(before, behind, 4, stride=2, padding=1) for before, behind in pairwise(widths)
        ]
        self.up = nn.ModuleList([*(nn.Sequential(layer, nn.SiLU()) for layer in layers[:-1]), layers[-1]])

    def forward(self, z: Tensor) -> Tensor:
        """[b, latent] to [b, c, h, w]."""
        x = self.expand(z)
        for layer in self.up:
            x = layer(x)
        return x


class Vae(Learner):
    """Encoder and decoder. Where the encoder stays with the clients (`tuning.local`), the server's has its
    initial values: what needs one is not measured, and it is not saved. Samples need the decoder alone."""

    counts_alike_on_cpu = True

    def __init__(self, section: Section, context: LearnerContext) -> None:
        super().__init__(section, context)
        self.refuse_no_size()
        levels = len(section.channels)
        if self.size % 2**levels:
            expected = f"a multiple of {2**levels}, for {levels} model.channels"
            raise Refused("model.resolution", self.size, expected)
        channels = context.dataset.channels
        side = self.size // 2**levels
        self.encoder = Encoder(section, channels, side)
        self.decoder = Decoder(section, channels, side)
        self.parts = {"encoder": self.encoder, "decoder": self.decoder}
        self.kl_weight = section.beta
        self.stages = self._stages()

    def _stages(self) -> tuple[Stage, ...]:
        down = [
            Stage(f"down_{i}", ("x" if i else "images",), ("x",), layer, (layer,))
            for i, layer in enumerate(self.encoder.down)
        ]
        latent = Stage("latent", ("x", "noise"), ("z", "kl"), self._latent, (self.encoder.posterior,))
        expand = Stage("expand", ("z",), ("x",), self.decoder.expand, (self.decoder.expand,))
        up = [Stage(f"up_{i}", ("x",), ("x",), layer, (layer,)) for i, layer in enumerate(self.decoder.up)]
        loss = Stage("loss", ("x", "images", "kl"), ("loss",), self._negative_elbo, optional=("weight",))
        return self.staged([*down, latent, expand, *up], loss)

    @property
    def default_parts(self) -> list[str]:
        return list(self.parts)

    # Training

    def prepare_round(self, round_number: int) -> None:
        self.kl_weight = self.section.kl_weight(round_number)

    def draw(self, shard: ImageShard, indices: np.ndarray, generator: torch.Generator) -> ImagesWithNoise:
        images = scaled(shard.images[torch.from_numpy(indices).to(self.device)])
        noise = torch.randn(len(images), self.section.latent, generator=generator).to(self.device)
        return ImagesWithNoise(images, noise)

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log variances [b, latent] fp32 of the encoder's last features [b, c, side, side]."""
        mean, log_variance = self.encoder.posterior(x.flatten(1)).float().chunk(2, dim=1)
        return mean, log_variance

    def _latent(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Latent vectors [b, latent], drawn by the reparameterization trick, and their KL divergence [b] as
        it counts in the loss."""
        mean, log_variance = self._posterior(x)
        z = mean + (log_variance / 2).exp() * noise
        return z, kl_divergence(mean, log_variance).clamp(min=self.section.free_bits).sum(1)

    def _negative_elbo(
        self, logits: Tensor, images: Tensor, kl: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        return weighted_mean(self._reconstruction(logits, images) + self.kl_weight * kl, weight)

    def _reconstruction(self, logits: Tensor, images: Tensor) -> Tensor:
        """-log p(x|z) [b] in nats of images [b, c, h, w] in -1..1, summed over pixels and channels.

        Args:
            logits: of the pixels' means [b, c, h, w].
            images: that the means are compared with.
        """
        pixels = images / 2 + 0.5
        if self.section.likelihood == "bernoulli":
            return bernoulli(logits.float(), pixels)
        return gaussian(logits.float().sigmoid(), pixels, self.section.std_or_default)

    # Evaluation and samples

    @torch.no_grad()
    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, float]:
        """The negative evidence lower bound (with a weight of 1, and without free bits) and its two terms, in
        nats an image; and how many latent numbers are active. Nothing where weights stay with the clients: a
        server without a trained encoder has no bound of its own."""
        if self.local_names:
            return {}
        generator = torch.Generator().manual_seed(key(self.context.seed, 0, SERVER, "test draws"))
        reconstruction = 0.0
        kl = 0.0
        means = []
        with self.evaluating(), self.autocast():
            for start in range(0, len(indices), AT_ONCE):
                chunk = indices[start : start + AT_ONCE]
                batch = self.draw(self.encode(samples, chunk), np.arange(len(chunk)), generator)
                mean, log_variance = self.encode_images(batch.images)
                logits = self.decoder(mean + (log_variance / 2).exp() * batch.noise)
                reconstruction += float(self._reconstruction(logits, batch.images).sum())
                kl += float(kl_divergence(mean, log_variance).sum())
                means.append(mean)
        n = len(indices)
        active = torch.cat(means).var(0, unbiased=False) > ACTIVE
        return {
            "eval_negative_elbo": (reconstruction + kl) / n,
            "eval_reconstruction_loss": reconstruction / n,
            "eval_kl": kl / n,
            "eval_active_units": float(active.sum()),
            "eval_samples": float(n),
        }

    def write_samples(self, context: EvaluationContext) -> None:
        """Beside samples from the prior, a sheet of the first held-out images above and their reconstructions
        below; none where weights stay with the clients, as the server's encoder is untrained there."""
        super().write_samples(context)
        if self.local_names or (test_set := context.test_set()) is None:
            return
        samples, indices = test_set
        shown = indices[:RECONSTRUCTED]
        name = context.sheet.name.replace("round-", "reconstructions-")
        write_sheet(self.reconstructions(samples, shown), len(shown), context.sheet.with_name(name))

    @torch.no_grad()
    def reconstructions(self, samples: Samples, indices: np.ndarray) -> Tensor:
        """[2n, 3, h, w] in 0..1 on the CPU: n images, then what the decoder makes of their posteriors' means.

        Args:
            samples: that have the images.
            indices: of n of them.
        """
        images = scaled(self.encode(samples, indices).images.to(self.device))
        with self.evaluating(), self.autocast():
            mean, _ = self.encode_images(images)
        with self.evaluating():
            made = self._means(mean)
        given = (images / 2 + 0.5).float().expand(-1, 3, -1, -1).cpu()
        return torch.cat([given, made])

    def encode_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log variances [b, latent] fp32 of the posterior of images [b, c, h, w] in -1..1."""
        for layer in self.encoder.down:
            images = layer(images)
        return self._posterior(images)

    @torch.no_grad()
    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> Tensor:
        """The mean image of a latent vector from the prior, one a seed; prompts are not read."""
        at_once = sampling.at_once or AT_ONCE
        latent = self.section.latent
        drawn = [torch.randn(latent, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        with self.evaluating():
            images = [self._means(z.to(self.device)) for z in torch.stack(drawn).split(at_once)]
        return torch.cat(images)

    def _means(self, z: Tensor) -> Tensor:
        """[b, 3, h, w] in 0..1 on the CPU, of latent vectors [b, latent]."""
        with self.autocast():
            logits = self.decoder(z)
        return logits.float().sigmoid().expand(-1, 3, -1, -1).cpu()

    # Files

    def save(self, folder: Path) -> None:
        """Weights as safetensors, without those that stay with the clients, and what built them."""
        super().save(folder)
        dataset = self.context.dataset
        facts = {
            "image_channels": dataset.channels,
            "size": self.size,
            "labels": list(dataset.label_names),
            "local_weights": sorted(self.local_names),
        }
        (folder / CONFIG).write_text(json.dumps(self.section.model_dump() | facts, indent=2) + "\n")

    def name_in_file(self, name: str) -> str:
        return name

    def load_weights(self, folder: Path) -> None:
        self.local_names = frozenset(_facts(folder)["local_weights"])
        super().load_weights(folder)

    @classmethod
    def exported_dataset(cls, section: Section, folder: Path) -> DatasetInfo:
        facts = _facts(folder)
        return DatasetInfo(facts["image_channels"], facts["size"], tuple(facts["labels"]))

    def _state(self) -> dict[str, Tensor]:
        return {name: t for name, t in super()._state().items() if name not in self.local_names}


def _facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    return facts


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Of diagonal Gaussians from the standard one, in nats a latent number [b, latent] (Kingma and Welling
    2014, App. B)."""
    return (mean.square() + log_variance.exp() - log_variance - 1) / 2


def bernoulli(logits: Tensor, pixels: Tensor) -> Tensor:
    """-log p [b] in nats of pixels [b, ...] in 0..1, summed; of a grey pixel the mean over black and white
    ones that are drawn by it. `logits`: of the probability of white."""
    each = F.binary_cross_entropy_with_logits(logits, pixels, reduction="none")
    return each.flatten(1).sum(1)


def gaussian(means: Tensor, pixels: Tensor, std: float) -> Tensor:
    """-log p [b] in nats of pixels [b, ...], summed, around means of the same shape."""
    each = ((pixels - means) / std).square() / 2 + math.log(std) + math.log(2 * math.pi) / 2
    return each.flatten(1).sum(1)
