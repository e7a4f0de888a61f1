"""agent: what acts in its client's environment, and learns from what comes of it.

Experience is made in the local update that trains on it, with the weights that the client received, and is
gone when that ends; only weights travel.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedray.data import DatasetInfo, Samples
from fedray.learners.agents.algorithm import Algorithm
from fedray.learners.agents.rollout import Rollout
from fedray.learners.contexts import EvaluationContext, LearnerContext
from fedray.learners.flops import counted_flops
from fedray.learners.learner import Learner
from fedray.randomness import generator, key
from fedray.scenario.agent import Agent as Section
from fedray.scenario.base import Refused
from fedray.scenario.kinds import implementation
from fedray.serving.rules import serving_rule

CONFIG = "config.json"
Choose = Callable[[Tensor], Tensor]  # actions [E] int64 for observations [E, numbers]
COUNTED_STEPS = 15  # of a rollout whose work is counted


@dataclass(frozen=True)
class Requests:
    """What a client brings to a local update: its environment, and how many requests it plays there."""

    samples: Any
    client: int
    count: int


class Agent(Learner):
    counts_alike_on_cpu = True

    def __init__(self, section: Section, context: LearnerContext) -> None:
        super().__init__(section, context)
        self.observation_size = self._known("observation_size")
        self.actions = self._known("actions")
        algorithm = implementation(section.algorithm)
        self.algorithm: Algorithm = algorithm(section.algorithm, self.observation_size, self.actions)
        self.parts = {"network": self.algorithm}
        self.rule_metrics: dict[str, float] | None = None  # once they have been measured

    def _known(self, name: str) -> int:
        """What the data say of their environments.

        Raises:
            Refused: where they do not.
        """
        known = self.context.dataset.extra.get(name)
        if not isinstance(known, int) or known < 1:
            expected = f"a source whose info.extra has {name}, a number from 1"
            raise Refused("data.kind", f"one whose {name} is {known!r}", expected)
        return known

    # Training

    def encode_client(self, client: int, samples: Samples, indices: np.ndarray) -> Requests:
        return Requests(samples, client, len(indices))

    def experience(self, shard: Requests, round_number: int, client: int) -> Any:
        """What came of playing as many requests as the client has, in the copies of its environment."""
        copies = min(self.section.copies, shard.count)
        environment, first = self._begin(shard.samples, client, round_number, copies)
        draws = self._draws(round_number, client, "actions")

        def choose(observations: Tensor) -> Tensor:
            return self.algorithm.explore(observations, round_number, draws)

        with torch.no_grad(), self.autocast():
            rollout, _ = play(environment, first, choose, -(-shard.count // copies))
            return self._flat(rollout, shard.count, draws)

    def experience_flops(self) -> float:
        rollout = Rollout.blank(COUNTED_STEPS, 2, self.observation_size, self.device)
        draws = torch.Generator()

        def lived_through() -> None:
            for observations in rollout.observations[:-1]:
                self.algorithm.explore(observations, 1, draws)
            self.algorithm.experience(rollout, draws)

        with torch.no_grad():
            return counted_flops(lived_through) / rollout.rewards.numel()

    def draw(self, shard: Any, indices: np.ndarray, generator: torch.Generator) -> Any:
        i = torch.from_numpy(indices).to(self.device)
        values = {field.name: getattr(shard, field.name) for field in fields(shard)}
        batch = replace(shard, **{name: value[i] for name, value in values.items() if value is not None})
        return self.algorithm.prepare(batch, generator)

    def blank_shard(self, n: int) -> Any:
        with torch.no_grad():
            return self._flat(Rollout.blank(1, n, self.observation_size, self.device), n, torch.Generator())

    def loss(self, batch: Any) -> Tensor:
        with self.autocast():
            return self.algorithm.loss(batch)

    def _flat(self, rollout: Rollout, n: int, draws: torch.Generator) -> Any:
        """The first n steps of what the algorithm makes of a rollout, [n, ...] each.

        Args:
            rollout: of n steps or more.
            n: how many.
            draws: where draws come from.
        """
        lived = self.algorithm.experience(rollout, draws)
        values = {field.name: getattr(lived, field.name) for field in fields(lived)}
        return replace(lived, **{name: v.flatten(0, 1)[:n] for name, v in values.items() if v is not None})

    # Evaluation

    def evaluate(self, context: EvaluationContext) -> dict[str, float]:
        """What it earns, and whatever else its environment measures, a request: the mean over held-out
        requests in every client's environment, which are the same in every round; and beside it what the
        section's rules earn of the same requests."""
        test_set = context.test_set()
        if test_set is None or self.local_names:  # what acts is whole only at a client
            return {}
        samples, indices = test_set
        clients = range(self.section.evaluated_clients or context.clients)

        def own(environment: Any, client: int) -> Choose:
            draws = self._draws(0, client, "evaluated actions")
            return lambda observations: self.algorithm.act(observations, draws)

        with torch.no_grad(), self.evaluating(), self.autocast():
            metrics = self._measured(samples, len(indices), clients, own)
            if self.rule_metrics is None:
                self.rule_metrics = self._measured_rules(samples, len(indices), clients)
        metrics |= self.rule_metrics
        return {f"eval_{name}": value for name, value in metrics.items()} | {
            "eval_requests": float(len(indices) * len(clients))
        }

    def _measured_rules(self, samples: Any, requests: int, clients: Sequence[int]) -> dict[str, float]:
        """What each of the section's rules earns, and whatever else is measured of it, by the measure's name
        and the rule's.

        Args:
            samples: of the test set.
            requests: that each client's environment gets.
            clients: whose environments.
        """
        metrics: dict[str, float] = {}
        for name, section in zip(self.section.rule_names, self.section.rules, strict=True):

            def policy(environment: Any, client: int, section: Any = section) -> Choose:
                rule = serving_rule(section, environment, self._rng(0, client, f"rule {section.kind}"))
                return lambda observations: torch.from_numpy(rule.act(observations.cpu().numpy()))

            measured = self._measured(samples, requests, clients, policy)
            metrics |= {f"{measure}_{name}": value for measure, value in measured.items()}
        return metrics

    def _measured(
        self, samples: Any, requests: int, clients: Sequence[int], policy: Callable[[Any, int], Choose]
    ) -> dict[str, float]:
        """The mean reward, and the means of whatever else is measured, over so many requests a client.

        Args:
            samples: of the test set.
            requests: that each client's environment gets.
            clients: whose environments.
            policy: what chooses in an environment of a client.
        """
        copies = min(self.section.copies, requests)
        totals: dict[str, float] = {}
        for client in clients:
            environment, first = self._begin(samples, client, 0, copies)
            choose = policy(environment, client)
            rollout, measures = play(environment, first, choose, -(-requests // copies))
            means = {"reward": float(rollout.rewards.double().mean())} | measures
            for name, value in means.items():
                totals[name] = totals.get(name, 0.0) + value / len(clients)
        return totals

    def _begin(self, samples: Any, client: int, round_number: int, copies: int) -> tuple[Any, Tensor]:
        """A client's environment in so many copies, and their first observations.

        Args:
            samples: of the source.
            client: whose.
            round_number: from 1; 0: for evaluation, the same in every round.
            copies: side by side.
        """
        environment = samples.environment(client, self._rng(round_number, client, "environment"), copies)
        first = environment.reset(self._rng(round_number, client, "requests"))
        return environment, numbers(first, (copies, self.observation_size), "observations").to(self.device)

    def _rng(self, round_number: int, client: int, purpose: str) -> np.random.Generator:
        return generator(self.context.seed, round_number, client, purpose)

    def _draws(self, round_number: int, client: int, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(key(self.context.seed, round_number, client, purpose))

    # Files

    def save(self, folder: Path) -> None:
        """Weights as safetensors, and what built them."""
        super().save(folder)
        facts = self.section.model_dump() | {
            "observation_size": self.observation_size,
            "actions": self.actions,
        }
        (folder / CONFIG).write_text(json.dumps(facts, indent=2) + "\n")

    @classmethod
    def exported_dataset(cls, section: Section, folder: Path) -> DatasetInfo:
        facts = json.loads((folder / CONFIG).read_text())
        extra = {name: facts[name] for name in ("observation_size", "actions")}
        return DatasetInfo(0, None, (), extra=extra)


def play(environment: Any, first: Tensor, choose: Choose, steps: int) -> tuple[Rollout, dict[str, float]]:
    """So many steps in the copies of an environment, and the mean of each of its measures over all of them.

    Args:
        environment: that has been reset.
        first: observations [E, numbers].
        choose: gives actions [E] for observations.
        steps: T.

    Raises:
        ValueError: for what has not the shape that the environment began with.
    """
    observations = [first]
    actions: list[Tensor] = []
    rewards: list[Tensor] = []
    ended: list[Tensor] = []
    measured: dict[str, float] = {}
    for _ in range(steps):
        chosen = choose(observations[-1])
        step = environment.step(chosen.cpu().numpy())
        actions.append(chosen.to(first.device))
        rewards.append(numbers(step.rewards, chosen.shape, "rewards").to(first.device))
        ended.append(numbers(step.ended, chosen.shape, "ended").to(first.device))
        observations.append(numbers(step.observations, first.shape, "observations").to(first.device))
        for name, values in step.measures.items():
            measured[name] = measured.get(name, 0.0) + float(np.mean(values)) / steps
    rollout = Rollout(*(torch.stack(part) for part in (observations, actions, rewards, ended)))
    return rollout, measured


def numbers(values: Any, shape: Sequence[int], name: str) -> Tensor:
    """What an environment gives, as fp32.

    Args:
        values: array.
        shape: that it shall have.
        name: what it is.

    Raises:
        ValueError: where it has another shape, or is not finite.
    """
    array = np.array(values, np.float32)
    if array.shape != tuple(shape):
        raise ValueError(f"its environment gives {name} {list(array.shape)}, expected {list(shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"its environment gives {name} that are not finite")
    return torch.from_numpy(array)
