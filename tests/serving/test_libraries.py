"""Environments of gymnasium and PettingZoo: as kinds, and by those libraries' own checkers."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo import ParallelEnv
from pettingzoo.test import parallel_api_test
from pydantic import TypeAdapter

import fedray
from fedray.scenario import environment as sections
from fedray.scenario.environment import AnyEnvironment
from fedray.scenario.kinds import implementation
from fedray.serving.environment import Place

SECTIONS = TypeAdapter(AnyEnvironment)
NONE = SimpleNamespace()
Box = gymnasium.spaces.Box
Discrete = gymnasium.spaces.Discrete


def made(kind, copies=3, **keys):
    section = SECTIONS.validate_python({"kind": kind, **keys})
    return implementation(section)(section, Place(0, 0), copies)


class Offered(gymnasium.Env):
    """An environment of ours in one copy, as gymnasium's."""

    def __init__(self, kind):
        self.inner = made(kind, copies=1)
        self.observation_space = Box(-np.inf, np.inf, (self.inner.observation_size,), np.float32)
        self.action_space = Discrete(self.inner.actions)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.inner.reset(np.random.default_rng(seed))[0], {}

    def step(self, action):
        step = self.inner.step(np.array([action]))
        return step.observations[0], float(step.rewards[0]), bool(step.ended[0]), False, {}


@pytest.mark.parametrize("kind", ["edge", "agod"])
def test_our_environments_pass_gymnasiums_checker(kind):
    check_env(Offered(kind), skip_render_check=True)


def test_copies_of_a_gymnasium_environment_go_on_side_by_side_each_with_its_own_seed():
    environment = made("gymnasium", id="CartPole-v1")
    assert (environment.observation_size, environment.actions) == (4, 2)
    first = environment.reset(np.random.default_rng(0))
    assert first.dtype == np.float32
    assert len({tuple(row) for row in first.tolist()}) == 3
    assert made("gymnasium", id="CartPole-v1").reset(np.random.default_rng(0)).tolist() == first.tolist()
    ended = np.zeros(3, int)
    for _ in range(40):  # pushed to one side, a pole falls within ten steps or so
        step = environment.step(np.ones(3, np.int64))
        ended += step.ended
        assert np.abs(step.observations[step.ended]).max(initial=0) <= 0.05  # a new episode's first
    assert (ended >= 3).all()
    assert step.rewards.tolist() == [1, 1, 1]


class Growing(gymnasium.Env):
    """Its observations grow with every step."""

    observation_space = Box(-1, 1, (2,))
    action_space = Discrete(2)
    size = 2

    def reset(self, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.size += 1
        return np.zeros(self.size, np.float32), 0.0, False, False, {}


class Redeclaring(Growing):
    """It says that its spaces are others once it has begun."""

    def step(self, action):
        self.action_space = Discrete(3)
        return np.zeros(2, np.float32), 0.0, False, False, {}


class Continuous(Growing):
    action_space = Box(-1, 1, (1,))


def of(env, base=fedray.GymnasiumEnvironment):
    own = type("Own", (base,), {"make": lambda self: env()})
    return own(own.Section(kind="mine:Own"), Place(0, 0), 2)


@pytest.mark.parametrize(
    ("env", "said"),
    [(Growing, "Growing, whose observation has 3 numbers after 2"), (Redeclaring, "whose spaces change")],
)
def test_an_environment_whose_spaces_change_is_refused_by_name(env, said):
    environment = of(env)
    environment.reset(np.random.default_rng(0))
    with pytest.raises(fedray.Refused, match=said):
        environment.step(np.zeros(2, np.int64))


def test_actions_without_numbers_are_refused():
    with pytest.raises(fedray.Refused, match="Continuous with actions Box"):
        of(Continuous)


class Matching(ParallelEnv):
    """Two agents see a number and earn 1 where both name it; a game has three steps."""

    metadata = {"name": "matching"}

    def __init__(self, actions=(2, 2)):
        self.possible_agents = ["a", "b"]
        self.agents = []
        self.spaces = {agent: Discrete(n) for agent, n in zip("ab", actions, strict=True)}

    def observation_space(self, agent):
        return _ONE

    def action_space(self, agent):
        return self.spaces[agent]

    def reset(self, seed=None, options=None):
        self.rng = np.random.default_rng(seed)
        self.agents = self.possible_agents[:]
        self.left = 3
        return self.look(), {agent: {} for agent in self.agents}

    def look(self):
        self.number = int(self.rng.integers(2))
        return {agent: np.array([self.number], np.float32) for agent in self.agents}

    def step(self, actions):
        right = float(all(action == self.number for action in actions.values()))
        self.left -= 1
        over = dict.fromkeys(self.agents, self.left == 0)
        seen = self.look()
        rewards = dict.fromkeys(self.agents, right)
        if self.left == 0:
            self.agents = []
        return seen, rewards, over, dict.fromkeys(over, False), {agent: {} for agent in over}


_ONE = Box(0, 1, (1,), np.float32)


def test_each_agents_view_of_a_pettingzoo_environment_is_a_copy():
    parallel_api_test(Matching(), 20)
    environment = of(Matching, fedray.PettingZooEnvironment)
    environment = type(environment)(environment.section, Place(0, 0), 3)  # two games, the second half played
    seen = environment.reset(np.random.default_rng(0))
    assert seen.shape == (3, 1)
    assert seen[0] == seen[1]
    rewards = []
    ended = []
    for _ in range(3):
        step = environment.step(seen[:, 0].astype(np.int64))
        seen = step.observations
        rewards.append(step.rewards.tolist())
        ended.append(step.ended.tolist())
    assert [row[:2] for row in rewards] == [[1, 1]] * 3
    assert ended == [[False] * 3, [False] * 3, [True] * 3]


def test_agents_of_different_spaces_are_refused():
    with pytest.raises(fedray.Refused, match="matching with agents of different spaces"):
        of(lambda: Matching((2, 3)), fedray.PettingZooEnvironment)


@pytest.mark.parametrize(
    "kind", [{"kind": "gymnasium", "id": "CartPole-v1"}, {"kind": "pettingzoo", "module": "x"}]
)
def test_a_library_that_is_not_installed_is_refused_with_what_to_install(kind, monkeypatch):
    monkeypatch.setattr(sections, "find_spec", lambda name: None)
    (refused,) = SECTIONS.validate_python(kind).conflicts(NONE)
    assert refused.expected == f"pip install {kind['kind']}"
