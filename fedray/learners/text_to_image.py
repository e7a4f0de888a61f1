"""text_to_image: a latent diffusion model (Rombach et al. 2022) trained on captioned images, on diffusers'
networks.

What no tuning trains is computed once a client and kept: the latents' mean and standard deviation always, the
text embeddings where the text encoder is frozen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

from fedray.data import Samples
from fedray.errors import printable
from fedray.learners import unet as unets
from fedray.learners.base_folder import listed, stored, verify_loaded
from fedray.learners.bases import Base
from fedray.learners.learner import Learner
from fedray.learners.stages import Stage
from fedray.scenario.base import Refused
from fedray.scenario.model import TextToImage as Section


@dataclass
class Shard:
    """What a client trains on, encoded. n samples; c, h, w of a latent; l tokens of width d."""

    mean: Tensor  # [n, c, h, w]
    std: Tensor  # [n, c, h, w]
    ids: Tensor  # [n + 1, l] int64, the empty caption last
    hidden: Tensor | None  # [n + 1, l, d] where the text encoder is frozen

    def __len__(self) -> int:
        return len(self.mean)


@dataclass
class Batch:
    """One step's inputs, every draw made. b samples."""

    latents: Tensor  # [b, c, h, w], scaled
    noise: Tensor  # as latents
    timesteps: Tensor  # [b] int64
    text: Tensor  # [b, l] int64 token ids, or [b, l, d] embeddings


