"""Rules to beat: random, round robin, most free, nearest with the model, greedy, and the prophet."""

from typing import Any

import numpy as np

from fedray.scenario.kinds import implementation
from fedray.scenario.serving_rule import ServingRuleSection
from fedray.serving.environment import Environment
from fedray.serving.providers import ProviderEnvironment
from fedray.serving.rule import ServingRule


def serving_rule(
    section: ServingRuleSection, environment: Environment, generator: np.random.Generator
) -> ServingRule:
    """The rule of a section, in an environment that has been reset. `generator`: of its draws."""
    made: ServingRule = implementation(section)(section, environment, generator)
    return made


class Random(ServingRule):
    def act(self, observations: np.ndarray) -> np.ndarray:
        return self.generator.integers(0, self.environment.actions, len(observations))


class OfProvider(ServingRule):
    """A rule that chooses a provider, with the middle one of the numbers of steps."""

    environment: ProviderEnvironment

    def at(self, providers: np.ndarray) -> np.ndarray:
        """Actions at these providers [E]."""
        choices = getattr(self.environment, "choices", 1)
        actions: np.ndarray = providers * choices + choices // 2
        return actions


class RoundRobin(OfProvider):
    def __init__(self, section: Any, environment: Any, generator: np.random.Generator) -> None:
        super().__init__(section, environment, generator)
        self.turn = 0

    def act(self, observations: np.ndarray) -> np.ndarray:
        providers = getattr(self.environment, "providers", self.environment.actions)
        chosen = np.full(len(observations), self.turn % providers)
        self.turn += 1
        return self.at(chosen)


class MostFree(OfProvider):
    def act(self, observations: np.ndarray) -> np.ndarray:
        return self.at(self.environment.free().argmax(1))


class NearestWithModel(OfProvider):
    def act(self, observations: np.ndarray) -> np.ndarray:
        return self.at(self.environment.nearness().argmax(1))


class Greedy(ServingRule):
    environment: ProviderEnvironment

    def act(self, observations: np.ndarray) -> np.ndarray:
        return self.environment.expected_rewards().argmax(1)


class Prophet(ServingRule):
    environment: ProviderEnvironment

    def act(self, observations: np.ndarray) -> np.ndarray:
        return self.environment.rewards().argmax(1)
