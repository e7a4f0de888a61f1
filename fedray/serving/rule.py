"""The base class of rules to beat: who serves a request, without learning."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from fedray.scenario.serving_rule import ServingRuleSection


class ServingRule(ABC):
    """A fixed way to act in an environment, beside which an agent is measured, such as the first action:

        class First(fedray.ServingRule):
            def act(self, observations):
                return np.zeros(len(observations), np.int64)

    Args:
        section: of the rule.
        environment: in which it acts from its first step on. What a rule may look at there is what
            `fedray.serving.providers.ProviderEnvironment` says.
        generator: every draw comes from it.
    """

    Section: ClassVar[type[ServingRuleSection]] = ServingRuleSection

    def __init__(self, section: Any, environment: Any, generator: np.random.Generator) -> None:
        self.section = section
        self.environment = environment
        self.generator = generator

    @abstractmethod
    def act(self, observations: np.ndarray) -> np.ndarray:
        """Actions [E] int64 for observations [E, observation_size]."""
