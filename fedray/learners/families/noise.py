"""The noise that a base model learns to take away, and that over discrete timesteps (Ho et al. 2020)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedray.scenario.base import Refused


class Noise(ABC):
    """How much noise there is at a timestep, and what a network predicts of it."""

    @abstractmethod
    def draw(self, b: int, generator: torch.Generator) -> Tensor:
        """Timesteps [b] int64, on the CPU."""

    @abstractmethod
    def at(self, levels: Tensor) -> Tensor:
        """Timesteps [b] int64 at these quantiles [b] fp64 of what `draw` takes them from, 0 being the least
        noise and 1 the most."""

    def draw_from(self, first: int) -> None:
        """Draws only timesteps from the `first` on. Raises Refused where there are none of that number."""
        if first:
            raise Refused("model.min_timestep", first, "0: this base's timesteps are drawn by their weight")

    @abstractmethod
    def add(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network sees [b, c, h, w]."""

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network shall predict [b, c, h, w]."""

    @abstractmethod
    def min_snr_weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        """[b]: what a sample's error counts under min-SNR weighting (Hang et al. 2023)."""


class DiscreteNoise(Noise):
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

    def draw_from(self, first: int) -> None:
        if first >= self.steps:
            raise Refused("model.min_timestep", first, f"one of the base's, below {self.steps}")
        self.first = first

    @property
    def predicts_velocity(self) -> bool:
        return bool(self.schedule.config.prediction_type == "v_prediction")

    def draw(self, b: int, generator: torch.Generator) -> Tensor:
        """Timesteps [b] int64 from the first that is drawn, each as likely, on the CPU."""
        return torch.randint(self.first, self.steps, (b,), generator=generator)

    def at(self, levels: Tensor) -> Tensor:
        return (self.first + levels * (self.steps - self.first)).long().clamp(max=self.steps - 1)

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
