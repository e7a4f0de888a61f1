"""Clients' samples, and what a learner makes of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedray.data import Samples
from fedray.executors import DataFailure
from fedray.learners.learner import Learner


class Holder:
    """A worker's share of the data. Samples are encoded when they are asked for, and kept so where that is
    dear."""

    def __init__(self, learner: Learner, samples: Samples, held: Mapping[int, np.ndarray]) -> None:
        self.learner, self.samples, self.held = learner, samples, held
        self._shards: dict[int, Any] = {}

    def shard(self, client: int) -> Any:
        if client in self._shards:
            return self._shards[client]
        try:
            shard = self.learner.encode(self.samples, self.held[client])
        except ValueError as e:
            raise DataFailure("preparing its data", str(e), client) from None
        if self.learner.caches_samples:
            self._shards[client] = shard
        return shard
