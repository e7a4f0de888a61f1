"""What an agent lives through in a local update, and the returns that follow from it."""

from typing import NamedTuple

import torch
from torch import Tensor


class Rollout(NamedTuple):
    """T steps in E copies of an environment, side by side.

    Attributes:
        observations: before each step, and behind the last one [T + 1, E, numbers] fp32. Behind a step that
            ended an episode it is the next one's first.
        actions: that were taken [T, E] int64.
        rewards: that they earned [T, E] fp32.
        ended: 1 where a step ended an episode, otherwise 0 [T, E] fp32.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    ended: Tensor

    @classmethod
    def blank(cls, steps: int, copies: int, observation_size: int, device: torch.device) -> "Rollout":
        """One with nothing in it, for counting work.

        Args:
            steps: T.
            copies: E.
            observation_size: numbers of an observation.
            device: where it is.
        """
        nothing = torch.zeros(steps, copies, device=device)
        observations = torch.zeros(steps + 1, copies, observation_size, device=device)
        return cls(observations, nothing.long(), nothing, nothing)


class Returns(NamedTuple):
    """What the first of up to n steps earned, and where the rest is to be estimated.

    Attributes:
        sums: discounted rewards of those steps [T, E].
        discounts: of what comes behind them [T, E]; 0 where the episode ended among them.
        behind: the place in the rollout of the observation behind them [T, E] int64.
    """

    sums: Tensor
    discounts: Tensor
    behind: Tensor

    def target(self, values: Tensor) -> Tensor:
        """Sums with the discounted value of what comes behind them [T, E]. `values`: of each observation
        [T + 1, E]."""
        return self.sums + self.discounts * values.gather(0, self.behind)


def n_step_returns(rewards: Tensor, ended: Tensor, gamma: float, n: int) -> Returns:
    """Of every step, with the n - 1 steps that follow it; with fewer before the end of an episode or of the
    rollout (Sutton and Barto 2018, Eq. 7.1).

    Args:
        rewards: [T, E].
        ended: 1 where a step ended an episode [T, E].
        gamma: the discount of a step.
        n: how many steps count, at most.
    """
    steps = len(rewards)
    sums = torch.zeros_like(rewards)
    discounts = torch.ones_like(rewards)
    behind = torch.arange(steps, device=rewards.device)[:, None].expand(rewards.shape).clone()
    for k in range(min(n, steps)):
        reached = steps - k  # steps that have one k further on
        sums[:reached] += discounts[:reached] * rewards[k:]
        discounts[:reached] *= gamma * (1 - ended[k:])
        behind[:reached] += 1
    return Returns(sums, discounts, behind)


def advantages(rewards: Tensor, ended: Tensor, values: Tensor, gamma: float, decay: float) -> Tensor:
    """Generalised advantage estimates [T, E] (Schulman et al. 2016, Eq. 16).

    Args:
        rewards: [T, E].
        ended: 1 where a step ended an episode [T, E].
        values: of each observation [T + 1, E].
        gamma: the discount of a step.
        decay: their lambda: 0 looks one step ahead, 1 as far as there are rewards.
    """
    errors = rewards + gamma * (1 - ended) * values[1:] - values[:-1]
    estimates = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        following = errors[t] + gamma * decay * (1 - ended[t]) * following
        estimates[t] = following
    return estimates
