"""The noise that a base model learns to take away: over discrete timesteps (Ho et al. 2020)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class DiscreteNoise:
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise, with a_t the product of 1 - beta up to t. The network
    predicts the noise, or the velocity sqrt(a_t) noise - sqrt(1 - a_t) x_0 (Salimans and Ho 2022).

    Args:
        config: of the base's scheduler.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        self.schedule: Any = DDPMScheduler.from_config(dict(config))
        self.first = 0  # of the timesteps that are drawn

    @property
    def steps(self) -> int:
        """How many timesteps there are."""
        return int(self.schedule.config.num_train_timesteps)

    @property
    def predicts_velocity(self) -> bool:
        return bool(self.schedule.config.prediction_type == "v_prediction")

    def draw(self, b: int, generator: torch.Generator) -> Tensor:
        """Timesteps [b] int64 from the first that is drawn, each as likely, on the CPU."""
        return torch.randint(self.first, self.steps, (b,), generator=generator)

    def add(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network sees [b, c, h, w]."""
        noisy: Tensor = self.schedule.add_noise(latents, noise, timesteps)
        return noisy

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network shall predict [b, c, h, w]."""
        if not self.predicts_velocity:
            return noise
        velocity: Tensor = self.schedule.get_velocity(latents, noise, timesteps)
        return velocity

    def min_snr_weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        """[b]: what a sample's error counts under min-SNR weighting (Hang et al. 2023)."""
        alpha = self.schedule.alphas_cumprod.to(timesteps.device)[timesteps]
        snr = alpha / (1 - alpha)
        return snr.clamp(max=gamma) / (snr + 1 if self.predicts_velocity else snr)
