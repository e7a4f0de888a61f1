"""IFCA (Ghosh et al. 2020, Algorithm 1, model averaging).

theta_j += sum_{i in S_j} n_i u_i / sum_{i in S_j} n_i, where S_j are the round's clients on whose
samples model j has the least loss.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fedray.aggregation.rule import Rule, State
from fedray.transport.buffer import Layout


class Ifca(Rule):
    """Received: the k models, one after another. Sent: the update of one. Summed: k updates of which all but
    one are zero, and a one in the place of that cluster, so that the mean divides by its weight alone."""

    element_wise = False

    def __init__(self, section: Any, layout: Layout) -> None:
        super().__init__(section, layout)
        self.models = section.clusters
        self.received = self.models * layout.numel
        self.summed = self.received + self.models
        self.cluster = 0  # of the client that this copy of the rule is for

    def choose(self, losses: Sequence[float], rng: np.random.Generator) -> int:
        least = np.flatnonzero(np.asarray(losses) == np.min(losses))
        self.cluster = int(rng.choice(least)) if len(least) else 0  # none where all are NaN
        return self.cluster

    def contribution(self, received: Tensor, sent: Tensor) -> Tensor:
        n = self.layout.numel
        before = self.cluster * n
        update = F.pad(sent, (before, self.received - before - n))
        return torch.cat([update, F.one_hot(torch.tensor(self.cluster), self.models).to(sent)])

    def step(
        self, old: Tensor, combined: Tensor, state: State, participation: float, seed: int
    ) -> tuple[Tensor, State]:
        """The mean of each cluster that somebody chose.

        Args:
            old: the server's numbers [received].
            combined: the mean contribution [summed].
            state: none.
            participation: not read.
            seed: not read: nothing is drawn.
        """
        shares = combined[self.received :, None]
        updates = combined[: self.received].view(self.models, -1)
        means = torch.where(shares > 0, updates / shares.clamp(min=torch.finfo(shares.dtype).tiny), 0.0)
        return old + means.flatten(), {}
