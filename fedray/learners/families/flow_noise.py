"""The noise of flow matching (Liu et al. 2023, Esser et al. 2024): straight lines from images to noise."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedray.learners.families.noise import Noise


class FlowNoise(Noise):
    """x_s = (1 - s) x_0 + s noise. The network predicts the velocity noise - x_0 (rectified flow, Esser et
    al. 2024, Sec. 3). A timestep is the index in the scheduler's sigmas, which fall from noise to image and
    have its shift in them.

    Args:
        config: of the base's scheduler.
        logit_normal: whether the middle is drawn more often: index 1000 u, u being the sigmoid of a standard
            normal (Esser et al. 2024, Sec. 3.1, m = 0, s = 1); otherwise each index is as likely.
    """

    def __init__(self, config: Mapping[str, Any], logit_normal: bool) -> None:
        from diffusers import schedulers

        kind: Any = getattr(schedulers, config["_class_name"])
        self.schedule: Any = kind.from_config(dict(config))
        self.logit_normal = logit_normal
        # Heun's has each but the first twice
        n = self.schedule.config.num_train_timesteps
        self.times = self.schedule.timesteps[:n].clone()

    def draw(self, b: int, generator: torch.Generator) -> Tensor:
        if self.logit_normal:
            u = torch.sigmoid(torch.randn(b, generator=generator))
        else:
            u = torch.rand(b, generator=generator)
        return (u * len(self.times)).long()

    def at(self, levels: Tensor) -> Tensor:
        u = 1 - levels  # the first timesteps have the most noise
        if self.logit_normal:
            u = torch.sigmoid(torch.special.ndtri(u))
        return (u * len(self.times)).long().clamp(max=len(self.times) - 1)

    def time(self, timesteps: Tensor) -> Tensor:
        """[b] in 0..1000: sigma times the number of training timesteps, which networks are given."""
        return self.times.to(timesteps.device)[timesteps]

    def add(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        sigma = (self.time(timesteps) / len(self.times)).to(latents.dtype)[:, None, None, None]
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise - latents

    def min_snr_weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        raise ValueError("min-SNR weighting is for discrete noise, got flow matching")
