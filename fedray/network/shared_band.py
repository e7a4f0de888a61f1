"""A band that all transfers under way share equally, whenever they begin: rates change whenever one begins or
ends (processor sharing). Each cell has a band for those that it served as they began."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedray.network.links import Link, Pace, RoundStart, TransferCosts, TransferRequests


@dataclass
class SharedTransfer:
    """One transfer under way.

    Attributes:
        time_s: seconds that it would take with one of n equal shares of the band, by n - 1 [most].
        energy_j: joules that it would take so [most].
        lost: whether it never arrives.
        cell: whose band it is on.
        paces: how it goes on with one of n shares where rates vary with time, by n - 1 [most].
        left: what is left of it, as a part of it.
        joules: spent so far.
    """

    time_s: list[float]
    energy_j: list[float]
    lost: bool
    cell: int
    paces: Sequence[Pace] | None = None
    left: float = 1.0
    joules: float = 0.0

    def rest(self, now_s: float, place: int) -> tuple[float, float]:
        """Seconds from `now_s`, and joules, until it is through, with place + 1 on the band."""
        if not self.left:
            return 0.0, 0.0
        if self.paces is not None:
            return self.paces[place].rest(now_s, self.left)
        return self.left * self.time_s[place], self.left * self.energy_j[place]

    def advance(self, now_s: float, elapsed_s: float, place: int) -> None:
        """It goes on for so many seconds from `now_s`, with place + 1 on the band."""
        if not self.left:
            return
        if self.paces is not None:
            part, joules = self.paces[place].part(now_s, elapsed_s)
            self.joules += joules
            self.left -= min(self.left, part)
            return
        part = min(self.left, elapsed_s / self.time_s[place])
        self.left -= part
        self.joules += part * self.energy_j[place]


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
        start = RoundStart(round_number, now_s)
        ones = np.ones(self.most, np.int64)
        requests = TransferRequests(
            ends[0] * ones,
            ends[1] * ones,
            np.full(self.most, nbytes),
            ones,
            1 / np.arange(1, self.most + 1),
            0 * ones,  # one transfer, however wide: the same fades
        )
        costs = self.link.transfers(start, requests)
        cell = int(self.link.cells(start, requests.client[:1])[0])
        place = self._on_band()[cell]
        time_s, energy_j = _beginning_now(costs, now_s)
        energy_j = np.where(np.isfinite(energy_j), energy_j, 0.0)
        lost = bool(costs.lost[place])
        transfer = SharedTransfer(time_s.tolist(), energy_j.tolist(), lost, cell, costs.paces)
        if math.isinf(transfer.time_s[place]):  # nothing is sent to a receiver out of reach
            transfer.lost = True
            transfer.left = 0.0
        self.active[max(ends)] = transfer

    def next_end(self) -> tuple[float, int] | None:
        """When the next transfer ends, and whose it is, of equals the first client's; None: none is under
        way."""
        if not self.active:
            return None
        on_band = self._on_band()
        return min(
            (self.now_s + transfer.rest(self.now_s, on_band[transfer.cell] - 1)[0], client)
            for client, transfer in self.active.items()
        )

    def end(self, now_s: float, client: int) -> SharedTransfer:
        """Takes away the transfer that ends now."""
        place = self._on_band()[self.active[client].cell] - 1
        self._advance(now_s)
        transfer = self.active.pop(client)
        transfer.joules += transfer.rest(now_s, place)[1]  # what rounding left of it
        return transfer

    def leave(self, now_s: float, client: int) -> SharedTransfer:
        """Takes away a transfer that is not through."""
        self._advance(now_s)
        return self.active.pop(client)

    def _on_band(self) -> Counter[int]:
        """How many are under way in each cell."""
        return Counter(transfer.cell for transfer in self.active.values())

    def _advance(self, now_s: float) -> None:
        """Lets time go on to this second, before which none ends."""
        before_s = self.now_s
        self.now_s = now_s
        if now_s <= before_s:
            return
        on_band = self._on_band()
        for transfer in self.active.values():
            transfer.advance(before_s, now_s - before_s, on_band[transfer.cell] - 1)


def _beginning_now(costs: TransferCosts, now_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and joules [n] of transfers that begin at this second."""
    if costs.at is None:
        return costs.time_s, costs.energy_j
    time_s, energy_j = zip(*(costs.at(i, now_s) for i in range(len(costs.time_s))), strict=True)
    return np.array(time_s), np.array(energy_j)
