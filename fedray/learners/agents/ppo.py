"""ppo: proximal policy optimisation (Schulman et al. 2017)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedray.learners.agents.algorithm import Algorithm, mlp
from fedray.learners.agents.rollout import Rollout, advantages
from fedray.scenario.agent import Ppo as Section


@dataclass
class Judged:
    """Steps as the received weights judge them, [T, E, ...] or [b, ...]."""

    observations: Tensor
    actions: Tensor
    log_probabilities: Tensor  # of the actions
    advantages: Tensor  # of mean 0 and standard deviation 1 over the experience
    returns: Tensor  # advantages, as they were, and values


class Ppo(Algorithm):
    def __init__(self, section: Section, observation_size: int, actions: int) -> None:
        super().__init__(section, observation_size, actions)
        self.policy = mlp(observation_size, section.hidden, actions, nn.Tanh)
        self.value = mlp(observation_size, section.hidden, 1, nn.Tanh)

    def act(self, observations: Tensor, generator: torch.Generator) -> Tensor:
        return self.likely(self.policy(observations))

    def explore(self, observations: Tensor, round_number: int, generator: torch.Generator) -> Tensor:
        return self.drawn(self.policy(observations).log_softmax(-1), generator)

    def experience(self, rollout: Rollout, generator: torch.Generator) -> Judged:
        section = self.section
        values = self.value(rollout.observations)[..., 0]
        known = advantages(rollout.rewards, rollout.ended, values, section.gamma, section.gae_lambda)
        log_probabilities = self.policy(rollout.observations[:-1]).log_softmax(-1)
        return Judged(
            observations=rollout.observations[:-1],
            actions=rollout.actions,
            log_probabilities=log_probabilities.gather(-1, rollout.actions[..., None])[..., 0],
            advantages=(known - known.mean()) / (known.std(correction=0) + 1e-8),
            returns=known + values[:-1],
        )

    def loss(self, batch: Judged) -> Tensor:
        """Their Eq. 9: the clipped objective, the values' squared error and the entropy."""
        section = self.section
        log_probabilities = self.policy(batch.observations).log_softmax(-1)
        chosen = log_probabilities.gather(1, batch.actions[:, None])[:, 0]
        ratio = (chosen - batch.log_probabilities).exp()
        near = ratio.clamp(1 - section.clip, 1 + section.clip)
        gained = torch.minimum(ratio * batch.advantages, near * batch.advantages).mean()
        error = F.mse_loss(self.value(batch.observations)[:, 0], batch.returns)
        entropy = -(log_probabilities.exp() * log_probabilities).sum(1).mean()
        return -gained + section.value_weight * error - section.entropy_weight * entropy
