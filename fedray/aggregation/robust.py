"""What the rules that hold against attackers have in common: the server optimizer that follows them, and
sums over whole updates.

Distances are taken in float64, of differences: |x|^2 + |y|^2 - 2 x y would lose what two updates far from
zero differ by. A part of the numbers at a time, so that no second copy of the updates is made in float64.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fedray.aggregation.accumulators import CHUNK, Gathered
from fedray.aggregation.rule import Rule, State
from fedray.aggregation.rules import rule
from fedray.transport.buffer import Layout

OPTIMIZER = "server_optimizer."  # what begins the names of its state


class RobustRule(Rule):
    """A rule over all updates of a round, whose result a server optimizer may take for its gradient."""

    accumulator = Gathered

    def __init__(self, section: Any, layout: Layout) -> None:
        super().__init__(section, layout)
        chosen = section.server_optimizer
        self.optimizer: Rule | None = None if chosen is None else rule(chosen, layout)

    def step(
        self, old: Tensor, combined: Tensor, state: State, participation: float, seed: int
    ) -> tuple[Tensor, State]:
        if self.optimizer is None:
            return super().step(old, combined, state, participation, seed)
        own = {k.removeprefix(OPTIMIZER): v for k, v in state.items() if k.startswith(OPTIMIZER)}
        trained = slice(0, None if self.element_wise else self.layout.trained)
        new = old + combined  # of what only travels
        new[..., trained], kept = self.optimizer.step(
            old[..., trained], combined[..., trained], own, participation, seed
        )
        return new, {f"{OPTIMIZER}{name}": value for name, value in kept.items()}


class WholeUpdateRule(RobustRule):
    """A robust rule that measures lengths or distances of whole updates."""

    element_wise = False

    def server_bytes(self, updates: int, clients: int) -> int:
        """The updates lie side by side once more, in one array."""
        return 2 * super().server_bytes(updates, clients)


def parts(values: Tensor) -> Iterator[slice]:
    """The numbers of updates [n, numbers] in parts, of which all updates' fit a processor's cache."""
    size = max(1, CHUNK // len(values))
    numbers = values.shape[1]
    return (slice(i, min(i + size, numbers)) for i in range(0, numbers, size))


def squared_distances(values: Tensor) -> Tensor:
    """Of each two updates [n, numbers]: [n, n] float64."""
    total = torch.zeros(len(values), len(values), dtype=torch.float64)
    for part in parts(values):
        some = values[:, part].double()
        total += torch.cdist(some, some, compute_mode="donot_use_mm_for_euclid_dist").square()
    return total


def distances(values: Tensor, centre: Tensor) -> Tensor:
    """Of each update [n, numbers] from a centre [numbers]: [n] float64."""
    total = torch.zeros(len(values), dtype=torch.float64)
    for part in parts(values):
        total += (values[:, part].double() - centre[part]).square().sum(1)
    return total.sqrt()


def lengths(values: Tensor) -> Tensor:
    """L2, of each update [n, numbers]: [n] float64."""
    return distances(values, torch.zeros(values.shape[1]))


def products(values: Tensor, others: Tensor) -> Tensor:
    """The scalar product of each of some vectors [n, numbers] with each of others [m, numbers]: [n, m]
    float64."""
    total = torch.zeros(len(values), len(others), dtype=torch.float64)
    for part in parts(values):
        total += values[:, part].double() @ others[:, part].double().T
    return total


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Of updates [n, numbers] with weights [n] float64: [numbers] float64."""
    return torch.cat([weights @ values[:, part].double() for part in parts(values)])


def mean(values: Tensor) -> Tensor:
    """Of updates [n, numbers]: [numbers] float64."""
    return weighted_sum(values, torch.full((len(values),), 1 / len(values), dtype=torch.float64))


def clip_factors(sizes: Tensor, bound: float) -> Tensor:
    """What vectors of these lengths [n] are multiplied with, so that none is longer than the bound."""
    return torch.where(sizes > bound, bound / sizes, 1.0)
