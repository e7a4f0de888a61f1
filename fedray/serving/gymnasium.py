"""gymnasium: environments of that library, as ours."""

from abc import abstractmethod
from typing import Any

import numpy as np

from fedray.errors import reason
from fedray.scenario.base import Refused
from fedray.scenario.environment import Gymnasium as Section
from fedray.serving import spaces
from fedray.serving.environment import Environment, Place, Step

SEEDS = 2**31


class GymnasiumEnvironment(Environment):
    """A `gymnasium.Env` of one's own, in as many copies as are asked for, each with a seed of its own:

    class Parking(fedray.GymnasiumEnvironment):
        def make(self):
            return ParkingLot(bays=12)     # a gymnasium.Env
    """

    def __init__(self, section: Any, place: Place, copies: int) -> None:
        super().__init__(section, place, copies)
        self.envs = [self.make() for _ in range(copies)]
        self.name = type(self.envs[0].unwrapped).__name__
        self.spaces = (self.envs[0].observation_space, self.envs[0].action_space)
        self.observation_size, self.actions = spaces.sizes(self.name, *self.spaces)

    @abstractmethod
    def make(self) -> Any:
        """One copy: a `gymnasium.Env` with a Box of observations and Discrete actions."""

    def reset(self, generator: np.random.Generator) -> np.ndarray:
        seeds = generator.integers(0, SEEDS, self.copies)
        first = [env.reset(seed=int(seed))[0] for env, seed in zip(self.envs, seeds, strict=True)]
        return self._observed(first)

    def step(self, actions: np.ndarray) -> Step:
        observations = []
        rewards = np.zeros(self.copies, np.float32)
        ended = np.zeros(self.copies, bool)
        for i, (env, action) in enumerate(zip(self.envs, actions.tolist(), strict=True)):
            observation, rewards[i], terminated, truncated, _ = env.step(action)
            ended[i] = terminated or truncated
            observations.append(env.reset()[0] if ended[i] else observation)
        return Step(self._observed(observations), rewards, ended)

    def _observed(self, observations: list[Any]) -> np.ndarray:
        for env in self.envs:
            spaces.refuse_changed(self.name, self.spaces, (env.observation_space, env.action_space))
        return np.stack([spaces.flat(self.name, one, self.observation_size) for one in observations])


class Registered(GymnasiumEnvironment):
    section: Section

    def make(self) -> Any:
        import gymnasium

        try:
            return gymnasium.make(self.section.id, **self.section.options)
        except (gymnasium.error.Error, ImportError, TypeError) as e:
            got = f"{self.section.id!r}: {reason(e)}"
            raise Refused("data.environment.id", got, "a name that gymnasium.make takes") from None
