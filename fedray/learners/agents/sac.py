"""sac: soft actor-critic (Haarnoja et al. 2018) over discrete actions (Christodoulou 2019)."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedray.learners.agents.algorithm import Algorithm, mlp
from fedray.learners.agents.rollout import Rollout, n_step_returns


@dataclass
class Valued:
    """Steps with what the received weights say that they are worth, [T, E, ...] or [b, ...]."""

    observations: Tensor
    actions: Tensor
    targets: Tensor
    noise: Tensor | None = None  # that the policy follows from, drawn anew for each batch, where any is


class Sac(Algorithm):
    """An actor and two critics, which one optimizer steps along one loss: in the actor's term the critics are
    constants. Where their rates shall differ, `training.groups` names them: `network.actor.*`."""

    entropy_in_targets = True  # whether what comes behind a step is worth its entropy too

    def __init__(self, section: Any, observation_size: int, actions: int) -> None:
        super().__init__(section, observation_size, actions)
        self.actor = self.build_actor()
        self.critics = nn.ModuleList(
            mlp(observation_size, section.hidden, actions, self.activation) for _ in range(2)
        )

    activation: type[nn.Module] = nn.ReLU

    def build_actor(self) -> nn.Module:
        """The policy's network."""
        return mlp(self.observation_size, self.section.hidden, self.actions, self.activation)

    def log_policy(self, observations: Tensor, noise: Tensor | None) -> Tensor:
        """Logarithms of the actions' probabilities [n, actions].

        Args:
            observations: [n, observation_size].
            noise: as `draw_noise` gives it.
        """
        return self.actor(observations).log_softmax(-1)

    def draw_noise(self, n: int, generator: torch.Generator) -> Tensor | None:
        """What the policy at n observations is drawn from, on the CPU. Here: nothing."""
        return None

    def act(self, observations: Tensor, generator: torch.Generator) -> Tensor:
        return self.likely(self._log_policy(observations, generator))

    def explore(self, observations: Tensor, round_number: int, generator: torch.Generator) -> Tensor:
        return self.drawn(self._log_policy(observations, generator), generator)

    def experience(self, rollout: Rollout, generator: torch.Generator) -> Valued:
        section = self.section
        returns = n_step_returns(rollout.rewards, rollout.ended, section.gamma, section.n_step)
        flat = rollout.observations.flatten(0, 1)
        values = self._values(flat, self._log_policy(flat, generator)).view(rollout.observations.shape[:2])
        return Valued(rollout.observations[:-1], rollout.actions, returns.target(values))

    def prepare(self, batch: Valued, generator: torch.Generator) -> Valued:
        noise = self.draw_noise(len(batch.actions), generator)
        return batch if noise is None else replace(batch, noise=noise.to(batch.actions.device))

    def loss(self, batch: Valued) -> Tensor:
        q = [critic(batch.observations) for critic in self.critics]
        chosen = [each.gather(1, batch.actions[:, None])[:, 0] for each in q]
        error = sum(F.mse_loss(each, batch.targets) for each in chosen)
        log_policy = self.log_policy(batch.observations, batch.noise)
        lower = torch.minimum(*q).detach()
        cost = (log_policy.exp() * (self.section.alpha * log_policy - lower)).sum(1).mean()
        return error + cost

    def _log_policy(self, observations: Tensor, generator: torch.Generator) -> Tensor:
        noise = self.draw_noise(len(observations), generator)
        return self.log_policy(observations, None if noise is None else noise.to(observations.device))

    def _values(self, observations: Tensor, log_policy: Tensor) -> Tensor:
        """What the policy is worth at observations [n], by the lower critic."""
        worth = torch.minimum(*(critic(observations) for critic in self.critics))
        if self.entropy_in_targets:
            worth = worth - self.section.alpha * log_policy
        return (log_policy.exp() * worth).sum(1)
