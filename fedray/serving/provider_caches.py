"""The caches of an edge's providers, in several copies of an environment side by side."""

from functools import cached_property

import numpy as np

from fedray.scenario.cache import Cache as Section
from fedray.scenario.kinds import implementation
from fedray.serving.cache import Cache, CachePolicy
from fedray.serving.catalogue import Catalogue
from fedray.serving.environment import Place

WARM_UP = 200  # requests that each provider has served before a client's first


class ProviderCaches:
    """Each of P providers has a cache, in each of E copies. Where the policy keeps what was missed, requests
    of all users change it: those of the client, and between two of these those of others.

    Args:
        section: the environment's `cache`.
        popularity: how often all users together ask for each model [models], as shares of 1.
        place: the client's, whose providers' caches begin alike for all clients.
        providers: P.
        copies: E.
    """

    def __init__(
        self, section: Section, popularity: np.ndarray, place: Place, providers: int, copies: int
    ) -> None:
        self.section = section
        self.place = place
        self.providers = providers
        self.rows = np.arange(copies)
        self.catalogue = catalogue(section, popularity, place.common("catalogue"))
        self.policy: CachePolicy = implementation(section.policy)(section.policy)

    def reset(self, generator: np.random.Generator) -> None:
        """Every cache as it is before a client's first request. `generator`: of others' requests."""
        self.others = np.random.default_rng(generator.integers(2**63))
        items = len(self.catalogue.item_bytes)
        self.cached = np.empty((len(self.rows), self.providers, items), bool)
        self.caches = [
            [first.copied(self.cached[copy, provider]) for provider, first in enumerate(self._first)]
            for copy in self.rows
        ]

    def fetch_s(self, models: np.ndarray) -> np.ndarray:
        """Seconds in which each provider fetches what it lacks of a model [E, P]; 0: it has all of it.
        `models`: that are asked for [E]."""
        base = self.catalogue.base_of[models]
        own = self.catalogue.bases + models
        missing_bytes = np.zeros((len(self.rows), self.providers))
        for item in (base, own):
            lacks = ~self.cached[self.rows, :, item]
            missing_bytes += lacks * self.catalogue.item_bytes[item][:, None]
        return missing_bytes * 8 / self.section.fetch_bps

    def serve(self, models: np.ndarray, providers: np.ndarray) -> None:
        """What a request and those of others, until the next one, change.

        Args:
            models: that are asked for [E].
            providers: that serve [E].
        """
        if not self._keeps:
            return
        for copy in self.rows:
            self.caches[copy][providers[copy]].request(int(models[copy]))
        shape = (len(self.rows), self.section.other_requests)
        others = self.others.integers(self.providers, size=shape)
        asked = self._drawn(self.others, len(self.rows) * self.section.other_requests).reshape(shape)
        for copy in self.rows:
            for provider, model in zip(others[copy], asked[copy], strict=True):
                self.caches[copy][provider].request(int(model))

    @property
    def _keeps(self) -> bool:
        """Whether requests change what is cached."""
        return self.policy.worth(self._first[0]) is not None

    @cached_property
    def _first(self) -> list[Cache]:
        """Each provider's cache before a client's first request."""
        first = Cache(self.catalogue, self.section.capacity_bytes, self.policy)
        caches = [first.copied(first.cached.copy()) for _ in range(self.providers)]
        if self.policy.worth(first) is not None:
            rng = self.place.common("requests before")
            for cache in caches:
                for model in self._drawn(rng, WARM_UP):
                    cache.request(int(model))
        return caches

    def _drawn(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Models that users ask for [count].

        Args:
            rng: of the draw.
            count: how many.
        """
        models: np.ndarray = rng.choice(len(self.catalogue.popularity), count, p=self.catalogue.popularity)
        return models


def catalogue(section: Section, popularity: np.ndarray, rng: np.random.Generator) -> Catalogue:
    """Models as adapters over the section's bases; which base and how many bytes each has is drawn.

    Args:
        section: the environment's `cache`.
        popularity: of each model [models].
        rng: of the draws.
    """
    models = len(popularity)
    base_of = rng.integers(len(section.base_bytes), size=models)
    adapter_bytes = rng.choice(section.adapter_bytes, models)
    made = Catalogue(np.array(section.base_bytes), adapter_bytes, base_of, popularity)
    return made.merged() if section.merged else made
