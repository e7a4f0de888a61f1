"""edge: providers with queues, caches and prices, of which a base station chooses one a request."""

from typing import NamedTuple

import numpy as np

from fedray.scenario.environment import Edge as Section
from fedray.serving import requests
from fedray.serving.draws import uniform
from fedray.serving.environment import Place, Step
from fedray.serving.fleet import fleet
from fedray.serving.provider_caches import ProviderCaches
from fedray.serving.providers import ProviderEnvironment


class Answers(NamedTuple):
    """What each action would come to now [E, providers, choices]."""

    latency_s: np.ndarray
    busy_s: np.ndarray  # that the provider is at work from now on
    quality: np.ndarray
    reward: np.ndarray


class Edge(ProviderEnvironment):
    def __init__(self, section: Section, place: Place, copies: int) -> None:
        super().__init__(section, place, copies)
        self.fleet = fleet(section, place.common("providers") if section.shared else place.own("providers"))
        self.providers = section.providers.count
        self.steps = np.array(section.steps)
        self.actions = self.providers * len(self.steps)
        self.observation_size = 3 * self.providers + section.models + 2
        own = place.own("place")
        common = requests.shares(section.popularity, section.models, own)
        self.popularity = requests.with_own(section.popularity, common, place.client)
        self.rate_per_s = float(uniform(own, section.rate_per_s, 1)[0])
        self.transfer_s = uniform(own, section.transfer_s, self.providers)
        self.rows = np.arange(copies)
        self.caches: ProviderCaches | None = None
        if section.cache is not None:
            everyone = requests.all_shares(section.popularity, section.models)
            self.caches = ProviderCaches(section.cache, everyone, place, self.providers, copies)

    def reset(self, generator: np.random.Generator) -> np.ndarray:
        self.generator = generator
        self.queue_s = np.zeros((self.copies, self.providers))  # until a provider is free
        if self.caches is not None:
            self.caches.reset(generator)
        self.request = requests.draw(self.section, self.popularity, self.copies, generator)
        return self._observed()

    def step(self, actions: np.ndarray) -> Step:
        providers, choices = np.divmod(actions, self.choices)
        chosen = (self.rows, providers, choices)
        answers = self._answers(self.fleet.steps_per_s, self.fleet.quality, self.fleet.price)
        rewards = answers.reward[chosen].astype(np.float32)
        latency_s = answers.latency_s[chosen]
        measures = {
            "quality": answers.quality[chosen],
            "latency_s": latency_s,
            "in_time": latency_s <= self.request.deadlines_s,
            "hit": self._has_model()[self.rows, providers],
            "energy_j": self.fleet.joules_per_step[providers] * self.steps[choices],
        }
        if self.caches is not None:
            measures["energy_j"] += self.caches.section.fetch_w * self._cold_s()[self.rows, providers]
            self.caches.serve(self.request.models, providers)
        self.queue_s[self.rows, providers] = answers.busy_s[chosen]
        gap_s = self.generator.exponential(1 / self.rate_per_s, self.copies)
        self.queue_s = np.maximum(self.queue_s - gap_s[:, None], 0)
        self.request = requests.draw(self.section, self.popularity, self.copies, self.generator)
        return Step(self._observed(), rewards, np.zeros(self.copies, bool), measures)

    def free(self) -> np.ndarray:
        return -self.queue_s

    def nearness(self) -> np.ndarray:
        return np.where(self._has_model(), -self.queue_s - self.transfer_s, -np.inf)

    def rewards(self) -> np.ndarray:
        return self._flat(self._answers(self.fleet.steps_per_s, self.fleet.quality, self.fleet.price))

    def expected_rewards(self) -> np.ndarray:
        average = np.full(self.providers, self.fleet.steps_per_s.mean())
        quality = np.tile(self.fleet.typical_quality, (self.providers, 1))
        return self._flat(self._answers(average, quality, np.full(self.providers, self.fleet.price.mean())))

    def _answers(self, steps_per_s: np.ndarray, quality: np.ndarray, price: np.ndarray) -> Answers:
        """What every action would come to, of providers with these figures.

        Args:
            steps_per_s: [P].
            quality: after each number of steps [P, C].
            price: of a step [P].
        """
        request = self.request
        busy_s = (self.queue_s + self._cold_s())[:, :, None] + self.steps / steps_per_s[:, None]
        latency_s = busy_s + self.transfer_s[:, None]
        late = latency_s > request.deadlines_s[:, None, None]
        poor = quality < request.wanted[:, None, None]
        earned = np.where(late | poor, -self.section.penalty, quality)
        reward = earned - price[:, None] * self.steps
        return Answers(latency_s, busy_s, np.broadcast_to(quality, latency_s.shape), reward)

    def _flat(self, answers: Answers) -> np.ndarray:
        return answers.reward.reshape(self.copies, self.actions)

    def _has_model(self) -> np.ndarray:
        """Whether each provider has the model that is asked for [E, P]."""
        if self.caches is not None:
            return self.caches.fetch_s(self.request.models) == 0
        return self.fleet.cached.T[self.request.models]

    def _cold_s(self) -> np.ndarray:
        """Seconds until each provider has the model that is asked for [E, P]."""
        if self.caches is not None:
            return self.caches.fetch_s(self.request.models)
        return np.where(self._has_model(), 0, self.fleet.cold_start_s)

    def _observed(self) -> np.ndarray:
        longest_s = self.section.deadline_s[1] or 1.0
        request = self.request
        parts = (
            self.queue_s / longest_s,
            np.broadcast_to(self.transfer_s / longest_s, self.queue_s.shape),
            self._has_model() if self.caches is None else np.clip(1 - self._cold_s() / longest_s, 0, 1),
            np.eye(self.section.models)[request.models],
            request.wanted[:, None],
            request.deadlines_s[:, None] / longest_s,
        )
        return np.concatenate(parts, axis=1, dtype=np.float32, casting="unsafe")
