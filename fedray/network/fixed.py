"""Links without a radio channel: a constant rate, or a recorded one."""

from pathlib import Path
from typing import Any

import numpy as np

from fedray.data.places import located
from fedray.network.allocations import EqualAllocation
from fedray.network.links import Link, LinkContext, RoundStart, TransferCosts, TransferRequests, link_client
from fedray.randomness import uniforms
from fedray.scenario.allocation import Equal
from fedray.scenario.base import Refused
from fedray.scenario.links import BASE_W, DEVICE_W, ConstantPowerSection, FixedLink, TraceLink

PACKET_BYTES = 1500


class ConstantPowerLink(Link):
    """A link whose radios take a constant power while they send and receive. A base station whose power is
    not given shares it out among those it sends to at once."""

    section: ConstantPowerSection

    def __init__(self, section: Any, context: LinkContext) -> None:
        super().__init__(section, context)
        if context.direction == "downlink" and section.transmit_w is None:
            self.allocation = EqualAllocation(Equal())  # of the power: each has its own rate

    def power_w(self, share: np.ndarray) -> np.ndarray:
        """Of both ends' radios together [n]."""
        if self.section.transmit_w is not None:
            sending_w = np.full(len(share), self.section.transmit_w)
        elif self.context.direction == "downlink":
            sending_w = BASE_W * share
        else:
            sending_w = np.full(len(share), DEVICE_W)
        return sending_w + self.section.receive_w


class ConstantRateLink(ConstantPowerLink):
    """A link each of whose rates stays as it is."""

    def transfers(self, start: RoundStart, requests: TransferRequests) -> TransferCosts:
        on_air_s = 8 * requests.nbytes / self.rates_bps(start, requests.sender, requests.receiver)
        time_s = self.section.latency_s * requests.messages + on_air_s
        return TransferCosts(time_s, self.power_w(requests.share) * on_air_s, np.zeros(len(on_air_s), bool))


class FixedRateLink(ConstantRateLink):
    """A constant rate (see scenario.network.FixedLink)."""

    section: FixedLink

    def __init__(self, section: FixedLink, context: LinkContext) -> None:
        super().__init__(section, context)
        self.rate_bps = np.asarray(section.rate_bps, float)  # one, [client] or [sender, receiver]

    def rates_bps(self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
        client = link_client(sender, receiver)
        index = ((), (client,), (client, receiver))[self.rate_bps.ndim]
        return np.broadcast_to(self.rate_bps[index], client.shape)


class TraceDrivenLink(ConstantPowerLink):
    """A recorded link (see scenario.network.TraceLink)."""

    section: TraceLink

    def __init__(self, section: TraceLink, context: LinkContext) -> None:
        super().__init__(section, context)
        key = f"{context.key}.path"
        self.traces = [read_trace(path, context.folder, key) for path in section.paths]

    def rates_bps(self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
        means = np.array([8 * PACKET_BYTES * len(stamps) / (stamps[-1] / 1000) for stamps in self.traces])
        rates: np.ndarray = means[link_client(sender, receiver) % len(means)]
        return rates

    def transfers(self, start: RoundStart, requests: TransferRequests) -> TransferCosts:
        clients = requests.client
        offset = uniforms(self.context.seed, 0, "place in a trace", clients) * self.section.spread
        power_w = self.power_w(requests.share)

        def at(i: int, start_s: float) -> tuple[float, float]:
            stamps = self.traces[int(clients[i]) % len(self.traces)]
            trace_s = start_s + float(offset[i] * stamps[-1] / 1000)
            on_air_s = delivery_time_s(stamps, trace_s, int(requests.nbytes[i]))
            time_s = self.section.latency_s * int(requests.messages[i]) + on_air_s
            return time_s, float(power_w[i]) * on_air_s

        nothing = np.zeros(len(clients))
        return TransferCosts(nothing, nothing, nothing.astype(bool), at)


def delivery_time_s(stamps: np.ndarray, start_s: float, nbytes: int) -> float:
    """How long so many bytes take from `start_s` over a trace that loops with its last stamp (ms [n])."""
    packets = -(-nbytes // PACKET_BYTES)
    start_ms = start_s * 1000
    if packets == 0:
        return 0.0
    loops, phase = divmod(start_ms, float(stamps[-1]))
    passed = int(np.searchsorted(stamps, phase, side="right"))  # packets of this loop that could leave before
    more_loops, last = divmod(passed + packets - 1, len(stamps))
    return float(((loops + more_loops) * stamps[-1] + stamps[last] - start_ms) / 1000)


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
    if not lines:
        raise Refused(key, f"{file}, which is empty", "whole milliseconds, one a line")
    for number, line in enumerate(lines, 1):
        if not (line.isascii() and line.isdigit() and len(line) < 16):
            raise Refused(key, f"{line!r} in line {number} of {file}", "whole milliseconds, one a line")
    stamps = np.array(lines, dtype=np.int64)
    expected = "milliseconds that never go back, the last above 0"
    if len(back := np.flatnonzero(np.diff(stamps) < 0)):
        got = f"{stamps[back[0] + 1]} after {stamps[back[0]]} in line {back[0] + 2} of {file}"
        raise Refused(key, got, expected)
    if stamps[-1] == 0:
        raise Refused(key, f"{file}, which ends at 0", expected)
    return stamps
