"""Accumulators: what updates become where they arrive, and what a rule is given of them at the round's end.

`ExactSum` adds them up, and comes out the same in any order and any grouping. `Gathered` keeps each of them,
for rules that need order statistics. Workers, the split server and the all-reduce know only the face that
both
have: a rule says which one it wants.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

BOUND = 2.0**10  # no weight moves further in a round
CHUNK = 1 << 18  # numbers at a time: float64 temporaries stay small beside a large model
REUSED = (
    1 << 22
)  # numbers, up to which a sum has the memory of the one before: fresh pages cost more than sums


class Accumulator(ABC):
    """Takes the updates of a round, wherever they arrive, and gives a rule what it asks for.

    Args:
        numel: numbers of an update.
        round_weight: the weight of all updates that might be added in this round, on whatever host.
    """

    adds_up: ClassVar[bool] = False  # whether it is one vector of numbers, which a ring can all-reduce

    def __init__(self, numel: int, round_weight: int) -> None:
        self.numel = numel
        self.round_weight = round_weight
        self.weight = 0  # of the updates that were added
        self.added = 0  # updates
        self.counts: Counter[str] = Counter()  # what hooks count of them, by name
        self.directions: ExactSum | None = None  # of the updates, where these are compared (directions.py)

    def add(self, update: Tensor, weight: int, client: int, base: Tensor | None = None) -> None:
        """Adds one client's update.

        Args:
            update: numbers [numel] of any floating dtype.
            weight: what it weighs, at least 0.
            client: whose it is.
            base: numbers [numel] to be taken away from `update` first.

        Raises:
            ValueError: for an update that cannot be added (see `refuse`); nothing is added then.
        """
        self.refuse(update, base)
        self._add(update, weight, client, base)
        self.weight += weight
        self.added += 1

    @abstractmethod
    def _add(self, update: Tensor, weight: int, client: int, base: Tensor | None) -> None: ...

    def merge(self, other: Self) -> None:
        """Adds what another accumulator of the same round has, which may be memory that can only be read."""
        assert self.round_weight == other.round_weight
        self._merge(other)
        self.weight += other.weight
        self.added += other.added
        self.counts.update(other.counts)

    @abstractmethod
    def _merge(self, other: Self) -> None: ...

    @abstractmethod
    def result(self, rows: int, part: slice) -> Any:
        """What a rule combines, of a part of the numbers.

        Args:
            rows: how many vectors an update is made of, one after another.
            part: which numbers of each of them.
        """

    @staticmethod
    @abstractmethod
    def refuse(update: Tensor, base: Tensor | None = None) -> None:
        """Raises ValueError for an update [numel] that cannot be added."""

    @staticmethod
    def kept_bytes(numel: int, clients: int) -> int:
        """Bytes that it keeps of so many clients' updates beside one sum."""
        return 0

    def emptied(self, round_weight: int) -> Self:
        """One with nothing in it for the next round. This one, which has been passed on, is not used
        again."""
        return type(self)(self.numel, round_weight)

    def as_numbers(self) -> Tensor:
        """All of it as one float64 vector that adds up with another host's (where `adds_up`)."""
        raise NotImplementedError(f"{type(self).__name__} does not add up")

    def from_numbers(self, numbers: Tensor) -> Self:
        """What the sum of such vectors stands for."""
        raise NotImplementedError(f"{type(self).__name__} does not add up")


