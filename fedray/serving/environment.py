"""The base class of environments: what a client's agent sees, may do and earns, several copies side by
side."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from fedray.randomness import SERVER
from fedray.randomness import generator as keyed
from fedray.scenario.environment import EnvironmentSection


@dataclass(frozen=True)
class Step:
    """What came of an action in each of E copies.

    Attributes:
        observations: after it [E, observation_size] float32; where an episode ended, the next one's first.
        rewards: that it earned [E] float32.
        ended: whether an episode ended with it, terminated or truncated [E] bool.
        measures: what else is known of each request [E], by name, such as `quality`, `latency_s`, `in_time`,
            `hit` and `energy_j`.
    """

    observations: np.ndarray
    rewards: np.ndarray
    ended: np.ndarray
    measures: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where an environment is: what stays the same there from one local update to the next follows from it.

    Attributes:
        seed: the scenario's.
        client: whose environment it is.
    """

    seed: int
    client: int

    def own(self, purpose: str) -> np.random.Generator:
        """Of what this client's environment has of its own, such as which models are asked for there."""
        return keyed(self.seed, 0, self.client, purpose)

    def common(self, purpose: str) -> np.random.Generator:
        """Of what all clients' environments have in common, such as how fast a provider is."""
        return keyed(self.seed, 0, SERVER, purpose)


class Environment(ABC):
    """An environment of one client in E copies, side by side in numpy: the shape of gymnasium's vectorised
    environments, with an action by number and an observation of a fixed size. It goes on from step to step of
    one local update; nothing of it outlives that. One in which requests come from a hidden side of a coin,
    which differs from client to client:

        class Coin(fedray.Environment):
            observation_size = 1
            actions = 2

            def __init__(self, section, place, copies):
                super().__init__(section, place, copies)
                self.side = place.own("side").integers(2)

            def reset(self, generator):
                return np.zeros((self.copies, 1), np.float32)

            def step(self, actions):
                right = actions == self.side
                observations = np.zeros((self.copies, 1), np.float32)
                ended = np.zeros(self.copies, bool)
                return fedray.Step(observations, right.astype(np.float32), ended, {"right": right})

    Attributes:
        observation_size: numbers of an observation.
        actions: how many there are.
        copies: E.
        rate_per_s: requests a second of simulated time; infinite where they take none.
    """

    Section: ClassVar[type[EnvironmentSection]] = EnvironmentSection
    observation_size: int
    actions: int
    rate_per_s: float = math.inf

    def __init__(self, section: Any, place: Place, copies: int) -> None:
        """
        Args:
            section: the scenario's `data.environment`.
            place: the client's; what is hidden there is drawn from its keys.
            copies: E.
        """
        self.section = section
        self.place = place
        self.copies = copies

    @abstractmethod
    def reset(self, generator: np.random.Generator) -> np.ndarray:
        """Begins anew in all copies: their first observations [E, observation_size] float32.

        Args:
            generator: every draw from here on comes from it, but for those of the place.
        """

    @abstractmethod
    def step(self, actions: np.ndarray) -> Step:
        """One step in every copy. `actions`: [E] int64."""
