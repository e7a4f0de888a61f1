"""What it takes to send a buffer over a link that is not a radio channel: a constant rate, a recorded one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from fedray.data.samples import located
from fedray.randomness import uniforms
from fedray.scenario.base import Refused
from fedray.scenario.links import BASE_W, DEVICE_W, FixedLink, TraceLink

PACKET_BYTES = 1500


class When(NamedTuple):
    """A round, and the simulated second at which it begins."""

    round: int
    time_s: float


def client_of(sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
    """Whose link it is: the client's, or the sender's of two."""
    return np.where(sender >= 0, sender, receiver)


class Sends(NamedTuple):
    """Transfers in one direction [n]. Clients by number, the server -1. `share` is each one's of the band,
    and of a base station's power. `number` counts the transfers of a sender to a receiver in the round from
    0, and tells apart their draws."""

    sender: np.ndarray
    receiver: np.ndarray
    nbytes: np.ndarray
    messages: np.ndarray  # that each wait for the one before
    share: np.ndarray
    number: np.ndarray

    @property
    def client(self) -> np.ndarray:
        return client_of(self.sender, self.receiver)


def numbered(sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
    """How many transfers from the same sender to the same receiver stand before each one [n]."""
    pair = (sender + 1) * (receiver.max(initial=0) + 2) + receiver + 1
    order = np.argsort(pair, kind="stable")
    begins = np.flatnonzero(np.diff(pair[order], prepend=-1))  # of each pair's transfers, in that order
    found = np.empty(len(pair), np.int64)
    found[order] = np.arange(len(pair)) - np.repeat(begins, np.diff(begins, append=len(pair)))
    return found


@dataclass(frozen=True)
class Transfers:
    """Seconds from the first bit sent to the last received (infinite where there is no reaching), joules of
    both radios, and which never arrive [n]; `at` gives seconds and joules of one that begins at a time
    instead."""

    time_s: np.ndarray
    energy_j: np.ndarray
    lost: np.ndarray
    at: Callable[[int, float], tuple[float, float]] | None = None


class Link(Protocol):
    """One direction of a network."""

    section: Any  # of the scenario

    def rates_bps(self, when: When, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
        """Mean rates over the whole band; 0 where there is no reaching."""

    def transfers(self, when: When, sends: Sends) -> Transfers: ...


def _power_w(section: FixedLink | TraceLink, direction: str, share: np.ndarray) -> np.ndarray:
    """Of both ends' radios together [n]. A base station shares its power out among those it sends to at
    once."""
    usual = BASE_W * share if direction == "downlink" else np.full(len(share), DEVICE_W)
    return (
        usual if section.transmit_w is None else np.full(len(share), section.transmit_w)
    ) + section.receive_w


class Fixed:
    """A constant rate (see scenario.links.FixedLink)."""

    def __init__(self, section: FixedLink, direction: str = "uplink") -> None:
        self.section, self.direction, self.rate = section, direction, np.asarray(section.rate_bps, float)

    def rates_bps(self, when: When, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
        client = client_of(sender, receiver)
        rates: np.ndarray = (
            self.rate[client, receiver]
            if self.rate.ndim == 2
            else self.rate[client]
            if self.rate.ndim
            else self.rate
        )
        return np.broadcast_to(rates, client.shape)

    def transfers(self, when: When, sends: Sends) -> Transfers:
        on_air_s = 8 * sends.nbytes / self.rates_bps(when, sends.sender, sends.receiver)
        energy = _power_w(self.section, self.direction, sends.share) * on_air_s
        return Transfers(
            self.section.latency_s * sends.messages + on_air_s, energy, np.zeros(len(on_air_s), bool)
        )


class Trace:
    """A recorded link (see scenario.links.TraceLink)."""

    def __init__(
        self, section: TraceLink, key: str, seed: int, folder: Path, direction: str = "uplink"
    ) -> None:
        self.section, self.direction, self.seed = section, direction, seed
        self.traces = [read_trace(path, folder, key) for path in section.paths]

    def rates_bps(self, when: When, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
        means = np.array([8 * PACKET_BYTES * len(stamps) / (stamps[-1] / 1000) for stamps in self.traces])
        rates: np.ndarray = means[client_of(sender, receiver) % len(means)]
        return rates

    def transfers(self, when: When, sends: Sends) -> Transfers:
        clients = sends.client
        offset = uniforms(self.seed, 0, "place in a trace", clients) * self.section.spread
        power_w = _power_w(self.section, self.direction, sends.share)

        def at(i: int, start_s: float) -> tuple[float, float]:
            stamps = self.traces[int(clients[i]) % len(self.traces)]
            begins_s = start_s + float(offset[i] * stamps[-1] / 1000)
            on_air_s = delivered_s(stamps, begins_s, int(sends.nbytes[i]))
            return self.section.latency_s * int(sends.messages[i]) + on_air_s, float(power_w[i]) * on_air_s

        nothing = np.zeros(len(clients))
        return Transfers(nothing, nothing, nothing.astype(bool), at)


def delivered_s(stamps: np.ndarray, start_s: float, nbytes: int) -> float:
    """How long so many bytes take from `start_s` over a trace that loops with its last stamp."""
    packets, start_ms = -(-nbytes // PACKET_BYTES), start_s * 1000
    if packets == 0:
        return 0.0
    loops, phase = divmod(start_ms, float(stamps[-1]))
    gone = int(np.searchsorted(stamps, phase, side="right"))  # packets of this loop that could leave before
    more, last = divmod(gone + packets - 1, len(stamps))
    return float(((loops + more) * stamps[-1] + stamps[last] - start_ms) / 1000)


def read_trace(path: str, folder: Path, key: str) -> np.ndarray:
    """A trace's milliseconds, in their order; `shipped:` ones lie in the package.

    Raises:
        Refused: for a file that is missing, empty, not numbers, or not in order.
    """
    try:
        file = located(path, folder, key)
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as e:
        got = f"{path!r}, which cannot be read ({getattr(e, 'strerror', None) or e})"
        raise Refused(key, got, "a trace, a line a packet with its millisecond") from None
    bad = next(
        (i for i, line in enumerate(lines) if not (line.isascii() and line.isdigit() and len(line) < 16)),
        None,
    )
    if bad is not None or not lines:
        got = f"{lines[bad]!r} in line {bad + 1} of {file}" if bad is not None else f"{file}, which is empty"
        raise Refused(key, got, "whole milliseconds, one a line")
    stamps = np.array(lines, dtype=np.int64)
    if len(back := np.flatnonzero(np.diff(stamps) < 0)) or stamps[-1] == 0:
        got = (
            f"{stamps[back[0] + 1]} after {stamps[back[0]]} in line {back[0] + 2} of {file}"
            if len(back)
            else f"{file}, which ends at 0"
        )
        raise Refused(key, got, "milliseconds that never go back, the last above 0")
    return stamps


def ids(numbers: Sequence[int]) -> np.ndarray:
    return np.asarray(numbers, dtype=np.int64)
