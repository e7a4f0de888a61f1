"""pettingzoo: parallel environments of that library, as ours: each agent's view is one copy."""

from abc import abstractmethod
from importlib import import_module
from typing import Any

import numpy as np

from fedray.errors import reason
from fedray.scenario.base import Refused
from fedray.scenario.environment import PettingZoo as Section
from fedray.serving import spaces
from fedray.serving.environment import Environment, Place, Step
from fedray.serving.gymnasium import SEEDS


class PettingZooEnvironment(Environment):
    """A `pettingzoo.ParallelEnv` of one's own: `make` gives one. There are as many games side by side as the
    copies fill; an episode ends for all agents of a game together."""

    def __init__(self, section: Any, place: Place, copies: int) -> None:
        super().__init__(section, place, copies)
        first = self.make()
        self.agents = list(first.possible_agents)
        self.name = str(first.metadata.get("name", type(first.unwrapped).__name__))
        self.spaces = self._alike(first)
        self.observation_size, self.actions = spaces.sizes(self.name, *self.spaces)
        games = -(-copies // len(self.agents))
        self.games = [first, *(self.make() for _ in range(games - 1))]

    @abstractmethod
    def make(self) -> Any:
        """One game: a `pettingzoo.ParallelEnv`."""

    def reset(self, generator: np.random.Generator) -> np.ndarray:
        self.generator = generator
        return self._copies([self._begin(game) for game in self.games])

    def step(self, actions: np.ndarray) -> Step:
        whole = np.zeros(len(self.games) * len(self.agents), np.int64)
        whole[: self.copies] = actions  # agents of the last game that nobody plays take action 0
        chosen = whole.reshape(len(self.games), -1).tolist()
        played = [self._play(game, row) for game, row in zip(self.games, chosen, strict=True)]
        observations, rewards, ended = (list(part) for part in zip(*played, strict=True))
        return Step(
            self._copies(observations),
            self._copies(rewards).astype(np.float32),
            np.repeat(ended, len(self.agents))[: self.copies],
        )

    def _begin(self, game: Any) -> np.ndarray:
        observations, _ = game.reset(seed=int(self.generator.integers(SEEDS)))
        return self._views(observations)

    def _play(self, game: Any, actions: list[int]) -> tuple[np.ndarray, np.ndarray, bool]:
        """Observations [agents, numbers], rewards [agents] and whether the episode ended, of one step."""
        present = {agent: a for agent, a in zip(self.agents, actions, strict=True) if agent in game.agents}
        observations, rewards, terminated, truncated, _ = game.step(present)
        earned = np.array([rewards.get(agent, 0.0) for agent in self.agents])
        ended = not game.agents or all(terminated[a] or truncated[a] for a in terminated)
        return (self._begin(game) if ended else self._views(observations)), earned, ended

    def _views(self, observations: dict[str, Any]) -> np.ndarray:
        """Each agent's observation [agents, numbers]; zeros of one that is out of its game."""
        views = np.zeros((len(self.agents), self.observation_size), np.float32)
        for i, agent in enumerate(self.agents):
            if agent in observations:
                views[i] = spaces.flat(self.name, observations[agent], self.observation_size)
        return views

    def _copies(self, of_games: list[np.ndarray]) -> np.ndarray:
        for game in self.games:
            spaces.refuse_changed(self.name, self.spaces, self._alike(game))
        return np.concatenate(of_games)[: self.copies]

    def _alike(self, game: Any) -> tuple[Any, Any]:
        """The spaces of every agent of a game. Raises Refused where they differ."""
        found = [(game.observation_space(agent), game.action_space(agent)) for agent in self.agents]
        if any(one != found[0] for one in found):
            expected = "agents whose spaces are alike, since they share their parameters"
            raise Refused(spaces.KEY, f"{self.name} with agents of different spaces", expected)
        return found[0]


class OfModule(PettingZooEnvironment):
    section: Section

    def make(self) -> Any:
        try:
            return import_module(self.section.module).parallel_env(**self.section.options)
        except (ImportError, AttributeError, TypeError) as e:
            got = f"{self.section.module}: {reason(e)}"
            raise Refused("data.environment.module", got, "a module that has parallel_env") from None
