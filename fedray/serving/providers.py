"""Environments of providers, which rules may look at."""

from abc import abstractmethod

import numpy as np

from fedray.serving.environment import Environment


class ProviderEnvironment(Environment):
    """One in which an action chooses a provider and, where there are several choices, denoising steps: action
    `provider * choices + choice`.

    Attributes:
        providers: how many.
    """

    providers: int

    @property
    def choices(self) -> int:
        """Of denoising steps, at each provider."""
        return self.actions // self.providers

    @abstractmethod
    def free(self) -> np.ndarray:
        """How free each provider is [E, providers]; the larger, the sooner it can begin."""

    def nearness(self) -> np.ndarray:
        """How soon each provider's answer can begin to come [E, providers], where it has the model that is
        asked for; -inf where it has not. Here: how free it is."""
        return self.free()

    @abstractmethod
    def rewards(self) -> np.ndarray:
        """What each action would earn now [E, actions], by all that is hidden."""

    @abstractmethod
    def expected_rewards(self) -> np.ndarray:
        """What each action would earn now [E, actions], where all that is hidden is as on average."""
