"""What it takes to send a buffer. A channel model becomes a `Link`: a rate between two nodes, and radio power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fedray.scenario.network import FixedLink


@dataclass(frozen=True)
class Transfer:
    """Time from the first bit sent to the last received, and the energy of both radios."""

    time_s: float
    energy_j: float


class Link(Protocol):
    """One direction of a network. Clients by number; the server is the other end of uplink and downlink."""

    def rate_bps(self, sender: int, receiver: int) -> float: ...

    def transfer(self, sender: int, receiver: int, nbytes: int, messages: int = 1) -> Transfer:
        """Of so many bytes in all, in messages that each wait for the one before."""
        ...


@dataclass(frozen=True)
class Fixed:
    """A constant rate (see scenario.network.FixedLink)."""

    section: FixedLink

    def rate_bps(self, sender: int, receiver: int) -> float:
        rate = self.section.rate_bps
        if not isinstance(rate, list):
            return rate
        client = sender if sender >= 0 else receiver
        row = rate[client]
        return row[receiver] if isinstance(row, list) else row

    def transfer(self, sender: int, receiver: int, nbytes: int, messages: int = 1) -> Transfer:
        on_air_s = 8 * nbytes / self.rate_bps(sender, receiver)
        return Transfer(self.section.latency_s * messages + on_air_s, (self.section.transmit_w + self.section.receive_w) * on_air_s)
