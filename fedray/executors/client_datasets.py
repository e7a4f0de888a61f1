"""Clients' samples, and what a learner makes of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedray.data import Samples
from fedray.executors import DataFailure
from fedray.learners.learner import Learner


class ClientDatasets:
    """A worker's share of the data. Samples are encoded when they are needed, and kept where that is dear.

    Args:
        learner: encodes the samples.
        samples: of all clients that the worker may train.
        client_indices: which of them each client has.
    """

    def __init__(self, learner: Learner, samples: Samples, client_indices: Mapping[int, np.ndarray]) -> None:
        self.learner = learner
        self.samples = samples
        self.client_indices = client_indices
        self._shards: dict[int, Any] = {}

    def shard(self, client: int) -> Any:
        """A client's samples as the learner encodes them.

        Raises:
            DataFailure: for a sample that cannot be read.
        """
        if client in self._shards:
            return self._shards[client]
        try:
            shard = self.learner.encode_client(client, self.samples, self.client_indices[client])
        except ValueError as e:
            raise DataFailure("preparing its data", str(e), client) from None
        if self.learner.caches_samples:
            self._shards[client] = shard
        return shard
