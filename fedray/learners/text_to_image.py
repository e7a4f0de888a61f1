"""A latent diffusion model (Rombach et al. 2022) trained on captioned images, on diffusers' networks.

What no tuning trains is computed once a client and kept: the latents' mean and standard deviation always, the
text embeddings where the text encoder is frozen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedray.data import Samples
from fedray.data.fitting import Size
from fedray.learners.adapter_files import KOHYA_FILE
from fedray.learners.base_networks import libraries_refuse
from fedray.learners.base_precision import BasePrecision
from fedray.learners.base_texts import cut_captions
from fedray.learners.bases import locate, refuse_unknown_to
from fedray.learners.contexts import LearnerContext
from fedray.learners.families.family import Conditions, open_family
from fedray.learners.flops import counted_flops
from fedray.learners.latent_buckets import in_buckets, shapes_of
from fedray.learners.latents import LatentBuckets, LatentShard, NoisedLatents
from fedray.learners.losses import weighted_mean
from fedray.learners.pictures import shaped_pixels
from fedray.learners.pipeline_generation import PipelineGeneration
from fedray.learners.prior import class_image_flops, class_images, joined
from fedray.learners.stages import Stage
from fedray.scenario.base import Refused
from fedray.scenario.text_to_image import TextToImage as Section
from fedray.scenario.tuning_section import TuningSection


class TextToImage(PipelineGeneration):
    """The networks, tokenizers and noise of one base model, as its family has them."""

    caches_samples = True
    weights_file = "diffusion_pytorch_model.safetensors"

    def __init__(self, section: Section, context: LearnerContext) -> None:
        """With weights: frozen networks are held in the dtype that is computed in, the autoencoder in fp32,
        as half overflows in it. On the meta device, from configurations alone."""
        super().__init__(section, context)
        self.base = locate(section.base, context.folder)
        with libraries_refuse(section.base, self.device):
            precision = BasePrecision.of(context.base_precision, self.compute, context.devices)
            self.family = open_family(self.base, section.base, self.device, precision)
            refuse_unknown_to(self.family.files, section)
            self.parts = self.family.parts
            self.vae = self.family.vae
            self.size = section.resolution or self.family.resolution
            if self.size % self.family.sides:
                raise Refused("model.resolution", self.size, f"a multiple of {self.family.sides}")
            self.family.noise.draw_from(section.min_timestep)
            side = self.size // self.family.latent_factor
            self.latent_shape = int(self.vae.config.latent_channels), side, side
            self.stages = self._stages()
        if context.in_buckets:
            assert self.buckets is not None  # refused now, not in a client's first round

    @property
    def tunable_parts(self) -> list[str]:
        return list(self.family.trainable)

    @property
    def trains_text(self) -> bool:
        return self.family.trains_text

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        """To be called once the tuning has said what trains: dropout on, and memory saved where it is asked
        for. Text encoders that do not train are offloaded."""
        self.family.denoiser.train()
        trained = [e for e in self.family.text_encoders if any(p.requires_grad for p in e.parameters())]
        for encoder in trained:
            encoder.train()
        if gradient_checkpointing:
            self.family.denoiser.enable_gradient_checkpointing()
            for encoder in trained:
                encoder.gradient_checkpointing_enable()
        self.family.text_memory.offload()

    def encode(self, samples: Samples, indices: np.ndarray) -> LatentShard:
        """A client's samples as latents and text, on the learner's device."""
        return self._encoded(samples, indices)

    @torch.no_grad()
    def _encoded(
        self,
        samples: Samples,
        indices: np.ndarray,
        mirrors: bool = False,
        shape: Size | None = None,
    ) -> LatentShard:
        """The same.

        Args:
            samples: of a client.
            indices: which of them.
            mirrors: whether the latents of the mirror images are beside them.
            shape: width and height of the images; None: squares.
        """
        means = []
        stds = []
        mirrored = []
        sizes = []
        conditions = []
        for i in indices:
            image = samples.image(int(i))
            sizes.append(image.size)
            pixels = shaped_pixels(image, shape or (self.size, self.size), samples.pads).to(self.device)
            posterior = self.vae.encode(pixels[None] * 2 - 1).latent_dist
            means.append(posterior.mean)
            stds.append(posterior.std)
            if mirrors:
                mirrored.append(self.vae.encode(pixels.flip(-1)[None] * 2 - 1).latent_dist)
            if (condition := self._condition(samples, int(i), pixels)) is not None:
                conditions.append(condition)
        captions = [samples.captions[int(i)] for i in indices]
        rows = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
        texts = torch.tensor([rows[caption] for caption in captions], device=self.device)
        ids = self.family.tokenize([*rows, ""])
        hidden = None if self.trains_text else self.family.embed_in_chunks(ids)
        of_image = self.family.image_conditions(sizes, self.size, shape, samples.pads)
        condition = torch.stack(conditions) if conditions else None
        shard = LatentShard(
            torch.cat(means), torch.cat(stds), texts, ids, hidden, of_image, condition=condition
        )
        if mirrors:
            shard.mirrored = torch.cat([m.mean for m in mirrored]), torch.cat([m.std for m in mirrored])
        return shard

    def augmented(
        self, shard: LatentShard | LatentBuckets, indices: np.ndarray, generator: torch.Generator
    ) -> LatentShard:
        """These samples, each as it is or as its mirror image."""
        if isinstance(shard, LatentBuckets):
            shard, indices = shard.of(indices)
        mirrored = torch.zeros(len(indices), dtype=torch.bool)
        for augment in self.augments:
            mirrored ^= augment.mirrored(len(indices), generator)
        i = torch.from_numpy(indices).to(shard.mean.device)
        return shard.rows(i, mirrored.to(i.device))

    def _condition(self, samples: Samples, i: int, pixels: Tensor) -> Tensor | None:
        """What a ControlNet takes of sample i, whose pixels are [3, size, size]; None where there is none."""
        return None

    @cached_property
    def buckets(self) -> list[Size]:
        """The shapes that images are trained on in. Raises Refused where it takes squares alone."""
        return shapes_of(self.family, self.size)

    def encode_client(
        self, client: int, samples: Samples, indices: np.ndarray
    ) -> LatentShard | LatentBuckets:
        """A client's samples, and class images beside them where there is a prior."""
        mirrors = bool(self.context.augment)
        if self.context.in_buckets:

            def encode(some: np.ndarray, shape: Size) -> LatentShard:
                return self._encoded(samples, some, mirrors, shape)

            return in_buckets(samples, indices, self.buckets, encode)
        shard = self._encoded(samples, indices, mirrors)
        if self.section.prior is not None:
            images = class_images(self, client)
            shard.class_images = self.encode(images, np.arange(len(images)))
        return shard

    def preparation_flops(self) -> float:
        """Of class images: the client generates them, unless the server does; then it encodes them."""
        prior = self.section.prior
        if prior is None:
            return 0.0
        generation = class_image_flops(self) if prior.at == "client" else 0.0
        return float(prior.images * (generation + self._encode_flops(1)))

    def encode_flops(self) -> float:
        """The autoencoder's first half, for a mirror image too where samples are flipped, and the text
        encoders where they are frozen: at most, as samples with one caption have it embedded once."""
        return self._encode_flops(2 if self.context.augment else 1)

    @torch.no_grad()
    def _encode_flops(self, images: int) -> float:
        """Of so many images with one caption."""
        pixels = torch.zeros(1, 3, self.size, self.size, device=self.device)
        flops = images * counted_flops(lambda: self.vae.encode(pixels))
        if not self.trains_text:
            flops += counted_flops(lambda: self.family.embed(self.family.blank_tokens(1)))
        return float(flops)

    def tokenize(self, captions: list[str]) -> Tensor:
        """Token ids [n, l] for the first text encoder."""
        return self.family.tokenize(captions)["text"]

    def draw(
        self, shard: LatentShard | LatentBuckets, indices: np.ndarray, generator: torch.Generator
    ) -> NoisedLatents:
        """Latents, noise, timesteps and dropped captions of one step; behind the samples' as many of class
        images, where there are some. Drawn on the CPU: the same on every device."""
        if isinstance(shard, LatentBuckets):
            shard, indices = shard.of(indices)
        own = self._draw(shard, indices, generator)
        if shard.class_images is None:
            return own
        n = len(shard.class_images)
        chosen = torch.randint(n, (len(indices),), generator=generator).numpy()
        weight = self.section.prior.weight
        return joined(own, self._draw(shard.class_images, chosen, generator), weight)

    def _draw(self, shard: LatentShard, indices: np.ndarray, generator: torch.Generator) -> NoisedLatents:
        b = len(indices)
        eps = torch.randn((2, b, *shard.mean.shape[1:]), generator=generator)
        timesteps = self.family.noise.draw(b, generator)
        dropped = torch.rand(b, generator=generator) < self.section.caption_dropout
        return self._batch(shard, indices, eps, timesteps, dropped)

    def noised(
        self, shard: LatentShard, indices: np.ndarray, levels: Tensor, generators: Sequence[torch.Generator]
    ) -> NoisedLatents:
        shape = (2, *shard.mean.shape[1:])
        eps = torch.stack([torch.randn(shape, generator=g) for g in generators], 1)
        dropped = torch.zeros(len(indices), dtype=torch.bool)
        return self._batch(shard, indices, eps, self.family.noise.at(levels), dropped)

    def _batch(
        self, shard: LatentShard, indices: np.ndarray, eps: Tensor, timesteps: Tensor, dropped: Tensor
    ) -> NoisedLatents:
        """One step's inputs of draws that were made on the CPU.

        Args:
            shard: a client's samples.
            indices: [b], of samples in the shard.
            eps: [2, b, c, h, w], of the latents and of the noise.
            timesteps: [b].
            dropped: bool [b], captions that are not read.
        """
        i = torch.from_numpy(indices).to(shard.mean.device)
        eps, timesteps, dropped = (t.to(i.device) for t in (eps, timesteps, dropped))
        latents = self.family.scaled(shard.mean[i] + shard.std[i] * eps[0])
        source = shard.ids if shard.hidden is None else shard.hidden
        texts = {
            name: values[torch.where(dropped, len(values) - 1, shard.texts[i])]
            for name, values in source.items()
        }
        of_image = {name: values[i] for name, values in shard.of_image.items()}
        condition = None if shard.condition is None else shard.condition[i]
        return NoisedLatents(latents, eps[1], timesteps, **texts, **of_image, condition=condition)

    def blank_batch(self) -> tuple[NoisedLatents, int]:
        """A batch of one on the learner's device with nothing in it, for counting work."""
        texts = self.family.blank_tokens(1)
        if not self.trains_text:
            with torch.no_grad():
                texts = {name: torch.zeros_like(value) for name, value in self.family.embed(texts).items()}
        blank = self._blank(texts)
        return blank if self.section.prior is None else joined(blank, blank, 1.0), 1

    def _blank(self, texts: Conditions) -> NoisedLatents:
        latents = torch.zeros(1, *self.latent_shape, device=self.device)
        timesteps = torch.zeros(1, dtype=torch.long, device=self.device)
        of_image = self.family.image_conditions([(self.size, self.size)], self.size)
        return NoisedLatents(latents, latents, timesteps, **texts, **of_image)

    def _denoising_stages(self) -> list[Stage]:
        return self.family.denoising_stages(self.latent_shape[1])

    def _stages(self) -> tuple[Stage, ...]:
        pieces = [self.family.text_stage(), *self._denoising_stages()]
        needs = ("predicted", "latents", "noise", "timesteps")
        loss = Stage("loss", needs, ("loss",), self._error, optional=("weight",))
        return self.staged(pieces, loss)

    def _error(
        self,
        predicted: Tensor,
        latents: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of what is predicted (noise or velocity), weighted by min-SNR where asked (Hang
        et al. 2023).

        Args:
            predicted: [b, c, h, w], by the network that denoises.
            latents: [b, c, h, w], without noise.
            noise: [b, c, h, w], that was added.
            timesteps: [b].
            weight: [b], of each sample beside that.
        """
        target = self.family.noise.target(latents, noise, timesteps)
        error = F.mse_loss(predicted.float(), target.float(), reduction="none").mean((1, 2, 3))
        if self.section.min_snr_gamma is None:
            return weighted_mean(error, weight)
        min_snr = self.family.noise.min_snr_weight(timesteps, self.section.min_snr_gamma)
        return weighted_mean(min_snr * error, weight)

    # Adapters

    def adapter_targets(self, chosen: str | Sequence[str]) -> dict[str, list[str]]:
        if isinstance(chosen, str):
            return self.family.adapter_targets(chosen)
        return super().adapter_targets(chosen)

    def adapter_key(self, part: str, name: str) -> str:
        return self.family.adapter_key(part, name)

    def adapter_files(
        self, adapter: Mapping[str, Tensor], scale: float, alpha: float
    ) -> dict[str, dict[str, Tensor]]:
        """diffusers' file, opened by `load_lora_weights(folder)`, and kohya's beside it where the family has
        one."""
        files = super().adapter_files(adapter, scale, alpha)
        kohya = self.family.kohya_tensors(adapter, alpha)
        return files | ({KOHYA_FILE: kohya} if kohya else {})

    # Files

    def save(self, folder: Path) -> None:
        """The whole pipeline as `from_pretrained` reads it."""
        self.family.save(self.pipeline(), folder)

    @classmethod
    def from_export(cls, section: Section, context: LearnerContext, folder: Path) -> Self:
        """An exported pipeline is a base like any other."""
        learner = cls.load(section.model_copy(update={"base": str(folder.resolve())}), context)
        learner.pipeline()  # its sampler is read here, and its tokenizer's limits below
        learner.family.tokenize([""])
        return learner

    @classmethod
    def notes(cls, section: Section, folder: Path, samples: Samples, tuning: TuningSection) -> list[str]:
        note = cut_captions(locate(section.base, folder), samples.captions, tuning.spelled)
        return [note] if note else []
