"""A sum of masked updates: integers modulo 2^64 or 2^32, which tell nothing until the masks are off."""

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from fedray.aggregation.accumulators import Accumulator, ExactSum, chunks
from fedray.secure.masks import WORDS, as_integers, as_numbers
from fedray.secure.protocol import TooFewShares
from fedray.secure.round import SecureRound


class MaskedSum(Accumulator):
    """Takes each client's update, masks it as that client would, and adds it: the same in any order and
    grouping, since integers are added modulo 2^64 or 2^32.

    Args:
        numel: numbers of an update.
        round_weight: the weight of all updates that might be added in this round.
        secure: the round's keys and neighbours; a sum that only arrived knows none.
    """

    def __init__(self, numel: int, round_weight: int, secure: SecureRound | None = None) -> None:
        super().__init__(numel, round_weight)
        self.secure = secure
        self.total = np.zeros(numel, WORDS[64 if secure is None else secure.bits])
        self.clients: tuple[int, ...] = ()

    def _add(self, update: Tensor, weight: int, client: int, base: Tensor | None) -> None:
        assert self.secure is not None
        bits = self.secure.bits
        grid = self.secure.grid or ExactSum(0, self.round_weight).grid
        rounder = 1.5 * 2.0**52 * grid
        own = np.empty_like(self.total)
        for c in chunks(self.numel):
            step = update[c].double()
            if base is not None:
                step -= base[c]
            step.add_(rounder).sub_(rounder)
            if self.secure.grid is not None:
                largest = (2 ** (self.secure.value_bits - 1) - 1) * grid
                step.clamp_(-largest, largest)
            own[c] = as_integers(step.numpy(), weight, grid, bits)
        self.secure.mask(own, client)
        self.total += own
        self.clients = (*self.clients, client)

    def _merge(self, other: Self) -> None:
        self.total = self.total + other.total
        self.clients = (*self.clients, *other.clients)

    def result(self, rows: int, part: slice) -> Any:
        raise ValueError("got a masked sum, expected one whose masks are off")

    @staticmethod
    def refuse(update: Tensor, base: Tensor | None = None) -> None:
        ExactSum.refuse(update, base)

    def unmasked(self, secure: SecureRound) -> ExactSum | None:
        """The exact sum of the updates; None where fewer than the threshold answer, and nothing is learnt."""
        total = self.total.copy()
        try:
            secure.unmask(total, self.clients)
        except TooFewShares:
            return None
        grid = secure.grid or ExactSum(0, self.round_weight).grid
        numbers = torch.from_numpy(as_numbers(total, grid))
        return ExactSum(self.numel, self.round_weight)._with(numbers, self.weight, self.added)

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the round's keys: what goes to the server are numbers and whose they are."""
        return _arrived, (self.total, self.weight, self.round_weight, self.added, self.clients)


def _arrived(
    total: np.ndarray, weight: int, round_weight: int, added: int, clients: tuple[int, ...]
) -> MaskedSum:
    new = MaskedSum(len(total), round_weight)
    new.total = total
    new.weight = weight
    new.added = added
    new.clients = clients
    return new
