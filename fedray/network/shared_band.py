"""A band that all transfers under way share equally, whenever they begin: rates change whenever one begins or
ends (processor sharing)."""

import math
from dataclasses import dataclass

import numpy as np

from fedray.network.links import Link, RoundStart, TransferRequests


@dataclass
class SharedTransfer:
    """One transfer under way.

    Attributes:
        time_s: seconds that it would take with one of n equal shares of the band, by n - 1 [most].
        energy_j: joules that it would take so [most].
        lost: whether it never arrives.
        left: what is left of it, as a part of it.
        joules: spent so far.
    """

    time_s: list[float]
    energy_j: list[float]
    lost: bool
    left: float = 1.0
    joules: float = 0.0


class SharedBand:
    """One direction's band.

    Args:
        link: of the direction.
        most: transfers that may be under way at once.
    """

    def __init__(self, link: Link, most: int) -> None:
        self.link = link
        self.most = most
        self.now_s = 0.0
        self.active: dict[int, SharedTransfer] = {}  # by client

    def begin(self, now_s: float, round_number: int, ends: tuple[int, int], nbytes: float) -> None:
        """Begins a client's transfer.

        Args:
            now_s: when.
            round_number: whose draws its fades are.
            ends: sender and receiver.
            nbytes: what it carries.
        """
        self._advance(now_s)
        ones = np.ones(self.most, np.int64)
        requests = TransferRequests(
            ends[0] * ones,
            ends[1] * ones,
            np.full(self.most, nbytes),
            ones,
            1 / np.arange(1, self.most + 1),
            0 * ones,  # one transfer, however wide: the same fades
        )
        costs = self.link.transfers(RoundStart(round_number, now_s), requests)
        place = len(self.active)
        energy_j = np.where(np.isfinite(costs.energy_j), costs.energy_j, 0.0)
        transfer = SharedTransfer(costs.time_s.tolist(), energy_j.tolist(), bool(costs.lost[place]))
        if math.isinf(transfer.time_s[place]):  # nothing is sent to a receiver out of reach
            transfer.lost = True
            transfer.left = 0.0
        self.active[max(ends)] = transfer

    def next_end(self) -> tuple[float, int] | None:
        """When the next transfer ends, and whose it is, of equals the first client's; None: none is under
        way."""
        if not self.active:
            return None
        place = len(self.active) - 1
        return min(
            (self.now_s + (transfer.left * transfer.time_s[place] if transfer.left else 0.0), client)
            for client, transfer in self.active.items()
        )

    def end(self, now_s: float, client: int) -> SharedTransfer:
        """Takes away the transfer that ends now."""
        place = len(self.active) - 1
        self._advance(now_s)
        transfer = self.active.pop(client)
        transfer.joules += transfer.left * transfer.energy_j[place]  # what rounding left of it
        return transfer

    def _advance(self, now_s: float) -> None:
        """Lets time go on to this second, before which none ends."""
        elapsed_s = now_s - self.now_s
        self.now_s = now_s
        if elapsed_s <= 0:
            return
        place = len(self.active) - 1
        for transfer in self.active.values():
            if transfer.left:
                part = min(transfer.left, elapsed_s / transfer.time_s[place])
                transfer.left -= part
                transfer.joules += part * transfer.energy_j[place]