class ExactSum(Accumulator):
    """A sum of weighted updates that is exact.

    Updates are rounded to a power-of-two grid, so that every partial sum is an integer number of grid steps
    below 2^53 and float64 adds it exactly. The grid follows from the round's whole weight, known before it
    starts: for 20 samples it is 2^-37, and a relay's single update in fp16 passes unchanged.
    """

    adds_up = True

    def __init__(self, numel: int, round_weight: int, total: Tensor | None = None) -> None:
        super().__init__(numel, round_weight)
        self.total = torch.zeros(numel, dtype=torch.float64) if total is None else total  # sum of n_k u_k

    @property
    def grid(self) -> float:
        return 2.0 ** -(52 - math.ceil(math.log2(max(2, self.round_weight))) - int(math.log2(BOUND)))

    def _add(self, update: Tensor, weight: int, client: int, base: Tensor | None) -> None:
        # Adding and taking away a number whose last bit is the grid rounds to the grid, in float64's own
        # rounding.
        rounder = 1.5 * 2.0**52 * self.grid
        for c in chunks(self.numel):
            step = _scratch(c.stop - c.start, torch.float64).copy_(update[c])
            if base is not None:
                step -= base[c]
            self.total[c].add_(step.add_(rounder).sub_(rounder), alpha=weight)

    def _merge(self, other: Self) -> None:
        self.total = self.total + other.total

    def result(self, rows: int, part: slice) -> Tensor:
        """The weighted mean, [rows, part] float64; zeros where nothing was added."""
        return self.total.view(rows, -1)[:, part] / max(1, self.weight)

    @staticmethod
    def refuse(update: Tensor, base: Tensor | None = None) -> None:
        """Raises ValueError for an update that is not finite, or too large to be summed exactly."""
        for c in chunks(len(update)):
            change = update[c]
            if base is None and change.dtype == torch.float32 and torch.dot(change, change).item() < BOUND**2:
                continue  # no number is larger than all together, and this is twice as fast
            if base is not None:
                change = _scratch(c.stop - c.start, torch.float32).copy_(change)
                change -= base[c]
            low, high = torch.aminmax(change)
            largest = max(-low.item(), high.item())
            if not largest < BOUND:  # NaN is not below it either
                raise ValueError(f"an update changes a weight by {largest:g}, expected less than {BOUND:g}")

    def emptied(self, round_weight: int) -> Self:
        reused = self.total.zero_() if self.numel <= REUSED else None
        return type(self)(self.numel, round_weight, reused)

    def as_numbers(self) -> Tensor:
        """The sum and its two counts: integers below 2^53, and sums that add up exactly in any order."""
        return torch.cat([self.total, torch.tensor([self.weight, self.added], dtype=torch.float64)])

    def from_numbers(self, numbers: Tensor) -> Self:
        return self._with(numbers[:-2], int(numbers[-2]), int(numbers[-1]))

    def _with(self, total: Tensor, weight: int, added: int) -> Self:
        new = type(self)(self.numel, self.round_weight, total)
        new.weight = weight
        new.added = added
        return new

    def __reduce__(self) -> tuple[Any, ...]:
        """As numpy, which Ray's object store passes on without a copy."""
        facts = (self.weight, self.round_weight, self.added, self.counts, self.directions)
        return _rebuilt_sum, (self.total.numpy(), *facts)


def _rebuilt_sum(
    total: np.ndarray,
    weight: int,
    round_weight: int,
    added: int,
    counts: Counter[str],
    directions: ExactSum | None,
) -> ExactSum:
    rebuilt = ExactSum(len(total), round_weight)._with(torch.from_numpy(total), weight, added)
    rebuilt.counts = counts
    rebuilt.directions = directions
    return rebuilt


class Updates(NamedTuple):
    """The updates of a round, sorted by client: the same on one host or many."""

    values: Tensor  # [n, rows, numbers] fp32
    weights: Tensor  # [n] int64
    clients: tuple[int, ...]


class Gathered(Accumulator):
    """Every update of a round by itself, for rules that compare them. It takes 4 bytes a number and
    client."""

    def __init__(self, numel: int, round_weight: int) -> None:
        super().__init__(numel, round_weight)
        self.updates: list[tuple[int, int, np.ndarray]] = []  # client, weight, numbers [numel] fp32

    def _add(self, update: Tensor, weight: int, client: int, base: Tensor | None) -> None:
        change = update.to(torch.float32, copy=True)
        if base is not None:
            change -= base
        self.updates.append((client, weight, change.numpy()))

    def _merge(self, other: Self) -> None:
        self.updates = [*self.updates, *other.updates]

    def by_client(self) -> Iterator[tuple[int, tuple[int, np.ndarray]]]:
        """Each client with its weight and its update [numel] fp32."""
        return ((client, (weight, numbers)) for client, weight, numbers in self.updates)

    def result(self, rows: int, part: slice) -> Updates:
        ordered = sorted(self.updates, key=lambda entry: entry[0])
        values = np.stack([numbers.reshape(rows, -1)[:, part] for _, _, numbers in ordered])
        weights = torch.tensor([weight for _, weight, _ in ordered])
        return Updates(torch.from_numpy(values), weights, tuple(client for client, _, _ in ordered))

    @staticmethod
    def refuse(update: Tensor, base: Tensor | None = None) -> None:
        """As an exact sum: one bound for what a client may send, whatever becomes of it."""
        ExactSum.refuse(update, base)

    @staticmethod
    def kept_bytes(numel: int, clients: int) -> int:
        return 4 * numel * clients


_memory: dict[torch.dtype, Tensor] = {}


def _scratch(n: int, dtype: torch.dtype) -> Tensor:
    """Memory for n numbers, the same each time: fresh pages cost more than the sums."""
    if dtype not in _memory:
        _memory[dtype] = torch.empty(CHUNK, dtype=dtype)
    return _memory[dtype][:n]


def chunks(numel: int) -> Iterator[slice]:
    """The numbers of a vector in parts that fit a processor's cache."""
    return (slice(i, min(i + CHUNK, numel)) for i in range(0, numel, CHUNK))
