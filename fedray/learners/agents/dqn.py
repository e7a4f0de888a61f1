"""dqn: deep Q-learning (Mnih et al. 2015) with double targets (van Hasselt et al. 2016). Without replay or a
target network of its own it is near to PQN (Gallici et al. 2025)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedray.learners.agents.algorithm import Algorithm, mlp
from fedray.learners.agents.rollout import Rollout, n_step_returns
from fedray.scenario.agent import Dqn as Section


@dataclass
class Transitions:
    """Steps with what came behind them, [T, E, ...] or [b, ...]."""

    observations: Tensor
    actions: Tensor
    returns: Tensor  # discounted rewards of up to n steps
    discounts: Tensor  # of what comes behind them
    observations_behind: Tensor
    received_q: Tensor  # of each action then, by the received weights


class Dqn(Algorithm):
    def __init__(self, section: Section, observation_size: int, actions: int) -> None:
        super().__init__(section, observation_size, actions)
        self.q = mlp(observation_size, section.hidden, actions, nn.ReLU)

    def act(self, observations: Tensor, generator: torch.Generator) -> Tensor:
        return self.likely(self.q(observations))

    def explore(self, observations: Tensor, round_number: int, generator: torch.Generator) -> Tensor:
        """By chance with the round's probability, otherwise the best."""
        chance, place = torch.rand(2, len(observations), generator=generator).to(observations.device)
        at_random = (place * self.actions).long().clamp(max=self.actions - 1)
        explores = chance < self.section.epsilon(round_number)
        return torch.where(explores, at_random, self.act(observations, generator))

    def experience(self, rollout: Rollout, generator: torch.Generator) -> Transitions:
        section = self.section
        returns = n_step_returns(rollout.rewards, rollout.ended, section.gamma, section.n_step)
        q = self.q(rollout.observations)
        copies = torch.arange(q.shape[1], device=q.device)
        return Transitions(
            observations=rollout.observations[:-1],
            actions=rollout.actions,
            returns=returns.sums,
            discounts=returns.discounts,
            observations_behind=rollout.observations[returns.behind, copies],
            received_q=q[returns.behind, copies],
        )

    def targets(self, batch: Transitions) -> Tensor:
        """What the chosen actions' values shall become [b]: the weights that train choose the action behind,
        the received ones say what it is worth."""
        with torch.no_grad():
            chosen = self.likely(self.q(batch.observations_behind))
        worth = batch.received_q.gather(1, chosen[:, None])[:, 0]
        return batch.returns + batch.discounts * worth

    def loss(self, batch: Transitions) -> Tensor:
        q = self.q(batch.observations).gather(1, batch.actions[:, None])[:, 0]
        return F.smooth_l1_loss(q, self.targets(batch))
