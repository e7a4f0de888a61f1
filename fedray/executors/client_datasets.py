"""Clients' samples, and what a learner makes of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedray.adversary.attackers import Attackers
from fedray.data import Samples
from fedray.executors import DataFailure
from fedray.learners.learner import Learner


class ClientDatasets:
    """A worker's share of the data. Samples are encoded when they are needed, and kept where that is dear.

    Args:
        learner: encodes the samples.
        samples: of all clients that the worker may train.
        client_indices: which of them each client has.
        attackers: of the scenario, some of which train on other samples.
    """

    def __init__(
        self,
        learner: Learner,
        samples: Samples,
        client_indices: Mapping[int, np.ndarray],
        attackers: Attackers,
    ) -> None:
        self.learner = learner
        self.samples = samples
        self.client_indices = client_indices
        self.attackers = attackers
        self._shards: dict[tuple[int, bool], Any] = {}  # by client, and whether they are an attacker's

    def shard(self, client: int, round_number: int = 0) -> Any:
        """What a client trains on in a round, as the learner encodes it; in round 0 what it really has.

        Raises:
            DataFailure: for a sample that cannot be read.
        """
        poisoned = self.attackers.changes_samples(round_number, client)
        if (client, poisoned) in self._shards:
            return self._shards[client, poisoned]
        indices = self.client_indices[client]
        try:
            samples = self.attackers.samples(client, self.samples, indices) if poisoned else self.samples
            shard = self.learner.encode_client(client, samples, indices)
        except ValueError as e:
            raise DataFailure("preparing its data", str(e), client) from None
        if self.learner.caches_samples:
            self._shards[client, poisoned] = shard
        return shard
