"""service: requests that clients' environments make, without data of their own."""

import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from fedray.data.samples import DatasetInfo, Samples, Split
from fedray.data.source import Source
from fedray.scenario.kinds import implementation
from fedray.scenario.service import Service
from fedray.serving.environment import Environment, Place

NAMES = ("request",)


class Requests(Samples):
    """So many requests, each of which is made where it is played.

    Args:
        section: the scenario's `data`.
        seed: the scenario's.
        count: how many requests.
    """

    has_images: ClassVar[bool] = False
    captions_follow: ClassVar[bool] = True

    def __init__(self, section: Service, seed: int, count: int) -> None:
        self.section = section
        self.seed = seed
        self.labels = np.zeros(count, np.int64)
        self.label_names = NAMES

    def environment(self, client: int, generator: np.random.Generator, copies: int) -> Environment:
        """The environment of a client, in so many copies; already reset.

        Args:
            client: by number.
            generator: of its first reset.
            copies: side by side.
        """
        made = self._made(client, copies)
        made.reset(generator)
        return made

    def playing_s(self, client: int, requests: int) -> float:
        """Seconds of simulated time in which a client gets so many requests."""
        rate = self._made(client, 1).rate_per_s
        return 0.0 if math.isinf(rate) else requests / rate

    def _made(self, client: int, copies: int) -> Environment:
        section = self.section.environment
        made: Environment = implementation(section)(section, Place(self.seed, client), copies)
        return made

    def contents(self) -> Iterator[bytes]:
        yield self.section.environment.model_dump_json().encode()


class ServiceSource(Source):
    section: Service

    def open(self, split: Split) -> Requests:
        count = self.section.held_out if split == "test" else self.section.requests
        return Requests(self.section, self.seed, count)

    @property
    def info(self) -> DatasetInfo:
        environment = Requests(self.section, self.seed, 1)._made(0, 1)
        extra = {"observation_size": environment.observation_size, "actions": environment.actions}
        return DatasetInfo(0, None, NAMES, extra=extra)
