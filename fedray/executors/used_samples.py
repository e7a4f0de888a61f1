"""Which of their samples clients train on, where they train on some of them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fedray.randomness import generator


class UsedSamples(NamedTuple):
    """How many of its samples each client of a round trains on. No torch here: the driver makes it."""

    used: Mapping[int, int]

    def places(self, seed: int, round_number: int, client: int, samples: int) -> np.ndarray:
        """The places of those that a client trains on, drawn anew in each round [n] int.

        Args:
            seed: the scenario's.
            round_number: from 1.
            client: by number.
            samples: that it has.
        """
        rng = generator(seed, round_number, client, "used samples")
        return rng.permutation(samples)[: self.used[client]]