class TextToImage(Learner):
    """U-Net, text encoder, autoencoder, tokenizer and noise schedule of one base model."""

    keeps_shards = True
    weights_file = "diffusion_pytorch_model.safetensors"

    def __init__(
        self, section: Section, base: Base, parts: dict[str, nn.Module], tokenizer: Any, compute: torch.dtype
    ) -> None:
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        self.section, self.base, self.tokenizer, self.compute = section, base, tokenizer, compute
        self.parts = parts  # what a tuning may train; frozen until it does
        unet, text_encoder, vae = (cast(Any, parts[name]) for name in ("unet", "text_encoder", "vae"))
        self.unet, self.text_encoder, self.vae = unet, text_encoder, vae
        self.device = next(vae.parameters()).device
        for part in parts.values():
            part.requires_grad_(False).eval()
        place = str(base.configuration or base.source)
        noise: Any = DDPMScheduler.load_config(
            place, subfolder="scheduler", local_files_only=base.configuration is not None
        )
        if not base.local:
            configs = {"unet": unet.config, "vae": vae.config, "text_encoder": text_encoder.config.to_dict()}
            verify_loaded(section.base, configs, noise, "model.base")
        self.schedule = DDPMScheduler.from_config(noise)
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.resolution = section.resolution or int(unet.config.sample_size) * factor
        if self.resolution % factor:
            raise Refused("model.resolution", self.resolution, f"a multiple of {factor}")
        self.latent_shape = (
            int(unet.config.in_channels),
            self.resolution // factor,
            self.resolution // factor,
        )
        self.stages = self._stages()

    @classmethod
    def load(cls, section: Section, base: Base, device: torch.device, compute: torch.dtype) -> TextToImage:
        """With weights. Frozen networks are held in `compute`, the autoencoder in fp32, as half overflows in
        it."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        from diffusers.utils import logging as diffusers_logging
        from transformers import CLIPTextModel, CLIPTokenizer
        from transformers.utils import logging as transformers_logging

        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()

        def part(kind: Any, name: str, dtype: torch.dtype) -> nn.Module:
            options: Any = {"subfolder": name, "use_safetensors": True, "local_files_only": base.local}
            if kind is CLIPTextModel:  # it names no shapes otherwise; attention is torch's own
                options |= {"ignore_mismatched_sizes": True, "attn_implementation": "sdpa"}
            model, facts = kind.from_pretrained(
                base.source, torch_dtype=dtype, output_loading_info=True, **options
            )
            return _whole(section, name, model, facts).to(device)

        with _libraries_refuse(section, "a whole Stable Diffusion with safetensors weights"):
            parts = {
                "unet": part(UNet2DConditionModel, "unet", compute),
                "text_encoder": part(CLIPTextModel, "text_encoder", compute),
            }
            parts["vae"] = part(AutoencoderKL, "vae", torch.float32)
            tokenizer = CLIPTokenizer.from_pretrained(
                base.source, subfolder="tokenizer", local_files_only=base.local
            )
            return cls(section, base, parts, tokenizer, compute)

    @classmethod
    def on_meta(cls, section: Section, base: Base) -> TextToImage:
        """Without weights or memory, for counting."""
        from accelerate import init_empty_weights
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        source = str(base.configuration or base.source)
        with _libraries_refuse(section, "a base model whose configuration is there, and whole"):
            options: Any = {"local_files_only": base.configuration is not None}
            unet = UNet2DConditionModel.load_config(source, subfolder="unet", **options)
            vae = AutoencoderKL.load_config(source, subfolder="vae", **options)
            text = CLIPTextConfig.from_pretrained(source, subfolder="text_encoder", **options)
            with init_empty_weights(include_buffers=True):
                parts = {"unet": UNet2DConditionModel.from_config(unet), "text_encoder": CLIPTextModel(text)}
                parts["vae"] = AutoencoderKL.from_config(vae)
            for name, model in parts.items() if base.local else ():
                there = stored(Path(base.source), name, "model.base")
                _whole(section, name, model, {"missing_keys": model.state_dict().keys() - there})
            return cls(section, base, parts, None, torch.float32)

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
    def encode(self, samples: Samples, indices: np.ndarray) -> Shard:
        """A client's samples as latents and text, on the learner's device."""
        means, stds = [], []
        for i in indices:
            pixels = self._pixels(samples.image(int(i))).to(self.device)
            posterior = self.vae.encode(pixels[None] * 2 - 1).latent_dist
            means.append(posterior.mean)
            stds.append(posterior.std)
        ids = self.tokenize([samples.captions[int(i)] for i in indices] + [""])
        hidden = None if self.trains_text else self.text_encoder(ids)[0]
        return Shard(torch.cat(means), torch.cat(stds), ids, hidden)

    @torch.no_grad()
    def encode_flops(self) -> float:
        """The autoencoder's first half, and the text encoder where it is frozen."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.vae.encode(torch.zeros(1, 3, self.resolution, self.resolution, device=self.device))
            if not self.trains_text:
                length = self.text_encoder.config.max_position_embeddings
                self.text_encoder(torch.zeros(1, length, dtype=torch.long, device=self.device))
        return float(counter.get_total_flops())

    def tokenize(self, captions: list[str]) -> Tensor:
        length = self.tokenizer.model_max_length
        encoded = self.tokenizer(
            captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return encoded.input_ids.to(self.device)

    def draw(self, shard: Shard, indices: np.ndarray, generator: torch.Generator) -> Batch:
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
        return Batch(latents, eps[1], timesteps, source[torch.where(dropped, len(shard), i)])

    def blank_batch(self) -> tuple[Batch, int]:
        """A batch of one on the learner's device with nothing in it, for counting work."""
        latents = torch.zeros(1, *self.latent_shape, device=self.device)
        length = self.text_encoder.config.max_position_embeddings
        if self.trains_text:
            text = torch.zeros(1, length, dtype=torch.long, device=self.device)
        else:
            text = torch.zeros(1, length, self.unet.config.cross_attention_dim, device=self.device)
        return Batch(latents, latents, torch.zeros(1, dtype=torch.long, device=self.device), text), 1

    def _stages(self) -> tuple[Stage, ...]:
        def embed(text: Tensor) -> Tensor:
            return text if text.is_floating_point() else self.text_encoder(text)[0]

        text = Stage("text", ("text",), ("text",), embed, (self.text_encoder,))
        pieces = unets.stages(
            self.unet, ("latents", "noise", "timesteps"), self.schedule.add_noise, self.latent_shape[1]
        )
        loss = Stage("loss", ("predicted", "latents", "noise", "timesteps"), ("loss",), self._error)
        return self.staged([text, *pieces], loss)

    def _error(self, predicted: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Mean squared error of the predicted noise or velocity, weighted by min-SNR where asked (Hang et al.
        2023)."""
        velocity = self.schedule.config.prediction_type == "v_prediction"
        target = self.schedule.get_velocity(latents, noise, timesteps) if velocity else noise
        error = F.mse_loss(predicted.float(), target.float(), reduction="none").mean((1, 2, 3))
        if self.section.min_snr_gamma is None:
            return error.mean()
        alpha = self.schedule.alphas_cumprod.to(timesteps.device)[timesteps]
        snr = alpha / (1 - alpha)
        weight = snr.clamp(max=self.section.min_snr_gamma) / (snr + 1 if velocity else snr)
        return (weight * error).mean()

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

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int,
        guidance: float,
        negative: str = "",
        at_once: int = 32,
    ) -> Tensor:
        """One image a prompt, [n, 3, h, w] in 0..1 on the CPU; each from its own seed, whatever its
        neighbours."""
        pipeline, images = self.pipeline(), []
        for start in range(0, len(prompts), at_once):
            some = list(prompts[start : start + at_once])
            noise = [torch.Generator().manual_seed(s) for s in seeds[start : start + at_once]]
            with self.evaluating(), self.autocast():
                out = pipeline(
                    some, negative_prompt=[negative] * len(some), generator=noise, num_inference_steps=steps,
                    guidance_scale=guidance, height=self.resolution, width=self.resolution, output_type="pt",
                ).images  # fmt: skip
            images.append(out.float().cpu())
        return torch.cat(images)

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

    def _pixels(self, image: Image.Image) -> Tensor:
        """[3, resolution, resolution] in 0..1: the shorter side scaled, the middle cut out."""
        square = ImageOps.fit(image, (self.resolution, self.resolution), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255


def _whole(section: Section, name: str, model: nn.Module, facts: Mapping[str, Any]) -> nn.Module:
    """The model, where all its weights were there and are numbers.

    Raises:
        Refused: with the names of those that were not.
    """
    place = f"{section.base!r}, whose {name}"
    others = [
        key
        for key in facts.get("unexpected_keys") or ()
        if not str(key).endswith(("position_ids", "text_projection.weight"))
    ]
    missing, mismatched = facts.get("missing_keys"), facts.get("mismatched_keys")
    for what, entries in (("lacks", missing), ("has other shapes of", mismatched), ("has besides", others)):
        if names := sorted(str(entry if isinstance(entry, str) else entry[0]) for entry in entries or ()):
            raise Refused(
                "model.base",
                f"{place} {what} {listed(names)}",
                "a whole one: with all the weights that it was trained with, and no others",
            )
    numbers = {key: t for key, t in model.state_dict().items() if t.is_floating_point() and not t.is_meta}
    if broken := [key for key, t in numbers.items() if not t.isfinite().all()]:
        half = (
            f" as {str(dtype).removeprefix('torch.')}"
            if (dtype := next(model.parameters()).dtype) == torch.float16
            else ""
        )
        raise Refused(
            "model.base",
            f"{place} has numbers that are not finite{half} in {listed(broken)}",
            "weights that are numbers",
        )
    return model


def cut_captions(base: Base, captions: Sequence[str]) -> str | None:
    """What a person should know of captions that are longer than what the text encoder reads; None where none
    is, or where the tokenizer is not on this machine."""
    from transformers import CLIPTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # it would say the same of the first one alone
    try:
        tokenizer: Any = CLIPTokenizer.from_pretrained(
            base.source, subfolder="tokenizer", local_files_only=True
        )
    except (OSError, ValueError):
        return None
    most = int(tokenizer.model_max_length)
    distinct = dict.fromkeys(captions)
    lengths = (
        dict(zip(distinct, map(len, tokenizer(list(distinct), truncation=False).input_ids), strict=True))
        if distinct
        else {}
    )
    if not (cut := [caption for caption in captions if lengths[caption] > most]):
        return None
    first = printable(cut[0] if len(cut[0]) <= 80 else cut[0][:77] + "...")
    longer = (
        f"{len(cut)} of {len(captions)} captions have more than the {most} tokens that the text encoder reads"
    )
    return f"{longer}, and are cut; the first: {first}"


@contextmanager
def _libraries_refuse(section: Section, expected: str) -> Iterator[None]:
    """Whatever diffusers and transformers raise over a stranger's files, of which there are many kinds,
    refuses the base; memory that runs out does not."""
    try:
        yield
    except (Refused, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as e:
        reason = next(iter(str(e).strip().splitlines()), "") or type(e).__name__
        raise Refused(
            "model.base", f"{section.base!r}, which does not load ({printable(reason[:200])})", expected
        ) from e
