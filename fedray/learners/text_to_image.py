"""A latent diffusion model (Rombach et al. 2022) trained on captioned images, on diffusers' networks.

What no tuning trains is computed once a client and kept: the latents' mean and standard deviation always, the
text embeddings where the text encoder is frozen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from fedray.data import Samples
from fedray.learners import unet as unets
from fedray.learners.base_networks import (
    cut_captions,
    libraries_refuse,
    load_parts,
    noise_config,
    parts_on_meta,
)
from fedray.learners.bases import locate
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.learner import Learner
from fedray.learners.losses import weighted_mean
from fedray.learners.stages import Stage
from fedray.scenario.base import Refused
from fedray.scenario.text_to_image import TextToImage as Section

AT_ONCE = 32  # images that are sampled in one go


@dataclass
class LatentShard:
    """What a client trains on, encoded. n samples; c, h, w of a latent; l tokens of width d."""

    mean: Tensor  # [n, c, h, w]
    std: Tensor  # [n, c, h, w]
    ids: Tensor  # [n + 1, l] int64, the empty caption last
    hidden: Tensor | None  # [n + 1, l, d] where the text encoder is frozen

    def __len__(self) -> int:
        return len(self.mean)


@dataclass
class NoisedLatents:
    """One step's inputs, every draw made. b samples."""

    latents: Tensor  # [b, c, h, w], scaled
    noise: Tensor  # as latents
    timesteps: Tensor  # [b] int64
    text: Tensor  # [b, l] int64 token ids, or [b, l, d] embeddings
    weight: Tensor | None = None  # [b], of each sample in the loss


