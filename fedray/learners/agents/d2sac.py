"""d2sac: soft actor-critic whose actor is a small diffusion model (Du et al. 2024).

The actor begins with noise, one number an action, and denoises it in a few steps, each of which sees the
observation; the softmax of what comes out is the policy. Schedule, networks and losses are those of the
authors' code (github.com/Lizonghang/AGOD); theirs has replay, target networks that follow slowly, and an
optimizer each, here the received weights are the target networks, and one optimizer steps both.
"""

import math

import torch
from torch import Tensor, nn

from fedray.learners.agents.algorithm import mlp
from fedray.learners.agents.sac import Sac

TIME = 16  # numbers that a denoising step is embedded in
BETA_LEAST = 0.1  # of the noise's rate at the beginning, per length of the whole
BETA_MOST = 10.0  # at the end


class Schedule:
    """The variance-preserving schedule of a diffusion in few steps (Xiao et al. 2022).

    Attributes:
        betas: the variance of the noise that each step adds [steps].
        kept: the share of the signal's power behind each step [steps].
        start: factors of the noisy numbers and of the noise in what they began as [2, steps].
        mean: factors of that beginning and of the noisy numbers in the mean one step before [2, steps].
        variance: of the numbers one step before [steps].
    """

    def __init__(self, steps: int) -> None:
        t = torch.arange(1, steps + 1, dtype=torch.float64)
        slope = (BETA_MOST - BETA_LEAST) * (2 * t - 1) / (2 * steps**2)
        alphas = (-BETA_LEAST / steps - slope).exp()
        self.betas = 1 - alphas
        self.kept = alphas.cumprod(0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), self.kept[:-1]])
        self.start = torch.stack([self.kept.rsqrt(), (1 / self.kept - 1).sqrt()])
        self.mean = torch.stack([self.betas * before.sqrt(), (1 - before) * alphas.sqrt()]) / (1 - self.kept)
        self.variance = self.betas * (1 - before) / (1 - self.kept)


class Denoiser(nn.Module):
    """Predicts the noise in noisy numbers, one an action.

    Args:
        observation_size: numbers of an observation.
        hidden: numbers of each layer between.
        actions: how many there are.
    """

    def __init__(self, observation_size: int, hidden: list[int], actions: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(TIME, 2 * TIME), nn.Mish(), nn.Linear(2 * TIME, TIME))
        self.layers = mlp(observation_size + actions + TIME, hidden, actions, nn.Mish)

    def forward(self, noisy: Tensor, step: int, observations: Tensor) -> Tensor:
        """The noise [n, actions].

        Args:
            noisy: [n, actions].
            step: from 0.
            observations: [n, observation_size].
        """
        half = TIME // 2
        rates = torch.exp(torch.arange(half, device=noisy.device) * (-math.log(10_000) / (half - 1)))
        time = self.time(torch.cat([(step * rates).sin(), (step * rates).cos()]))
        inputs = [noisy, time.expand(len(noisy), -1), observations]
        return torch.tanh(self.layers(torch.cat(inputs, dim=1)))


class D2Sac(Sac):
    entropy_in_targets = False  # as in the authors' code
    activation = nn.Mish

    def build_actor(self) -> nn.Module:
        self.schedule = Schedule(self.section.denoising_steps)
        return Denoiser(self.observation_size, self.section.hidden, self.actions)

    def draw_noise(self, n: int, generator: torch.Generator) -> Tensor:
        """[n, denoising_steps, actions]: what the denoising begins with, and what each step but the last
        adds."""
        return torch.randn(n, self.section.denoising_steps, self.actions, generator=generator)

    def log_policy(self, observations: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is not None
        return self.denoised(observations, noise).log_softmax(-1)

    def denoised(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Logits of the policy [n, actions].

        Args:
            observations: [n, observation_size].
            noise: [n, denoising_steps, actions].
        """
        schedule = self.schedule
        x = noise[:, 0]
        for used, step in enumerate(reversed(range(len(schedule.betas))), 1):
            noisy, predicted = schedule.start[:, step].tolist()
            start = noisy * x - predicted * self.actor(x, step, observations)
            of_start, of_noisy = schedule.mean[:, step].tolist()
            x = of_start * start + of_noisy * x
            if step:
                x = x + math.sqrt(float(schedule.variance[step])) * noise[:, used]
        return x
