"""The base class of the ways in which an agent learns."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedray.learners.agents.rollout import Rollout
from fedray.scenario.agent import AlgorithmSection


class Algorithm(nn.Module, ABC):
    """How an agent acts, and what it learns from. It is a torch module: all parameters that it has train, by
    one optimizer and one loss, and travel. In a local update it lives through a rollout and makes its
    experience of that with the weights that its client received; so they are its target networks, and there
    are no others. Nothing outlives the local update: no replay, and no copy of a network.

    One of one's own has `act`, `experience` and `loss`; REINFORCE (Williams 1992), for instance:

        from dataclasses import dataclass

        import torch
        from torch import nn

        import fedray
        from fedray.learners.agents.rollout import n_step_returns

        @dataclass
        class Played:
            observations: torch.Tensor
            actions: torch.Tensor
            returns: torch.Tensor

        class Reinforce(fedray.Algorithm):
            def __init__(self, section, observation_size, actions):
                super().__init__(section, observation_size, actions)
                self.policy = nn.Linear(observation_size, actions)

            def act(self, observations, generator):
                return self.likely(self.policy(observations))

            def explore(self, observations, round_number, generator):
                return self.drawn(self.policy(observations).log_softmax(1), generator)

            def experience(self, rollout, generator):
                steps = len(rollout.rewards)
                sums = n_step_returns(rollout.rewards, rollout.ended, 0.9, steps).sums
                return Played(rollout.observations[:-1], rollout.actions, sums - sums.mean())

            def loss(self, batch):
                log_probabilities = self.policy(batch.observations).log_softmax(1)
                chosen = log_probabilities.gather(1, batch.actions[:, None])[:, 0]
                return -(chosen * batch.returns).mean()

    Args:
        section: the scenario's `model.algorithm`.
        observation_size: numbers of an observation.
        actions: how many there are to choose from.
    """

    Section: ClassVar[type[AlgorithmSection]] = AlgorithmSection

    def __init__(self, section: Any, observation_size: int, actions: int) -> None:
        super().__init__()
        self.section = section
        self.observation_size = observation_size
        self.actions = actions

    @abstractmethod
    def act(self, observations: Tensor, generator: torch.Generator) -> Tensor:
        """What it does once it has learnt: actions [n] int64.

        Args:
            observations: [n, observation_size].
            generator: every draw comes from it, on the CPU.
        """

    def explore(self, observations: Tensor, round_number: int, generator: torch.Generator) -> Tensor:
        """What it does to learn: actions [n] int64. Here: as `act`.

        Args:
            observations: [n, observation_size].
            round_number: from 1.
            generator: every draw comes from it, on the CPU.
        """
        return self.act(observations, generator)

    @abstractmethod
    def experience(self, rollout: Rollout, generator: torch.Generator) -> Any:
        """What its batches are drawn from, by the received weights: a dataclass of tensors [T, E, ...], or
        None where a batch gets its own in `prepare`. Called without gradients.

        Args:
            rollout: what it has lived through.
            generator: every draw comes from it, on the CPU.
        """

    def prepare(self, batch: Any, generator: torch.Generator) -> Any:
        """A batch with whatever is drawn anew for each step. Here: the batch as it is.

        Args:
            batch: samples of what `experience` gave, [b, ...] each.
            generator: every draw comes from it, on the CPU.
        """
        return batch

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """The mean over a batch of what is minimised."""

    @staticmethod
    def likely(scores: Tensor) -> Tensor:
        """The action with the highest score [n]. `scores`: [n, actions]."""
        return scores.argmax(1)

    @staticmethod
    def drawn(log_probabilities: Tensor, generator: torch.Generator) -> Tensor:
        """Actions [n], each drawn by its probability, by the Gumbel-max trick.

        Args:
            log_probabilities: [n, actions].
            generator: of the draws, on the CPU.
        """
        uniform = torch.rand(log_probabilities.shape, generator=generator).clamp(1e-20, 1 - 1e-7)
        return (log_probabilities - (-uniform.log()).log().to(log_probabilities.device)).argmax(1)


def mlp(inputs: int, hidden: Sequence[int], outputs: int, activation: type[nn.Module]) -> nn.Sequential:
    """Linear layers with an activation between them.

    Args:
        inputs: numbers that go in.
        hidden: numbers of each layer between.
        outputs: numbers that come out.
        activation: its class.
    """
    layers: list[nn.Module] = []
    for before, behind in pairwise((inputs, *hidden)):
        layers += [nn.Linear(before, behind), activation()]
    return nn.Sequential(*layers, nn.Linear((inputs, *hidden)[-1], outputs))
