"""A band whose resource blocks are assigned among all transfers under way, whenever they begin: they are
assigned anew whenever one begins or ends, each to a client whom it serves well."""

import math
from dataclasses import dataclass

import numpy as np

from fedray.network.links import Link, RoundStart, TransferRequests


@dataclass
class BlockTransfer:
    """One transfer under way.

    Attributes:
        ends: sender and receiver.
        nbytes: what it carries.
        round_number: whose draws its fades are.
        time_s: seconds that the whole of it would take with the blocks that it has now.
        energy_j: joules that it would take so.
        lost: whether it never arrives.
        left: what is left of it, as a part of it.
        joules: spent so far.
    """

    ends: tuple[int, int]
    nbytes: float
    round_number: int
    time_s: float = 0.0
    energy_j: float = 0.0
    lost: bool = False
    left: float = 1.0
    joules: float = 0.0

    def rest_s(self) -> float:
        """Seconds until it is through; none for one that its blocks do not reach."""
        return 0.0 if self.lost and math.isinf(self.time_s) else self.left * self.time_s


class BlockBand:
    """One direction's band. Blocks fade as they do in the round of the newest of the transfers under way.

    Args:
        link: of the direction, whose allocation is by blocks.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.now_s = 0.0
        self.active: dict[int, BlockTransfer] = {}  # by client

    def begin(self, now_s: float, round_number: int, ends: tuple[int, int], nbytes: float) -> None:
        """Begins a client's transfer. Whether it is lost is decided by the blocks that it begins with.

        Args:
            now_s: when.
            round_number: whose draws its fades are.
            ends: sender and receiver.
            nbytes: what it carries.
        """
        self._advance(now_s)
        client = max(ends)
        self.active[client] = BlockTransfer(ends, nbytes, round_number)
        lost = self._assign()
        self.active[client].lost = client in lost

    def next_end(self) -> tuple[float, int] | None:
        """When the next transfer ends, and whose it is, of equals the first client's; None: none is under
        way."""
        ends = ((self.now_s + transfer.rest_s(), client) for client, transfer in self.active.items())
        return min(ends, default=None)

    def end(self, now_s: float, client: int) -> BlockTransfer:
        """Takes away the transfer that ends now."""
        self._advance(now_s)
        transfer = self.active.pop(client)
        if math.isfinite(transfer.time_s):
            transfer.joules += transfer.left * transfer.energy_j  # what rounding left of it
        self._assign()
        return transfer

    def leave(self, now_s: float, client: int) -> BlockTransfer:
        """Takes away a transfer that is not through."""
        self._advance(now_s)
        transfer = self.active.pop(client)
        self._assign()
        return transfer

    def _advance(self, now_s: float) -> None:
        """Lets time go on to this second, before which none ends."""
        elapsed_s = now_s - self.now_s
        self.now_s = now_s
        for transfer in self.active.values() if elapsed_s > 0 else ():
            if transfer.time_s > 0 and math.isfinite(transfer.time_s):
                part = min(transfer.left, elapsed_s / transfer.time_s)
                transfer.left -= part
                transfer.joules += part * transfer.energy_j

    def _assign(self) -> set[int]:
        """Gives every block to one of those under way. The clients of transfers that do not arrive over such
        blocks; whom none reaches any more is lost."""
        transfers = [self.active[client] for client in sorted(self.active)]
        if not transfers:
            return set()
        n = len(transfers)
        start = RoundStart(max(transfer.round_number for transfer in transfers), self.now_s)
        ones = np.ones(n, np.int64)
        requests = TransferRequests(
            np.array([transfer.ends[0] for transfer in transfers]),
            np.array([transfer.ends[1] for transfer in transfers]),
            np.array([transfer.nbytes for transfer in transfers]),
            ones,
            ones / n,
            0 * ones,
        )
        costs = self.link.transfers(start, requests)
        for i, transfer in enumerate(transfers):
            transfer.time_s = float(costs.time_s[i])
            transfer.energy_j = float(costs.energy_j[i])
            transfer.lost |= math.isinf(transfer.time_s)
        return {client for client, lost in zip(sorted(self.active), costs.lost, strict=True) if lost}