class TextToImage(Learner):
    """U-Net, text encoder, autoencoder, tokenizer and noise schedule of one base model."""

    caches_samples = True
    weights_file = "diffusion_pytorch_model.safetensors"

    def __init__(self, section: Section, context: LearnerContext) -> None:
        """With weights: frozen networks are held in the dtype that is computed in, the autoencoder in fp32,
        as half overflows in it. On the meta device, from configurations alone."""
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        super().__init__(section, context)
        self.base = locate(section.base, context.folder)
        self.tokenizer: Any = None
        with libraries_refuse(section.base, self.device):
            if self.device.type == "meta":
                self.parts = parts_on_meta(self.base, section.base)
            else:
                self.parts, self.tokenizer = load_parts(self.base, section.base, self.device, self.compute)
            self.unet, self.text_encoder, self.vae = (
                cast(Any, self.parts[name]) for name in ("unet", "text_encoder", "vae")
            )
            for part in self.parts.values():
                part.requires_grad_(False).eval()
            self.schedule = DDPMScheduler.from_config(noise_config(self.base, section.base, self.parts))
            factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
            self.size = section.resolution or int(self.unet.config.sample_size) * factor
            if self.size % factor:
                raise Refused("model.resolution", self.size, f"a multiple of {factor}")
            side = self.size // factor
            self.latent_shape = int(self.unet.config.in_channels), side, side
            self.stages = self._stages()

    @property
    def resolution(self) -> int:
        """Pixels a side."""
        return self.size

    @property
    def tunable_parts(self) -> list[str]:
        return ["unet", "text_encoder"]

    @property
    def trains_text(self) -> bool:
        return any(p.requires_grad for p in self.text_encoder.parameters())

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        """To be called once the tuning has said what trains: dropout on, and memory saved where it is asked
        for."""
        self.unet.train()
        self.text_encoder.train(self.trains_text)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            if self.trains_text:
                self.text_encoder.gradient_checkpointing_enable()

    @torch.no_grad()
    def encode(self, samples: Samples, indices: np.ndarray) -> LatentShard:
        """A client's samples as latents and text, on the learner's device."""
        means = []
        stds = []
        for i in indices:
            pixels = self._pixels(samples.image(int(i))).to(self.device)
            posterior = self.vae.encode(pixels[None] * 2 - 1).latent_dist
            means.append(posterior.mean)
            stds.append(posterior.std)
        ids = self.tokenize([samples.captions[int(i)] for i in indices] + [""])
        hidden = None if self.trains_text else self.text_encoder(ids)[0]
        return LatentShard(torch.cat(means), torch.cat(stds), ids, hidden)

    @torch.no_grad()
    def encode_flops(self) -> float:
        """The autoencoder's first half, and the text encoder where it is frozen."""
        pixels = torch.zeros(1, 3, self.resolution, self.resolution, device=self.device)
        flops = _flops(lambda: self.vae.encode(pixels))
        if not self.trains_text:
            length = self.text_encoder.config.max_position_embeddings
            tokens = torch.zeros(1, length, dtype=torch.long, device=self.device)
            flops += _flops(lambda: self.text_encoder(tokens))
        return float(flops)

    def tokenize(self, captions: list[str]) -> Tensor:
        length = self.tokenizer.model_max_length
        encoded = self.tokenizer(
            captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return encoded.input_ids.to(self.device)

    def draw(self, shard: LatentShard, indices: np.ndarray, generator: torch.Generator) -> NoisedLatents:
        """Latents, noise, timesteps and dropped captions of one step. Drawn on the CPU: the same on every
        device."""
        b = len(indices)
        i = torch.from_numpy(indices).to(shard.mean.device)
        eps = torch.randn((2, b, *shard.mean.shape[1:]), generator=generator).to(i.device)
        timesteps = torch.randint(self.schedule.config.num_train_timesteps, (b,), generator=generator).to(
            i.device
        )
        dropped = (torch.rand(b, generator=generator) < self.section.caption_dropout).to(i.device)
        latents = (shard.mean[i] + shard.std[i] * eps[0]) * self.vae.config.scaling_factor
        source = shard.ids if shard.hidden is None else shard.hidden
        return NoisedLatents(latents, eps[1], timesteps, source[torch.where(dropped, len(shard), i)])

    def blank_batch(self) -> tuple[NoisedLatents, int]:
        """A batch of one on the learner's device with nothing in it, for counting work."""
        latents = torch.zeros(1, *self.latent_shape, device=self.device)
        length = self.text_encoder.config.max_position_embeddings
        if self.trains_text:
            text = torch.zeros(1, length, dtype=torch.long, device=self.device)
        else:
            text = torch.zeros(1, length, self.unet.config.cross_attention_dim, device=self.device)
        return NoisedLatents(latents, latents, torch.zeros(1, dtype=torch.long, device=self.device), text), 1

    def _stages(self) -> tuple[Stage, ...]:
        def embed(text: Tensor) -> Tensor:
            return text if text.is_floating_point() else self.text_encoder(text)[0]

        text = Stage("text", ("text",), ("text",), embed, (self.text_encoder,))
        pieces = unets.stages(
            self.unet, ("latents", "noise", "timesteps"), self.schedule.add_noise, self.latent_shape[1]
        )
        loss = Stage(
            "loss",
            ("predicted", "latents", "noise", "timesteps"),
            ("loss",),
            self._error,
            optional=("weight",),
        )
        return self.staged([text, *pieces], loss)

    def _error(
        self,
        predicted: Tensor,
        latents: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of the predicted noise or velocity, weighted by min-SNR where asked (Hang et al.
        2023).

        Args:
            predicted: [b, c, h, w], by the U-Net.
            latents: [b, c, h, w], without noise.
            noise: [b, c, h, w], that was added.
            timesteps: [b].
            weight: [b], of each sample beside that.
        """
        velocity = self.schedule.config.prediction_type == "v_prediction"
        target = self.schedule.get_velocity(latents, noise, timesteps) if velocity else noise
        error = F.mse_loss(predicted.float(), target.float(), reduction="none").mean((1, 2, 3))
        if self.section.min_snr_gamma is None:
            return weighted_mean(error, weight)
        alpha = self.schedule.alphas_cumprod.to(timesteps.device)[timesteps]
        snr = alpha / (1 - alpha)
        min_snr = snr.clamp(max=self.section.min_snr_gamma) / (snr + 1 if velocity else snr)
        return weighted_mean(min_snr * error, weight)

    @cached_property
    def _own_pipeline(self) -> Any:
        """For a learner whose networks stay as they are."""
        return self.pipeline()

    def pipeline(self) -> Any:
        """These networks as a StableDiffusionPipeline, with the base's own sampler."""
        from diffusers import StableDiffusionPipeline, schedulers

        config: Any = schedulers.DDPMScheduler.load_config(
            self.base.source, subfolder="scheduler", local_files_only=self.base.local
        )
        sampler = getattr(schedulers, config["_class_name"]).from_config(config)
        parts = {
            "vae": self.vae,
            "text_encoder": self.text_encoder,
            "tokenizer": self.tokenizer,
            "unet": self.unet,
            "scheduler": sampler,
        }
        pipeline: Any = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> Tensor:
        """One image a prompt."""
        images = []
        at_once = sampling.at_once or AT_ONCE
        pipeline = self.pipeline()
        for start in range(0, len(prompts), at_once):
            some = list(prompts[start : start + at_once])
            given = {"prompt": some, "negative_prompt": [sampling.negative_prompt] * len(some)}
            images.append(self._denoise(pipeline, given, seeds[start : start + at_once], sampling))
        return torch.cat(images)

    @torch.no_grad()
    def embed(self, prompt: str) -> Tensor:
        """[1, l, d]."""
        with self.evaluating(), self.autocast():
            embedded: Tensor = self.text_encoder(self.tokenize([prompt]))[0]
        return embedded

    def sample_embedded(
        self, prompts: Tensor, negative: Tensor, seeds: Sequence[int], sampling: Sampling
    ) -> Tensor:
        """One image a prompt, all at once, of texts that are embedded already.

        Args:
            prompts: [n, l, d].
            negative: [n, l, d], what guidance leads away from.
            seeds: n of them.
            sampling: in how many steps, and with which guidance.
        """
        given = {"prompt_embeds": prompts, "negative_prompt_embeds": negative}
        return self._denoise(self._own_pipeline, given, seeds, sampling)

    @torch.no_grad()
    def _denoise(
        self, pipeline: Any, given: dict[str, Any], seeds: Sequence[int], sampling: Sampling
    ) -> Tensor:
        """[n, 3, h, w] in 0..1 on the CPU, by a pipeline from the texts that it is given."""
        noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        with self.evaluating(), self.autocast():
            out = pipeline(
                **given,
                generator=noise,
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance_scale,
                height=self.resolution,
                width=self.resolution,
                output_type="pt",
            ).images
        images: Tensor = out.float().cpu()
        return images

    @torch.no_grad()
    def sample_flops(self, sampling: Sampling) -> float:
        """With the prompt, and where guidance asks for it without: the text encoder once, the U-Net a step;
        then the decoder."""
        batch, _ = self.blank_batch()
        length = self.text_encoder.config.max_position_embeddings
        tokens = torch.zeros(1, length, dtype=torch.long, device=self.device)
        text = torch.zeros(1, length, self.unet.config.cross_attention_dim, device=self.device)
        unet = _flops(lambda: self.unet(batch.latents, batch.timesteps, text))
        text_encoder = _flops(lambda: self.text_encoder(tokens))
        decoder = _flops(lambda: self.vae.decode(batch.latents))
        passes = 2 if sampling.guidance_scale > 1 else 1
        return passes * (unet * sampling.steps + text_encoder) + decoder

    def save(self, folder: Path) -> None:
        """The whole pipeline as `from_pretrained` reads it."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:  # its file would tell how it was last used
            backend.no_padding()
            backend.no_truncation()
        self.pipeline().save_pretrained(folder, safe_serialization=True)
        # transformers would load it as stored, beside a U-Net in fp32
        config = folder / "text_encoder" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")

    @classmethod
    def from_export(cls, section: Section, context: LearnerContext, folder: Path) -> Self:
        """An exported pipeline is a base like any other."""
        learner = cls.load(section.model_copy(update={"base": str(folder.resolve())}), context)
        learner.pipeline()  # its sampler is read here, and its tokenizer's limits below
        learner.tokenize([""])
        return learner

    @classmethod
    def notes(cls, section: Section, folder: Path, samples: Samples) -> list[str]:
        note = cut_captions(locate(section.base, folder), samples.captions)
        return [note] if note else []

    def _pixels(self, image: Image.Image) -> Tensor:
        """[3, resolution, resolution] in 0..1: the shorter side scaled, the middle cut out."""
        square = ImageOps.fit(image, (self.resolution, self.resolution), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255


def _flops(step: Callable[[], Any]) -> int:
    """Floating-point operations of what a step does."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())
