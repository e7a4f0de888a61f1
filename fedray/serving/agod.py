"""agod: the environment of Du et al. (2024, arXiv 2303.13052), as in their code (Lizonghang/AGOD)."""

import numpy as np

from fedray.scenario.environment import Agod as Section
from fedray.serving.environment import Place, Step
from fedray.serving.providers import ProviderEnvironment

PROVIDERS = 20
CAPACITIES = np.arange(400, 1000, 100)  # denoising steps that may run at a time
RAMP_BEGINS = np.arange(0, 100, 10)  # Ax: steps below which a picture is worth nothing
RAMP_ENDS = np.arange(150, 250, 10)  # Bx: steps from which on it is worth no more
LOWEST = np.linspace(0, 0.45, 10)  # Ay
HIGHEST = np.linspace(0.5, 0.95, 10)  # By
WANTED = np.arange(100, 260, 10)  # steps of a request
EPISODE_S = 1_000_000
REQUESTS_PER_S = 0.001
CRASH = 2.0  # the penalty of a crash, and of each task that is lost with it
SLOTS = 9  # tasks that run on a provider at most: 900 steps at 100 each


def runtime_s(steps: np.ndarray) -> np.ndarray:
    """Seconds that a picture of so many denoising steps takes."""
    return (0.001 * steps**2 + 2.5 * steps - 14) * 60


class Agod(ProviderEnvironment):
    observation_size = 2 * PROVIDERS + 2
    actions = PROVIDERS
    providers = PROVIDERS
    rate_per_s = REQUESTS_PER_S

    def __init__(self, section: Section, place: Place, copies: int) -> None:
        super().__init__(section, place, copies)
        draw = place.common("providers") if section.shared else place.own("providers")
        self.capacity = draw.choice(CAPACITIES, PROVIDERS).astype(float)
        self.begins = draw.choice(RAMP_BEGINS, PROVIDERS)
        self.lowest = draw.choice(LOWEST, PROVIDERS)
        self.ends = draw.choice(RAMP_ENDS, PROVIDERS)
        self.highest = draw.choice(HIGHEST, PROVIDERS)
        self.rows = np.arange(copies)

    def reset(self, generator: np.random.Generator) -> np.ndarray:
        self.generator = generator
        shape = (self.copies, PROVIDERS, SLOTS)
        self.started_s = np.zeros(shape)
        self.runtime_s = np.ones(shape)
        self.running = np.zeros(shape)  # steps of each task that runs; 0 where none does
        self.arrivals_s: list[np.ndarray] = [np.zeros(1)] * self.copies
        self.served = np.zeros(self.copies, np.int64)  # in this episode
        self.steps = np.zeros(self.copies)
        self.now_s = np.zeros(self.copies)
        self._begin(np.ones(self.copies, bool))
        self._next()
        return self._observed()

    def step(self, actions: np.ndarray) -> Step:
        chosen = (self.rows, actions)
        fits = self.steps <= self.free()[chosen]
        worth = self._worth()[chosen]
        runs = self.running[chosen] > 0
        progress = (self.now_s[:, None] - self.started_s[chosen]) / self.runtime_s[chosen]
        lost = np.where(runs, 1 - progress, 0).sum(1)
        rewards = np.where(fits, worth, -CRASH - CRASH * lost)
        self._run(actions, fits)
        latency_s = runtime_s(self.steps)
        self.served += 1
        ended = self.served == [len(arrivals) - 1 for arrivals in self.arrivals_s]
        self._begin(ended)
        self._next()
        measures = {"quality": np.where(fits, worth, 0), "latency_s": latency_s, "crashed": ~fits}
        return Step(self._observed(), rewards.astype(np.float32), ended, measures)

    def free(self) -> np.ndarray:
        return self.capacity - self.running.sum(2)

    def rewards(self) -> np.ndarray:
        """As the prophet of their code sees it: what an action earns, 0 where the request does not fit."""
        return np.where(self.steps[:, None] <= self.free(), self._worth(), 0.0)

    def expected_rewards(self) -> np.ndarray:
        return np.where(self.steps[:, None] <= self.free(), 0.5, -CRASH)

    def _worth(self) -> np.ndarray:
        """What a picture is worth at each provider [E, providers]: a ramp over its steps."""
        share = (self.steps[:, None] - self.begins) / (self.ends - self.begins)
        return np.clip(share, 0, 1) * (self.highest - self.lowest)

    def _run(self, actions: np.ndarray, fits: np.ndarray) -> None:
        """Starts the request where it fits; where it does not, all that runs there is lost."""
        chosen = (self.rows, actions)
        self.running[self.rows[~fits], actions[~fits]] = 0
        slot = np.argmin(self.running[chosen] > 0, axis=1)
        place = (self.rows[fits], actions[fits], slot[fits])
        self.running[place] = self.steps[fits]
        self.started_s[place] = self.now_s[fits]
        self.runtime_s[place] = runtime_s(self.steps[fits])

    def _begin(self, which: np.ndarray) -> None:
        """New episodes: the first request comes at once, a Poisson number of others at any time."""
        for copy in np.flatnonzero(which):
            n = self.generator.poisson(REQUESTS_PER_S * EPISODE_S)
            times = np.sort(self.generator.random(n) * EPISODE_S)
            self.arrivals_s[copy] = np.concatenate([[0], times]).astype(np.int64)
        self.served[which] = 0
        self.running[which] = 0

    def _next(self) -> None:
        """The next request of every copy, and what is done by then."""
        self.now_s = np.array([arrivals[k] for arrivals, k in zip(self.arrivals_s, self.served, strict=True)])
        self.steps = self.generator.choice(WANTED, self.copies).astype(float)
        self.running[self.started_s + self.runtime_s <= self.now_s[:, None, None]] = 0

    def _observed(self) -> np.ndarray:
        observed = np.empty((self.copies, self.observation_size), np.float32)
        observed[:, 0:-2:2] = self.capacity / CAPACITIES[-1]
        observed[:, 1:-2:2] = self.free() / self.capacity
        observed[:, -2] = self.steps / WANTED[-1]
        observed[:, -1] = runtime_s(self.steps) / runtime_s(WANTED[-1])
        return observed
