"""What clients train on in a round beside, or instead of, all of their own samples. No torch here: the driver
makes it."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from fedray.data import Samples
from fedray.randomness import generator


class ExtraSamples(Protocol):
    """Samples that join each client's own in a round, or that it scores once it has trained."""

    def samples(self, client: int, training: Any) -> Samples | None:
        """Those of a client, whose worker this is (a local_training.LocalTraining)."""

    def scores(self, client: int, training: Any) -> tuple[float, ...]:
        """What a client's model says of them, once it has trained."""


class UsedSamples(NamedTuple):
    """How many of its samples each client of a round trains on."""

    used: Mapping[int, int]

    def samples(self, client: int, training: Any) -> None:
        return None

    def scores(self, client: int, training: Any) -> tuple[float, ...]:
        return ()

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


RoundSamples = ExtraSamples | UsedSamples
