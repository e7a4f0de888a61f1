"""diffusion: an unconditional DDPM (Ho et al. 2020, Algorithm 1) on diffusers' UNet2DModel."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedray.learners import unet as unets
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.learner import Learner
from fedray.learners.losses import squared_error
from fedray.learners.pictures import ImageShard, scaled
from fedray.learners.stages import Stage
from fedray.scenario.base import Refused
from fedray.scenario.model import Diffusion as Section

AT_ONCE = 64  # images that are sampled in one go


@dataclass
class NoisedImages:
    """One step's inputs, every draw made. b samples."""

    images: Tensor  # [b, c, h, w] in -1..1
    noise: Tensor  # as images
    timesteps: Tensor  # [b] int64
    weight: Tensor | None = None  # [b], of each sample in the loss


class Diffusion(Learner):
    weights_file = "diffusion_pytorch_model.safetensors"

    def __init__(
        self, section: Section, context: LearnerContext, betas: Sequence[float] | None = None
    ) -> None:
        """`betas`: of a part of the section's timesteps, where that is all this network denoises."""
        from diffusers.models.unets.unet_2d import UNet2DModel
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        super().__init__(section, context)
        self.refuse_no_size()
        size = self.size
        channels = context.dataset.channels
        levels = len(section.channels)
        if size % 2 ** (levels - 1):
            raise Refused(
                "model.resolution",
                size,
                f"a multiple of {2 ** (levels - 1)}, for {levels} levels of model.channels",
            )
        # files that would be decoded anew each local update
        self.caches_samples = context.dataset.size is None
        down = ["AttnDownBlock2D" if i in section.attention else "DownBlock2D" for i in range(levels)]
        up = ["AttnUpBlock2D" if i in section.attention else "UpBlock2D" for i in reversed(range(levels))]
        self.unet: Any = UNet2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=section.layers,
            block_out_channels=tuple(section.channels),
            down_block_types=tuple(down),
            up_block_types=tuple(up),
        )
        self.parts = {"unet": self.unet}
        # By keywords: what is given by its place, diffusers takes for its own default when it makes a sampler
        # of this.
        if betas is None:
            n = section.timesteps
            start = section.beta_start
            end = section.beta_end
            self.schedule = DDPMScheduler(
                num_train_timesteps=n, beta_start=start, beta_end=end, beta_schedule="linear"
            )
        else:
            self.schedule = DDPMScheduler(num_train_timesteps=len(betas), trained_betas=list(betas))
        pieces = unets.stages(self.unet, ("images", "noise", "timesteps"), self.schedule.add_noise, size)
        loss = Stage("loss", ("predicted", "noise"), ("loss",), squared_error, optional=("weight",))
        self.stages = self.staged(pieces, loss)

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        super().prepare_training(gradient_checkpointing)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

    def draw(self, shard: ImageShard, indices: np.ndarray, generator: torch.Generator) -> NoisedImages:
        images = scaled(shard.images[torch.from_numpy(indices).to(self.device)])
        noise = torch.randn(images.shape, generator=generator).to(self.device)
        timesteps = torch.randint(self.section.timesteps, (len(images),), generator=generator).to(self.device)
        return NoisedImages(images, noise, timesteps)

    def noised(
        self, shard: ImageShard, indices: np.ndarray, levels: Tensor, generators: Sequence[torch.Generator]
    ) -> NoisedImages:
        images = scaled(shard.images[torch.from_numpy(indices).to(self.device)])
        noise = torch.stack([torch.randn(images.shape[1:], generator=g) for g in generators])
        timesteps = (levels * self.section.timesteps).long().clamp(max=self.section.timesteps - 1)
        return NoisedImages(images, noise.to(self.device), timesteps.to(self.device))

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> Tensor:
        """One image a seed; prompts are not read."""
        return self.as_images(self.denoise(seeds, sampling.steps, sampling.at_once or AT_ONCE))

    @staticmethod
    def as_images(denoised: Tensor) -> Tensor:
        """[n, c, h, w] in -1..1 as [n, 3, h, w] in 0..1."""
        return (denoised / 2 + 0.5).clamp(0, 1).expand(-1, 3, -1, -1)

    @torch.no_grad()
    def denoise(
        self, seeds: Sequence[int], steps: int, at_once: int, start: Tensor | None = None, clip: bool = True
    ) -> Tensor:
        """By DDIM (Song et al. 2021) from a seed's noise each, or from `start`: [n, c, h, w] on the CPU.

        Args:
            seeds: one an image [n].
            steps: of the sampler.
            at_once: images in one batch.
            start: noisy images to go on from [n, c, h, w]; None: noise.
            clip: whether predictions are clipped to -1..1.
        """
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        sampler: Any = DDIMScheduler.from_config(
            self.schedule.config, clip_sample=clip, timestep_spacing="trailing"
        )
        sampler.set_timesteps(min(steps, self.schedule.config.num_train_timesteps))
        shape = (1, self.unet.config.in_channels, self.size, self.size)
        images = []
        with self.evaluating():
            for i in range(0, len(seeds), at_once):
                if start is None:
                    x = torch.cat(
                        [
                            torch.randn(shape, generator=torch.Generator().manual_seed(s))
                            for s in seeds[i : i + at_once]
                        ]
                    )
                else:
                    x = start[i : i + at_once]
                x = x.to(self.device)
                for t in sampler.timesteps:
                    with self.autocast():
                        predicted = self.unet(x, t, return_dict=False)[0].float()
                    x = sampler.step(predicted, t, x, return_dict=False)[0]
                images.append(x.cpu())
        return torch.cat(images)

    def save(self, folder: Path) -> None:
        """A DDPMPipeline, as `from_pretrained` reads it."""
        from diffusers import DDPMPipeline

        pipeline: Any = DDPMPipeline(unet=self.unet, scheduler=self.schedule)
        pipeline.save_pretrained(folder, safe_serialization=True)

    def load_weights(self, folder: Path) -> None:
        super().load_weights(folder / "unet")
