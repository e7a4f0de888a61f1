"""Links whose gains are a file's (see scenario.gains.Gains): rates that change within a transfer, serving
cells and their interference."""

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedray.data.places import located
from fedray.network import allocation
from fedray.network.band import BandLink
from fedray.network.budget import sender_dbm, total_noise_mw
from fedray.network.cells import by_cell, from_others, handovers
from fedray.network.links import LinkContext, RoundStart, TransferCosts, TransferRequests
from fedray.network.rates import linear
from fedray.scenario.base import Refused
from fedray.scenario.gains import Gains

ARRAYS = "arrays gains_db [time, client, cell] and time_s [time]"
READING = (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error)


class GainsFile(NamedTuple):
    """What a file holds: gains in dB [time, client, cell], at seconds [time] from its first row."""

    gains_db: np.ndarray
    time_s: np.ndarray

    @property
    def period_s(self) -> float:
        """Seconds after which it begins anew; infinite for a single row."""
        if len(self.time_s) == 1:
            return float("inf")
        return float(2 * self.time_s[-1] - self.time_s[-2])

    def row(self, time_s: float) -> int:
        """That holds at this second of the run."""
        phase_s = time_s % self.period_s
        return int(np.searchsorted(self.time_s, phase_s, side="right")) - 1


class GainsBudget:
    """Mean signal-to-noise ratios of one direction over a file's gains."""

    def __init__(self, section: Gains, context: LinkContext) -> None:
        self.file = read_gains(section.path, context.folder, f"{context.key}.path", context.clients)
        self.transmit_dbm = sender_dbm(section, context)
        gains_db = self.file.gains_db
        self.serving = handovers(gains_db, self.file.time_s, section.hysteresis_db, section.time_to_trigger_s)
        noise_mw = total_noise_mw(section, context.direction)
        each = np.arange(gains_db.shape[1])
        power_dbm = self.transmit_dbm[:, None] + section.antenna_gain_db
        self.snr = np.empty(gains_db.shape[:2])  # over the whole band
        for t, now in enumerate(self.serving):
            received_mw = linear(power_dbm + gains_db[t])
            interference_mw = section.load * from_others(context.direction, received_mw, now)
            self.snr[t] = received_mw[each, now] / (noise_mw + interference_mw)
        factors = {"none": np.inf, "rayleigh": 0.0, "rician": float(linear(section.rician_k_db))}
        self.k = factors[section.fading]

    def mean_snr(
        self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        client = np.where(sender >= 0, sender, receiver)
        snr = self.snr[self.file.row(start.time_s), client]
        return snr, np.full(snr.shape, self.k)

    def sender_dbm(self, sender: np.ndarray) -> np.ndarray:
        return self.transmit_dbm[sender] if len(self.transmit_dbm) > 1 else self.transmit_dbm[0]

    def cells(self, start: RoundStart, clients: np.ndarray) -> np.ndarray:
        serving: np.ndarray = self.serving[self.file.row(start.time_s), clients]
        return serving


class Way:
    """What one client's share of the band carries as the file goes by.

    Args:
        file: whose rows these are.
        rates_bps: in each of them [time].
    """

    def __init__(self, file: GainsFile, rates_bps: np.ndarray) -> None:
        self.file = file
        self.rates_bps = rates_bps
        # a single row has no end, and none is needed
        lengths = np.diff(file.time_s, append=file.period_s) if len(rates_bps) > 1 else np.zeros(1)
        self.sent = np.append(0.0, np.cumsum(rates_bps * lengths))  # bits before each row
        self.busy_s = np.append(0.0, np.cumsum(lengths * (rates_bps > 0)))  # in which something was sent

    def delivery_s(self, start_s: float, nbytes: float) -> tuple[float, float]:
        """Seconds from `start_s` until so many bytes are through, and those of them in which something is
        sent; infinite where never anything is."""
        bits = 8.0 * nbytes
        if bits <= 0:
            return 0.0, 0.0
        if not self.rates_bps.any():
            return float("inf"), 0.0
        if len(self.rates_bps) == 1:
            seconds = bits / float(self.rates_bps[0])
            return seconds, seconds
        phase_s = start_s % self.file.period_s
        before_bits, before_busy_s = self._until(phase_s)
        loops, rest = divmod(before_bits + bits, self.sent[-1])
        if rest == 0.0:  # through as the last row that carries anything ends
            loops -= 1
            rest = self.sent[-1]
        last = int(np.searchsorted(self.sent[1:], rest, side="left"))
        within_s = (rest - self.sent[last]) / self.rates_bps[last]
        end_s = loops * self.file.period_s + self.file.time_s[last] + within_s
        on_air_s = loops * self.busy_s[-1] + self.busy_s[last] + within_s - before_busy_s
        return float(end_s - phase_s), float(on_air_s)

    def carried(self, start_s: float, seconds: float) -> tuple[float, float]:
        """Bits that go through in so many seconds from `start_s`, and in how many of them something does."""
        phase_s = start_s % self.file.period_s
        loops, end_s = divmod(phase_s + seconds, self.file.period_s)
        bits, busy_s = (
            end - start for start, end in zip(self._until(phase_s), self._until(end_s), strict=True)
        )
        return loops * self.sent[-1] + bits, loops * self.busy_s[-1] + busy_s

    def _until(self, phase_s: float) -> tuple[float, float]:
        """Bits, and seconds in which something is sent, from the file's beginning to a second of it."""
        row = self.file.row(phase_s)
        rate_bps = float(self.rates_bps[row])
        into_s = phase_s - float(self.file.time_s[row])
        return float(self.sent[row]) + rate_bps * into_s, float(self.busy_s[row]) + into_s * (rate_bps > 0)

    @property
    def mean_bps(self) -> float:
        """Over the whole file."""
        if len(self.rates_bps) == 1:
            return float(self.rates_bps[0])
        return float(self.sent[-1] / self.file.period_s)


class GainsPace(NamedTuple):
    """How a transfer goes on over a file's gains (see links.Pace)."""

    way: Way
    nbytes: float
    begins_s: float  # after its latency
    power_w: float

    def rest(self, now_s: float, left: float) -> tuple[float, float]:
        first_s = max(now_s, self.begins_s)
        seconds, on_air_s = self.way.delivery_s(first_s, left * self.nbytes)
        return first_s - now_s + seconds, self.power_w * on_air_s

    def part(self, now_s: float, seconds: float) -> tuple[float, float]:
        first_s = max(now_s, self.begins_s)
        seconds -= first_s - now_s
        if seconds <= 0:
            return 0.0, 0.0
        bits, on_air_s = self.way.carried(first_s, seconds)
        return (bits / (8.0 * self.nbytes) if self.nbytes else 1.0), self.power_w * on_air_s


class GainsLink(BandLink):
    """One direction over a file's gains. Shares of the band, and the cells whose clients share one, are those
    of the round's start; a transfer that is under way keeps its share. While nothing is in reach it waits,
    and its radio is silent."""

    section: Gains
    budget: GainsBudget

    def __init__(self, section: Gains, context: LinkContext) -> None:
        super().__init__(section, context)
        self.budget = GainsBudget(section, context)
        self.cell_count = self.budget.file.gains_db.shape[2]

    def way(self, client: int, share: float) -> Way:
        """A client's share of the band over time."""
        snr = self.budget.snr[:, client]
        rates = self.rate_bps(snr, np.full(snr.shape, self.budget.k), share)
        return Way(self.budget.file, np.where(self.is_reachable(snr, share), rates, 0.0))

    def idle_cells(self) -> list[int]:
        return sorted(set(range(self.cell_count)) - set(self.budget.serving.flat))

    def transfers(self, start: RoundStart, requests: TransferRequests) -> TransferCosts:
        """A transfer of a client that the file never has in reach is lost."""
        section = self.section
        clients = requests.client
        ways = [self.way(c, s) for c, s in zip(clients.tolist(), requests.share.tolist(), strict=True)]
        latency_s = section.latency_s * requests.messages
        at_start = [
            way.delivery_s(start.time_s + wait, n)
            for way, wait, n in zip(ways, latency_s.tolist(), requests.nbytes.tolist(), strict=True)
        ]
        seconds, on_air_s = np.array(at_start, float).reshape(-1, 2).T
        part = requests.share if self.direction == "downlink" else np.ones(len(clients))
        power_w = self.power_w(requests.sender, part) * self._sends(start, clients, on_air_s)
        power_w = power_w + section.receive_w

        def at(i: int, start_s: float) -> tuple[float, float]:
            wait_s = float(latency_s[i])
            time_s, sending_s = ways[i].delivery_s(start_s + wait_s, float(requests.nbytes[i]))
            return wait_s + time_s, float(power_w[i]) * sending_s

        begins_s = start.time_s + latency_s
        each = zip(ways, requests.nbytes.tolist(), begins_s.tolist(), power_w.tolist(), strict=True)
        paces = [GainsPace(*values) for values in each]
        return TransferCosts(latency_s + seconds, power_w * on_air_s, np.isinf(seconds), at, paces)

    def _sends(self, start: RoundStart, clients: np.ndarray, on_air_s: np.ndarray) -> np.ndarray:
        """The part of a sender's time on the air that each transfer is charged [n]: all of it, but for a
        broadcast, of which every moment is shared by those in the cell that still listen."""
        if not self.section.allocation.broadcasts:
            return np.ones(len(clients))
        shared_s = by_cell(
            self.cells(start, clients), lambda members: allocation.broadcast_time_s(on_air_s[members])
        )
        return np.divide(shared_s, on_air_s, out=np.ones(len(clients)), where=on_air_s > 0)

    def fading_speedup(self, start: RoundStart, requests: TransferRequests) -> np.ndarray:
        """How much faster than at the mean rate of the whole file."""
        each = zip(requests.client.tolist(), requests.share.tolist(), requests.nbytes.tolist(), strict=True)
        speedups = np.ones(len(requests.sender))
        for i, (client, share, nbytes) in enumerate(each):
            way = self.way(client, share)
            seconds = way.delivery_s(start.time_s, nbytes)[0]
            if nbytes > 0:
                speedups[i] = 0.0 if np.isinf(seconds) else 8.0 * nbytes / way.mean_bps / seconds
        return speedups


def verify(section: Gains, folder: Path, key: str, clients: int) -> None:
    """Raises Refused for a file that is none of so many clients' gains.

    Args:
        section: that names it.
        folder: where relative paths start.
        key: of the scenario that names it.
        clients: of the population.
    """
    read_gains(section.path, folder, key, clients)


def read_gains(path: str, folder: Path, key: str, clients: int) -> GainsFile:
    """The gains of the first so many clients, and when; `shipped:` ones lie in the package.

    Args:
        path: of the file.
        folder: where relative paths start.
        key: of the scenario that names it.
        clients: of the population.

    Raises:
        Refused: for a file that cannot be read, and for arrays that are missing, of another shape, too few
            clients, not numbers, or not in order.
    """
    gains_db, time_s = _arrays(path, folder, key)
    name = repr(path)
    if gains_db.ndim == 2:
        gains_db = gains_db[:, :, None]
    if gains_db.ndim != 3 or 0 in gains_db.shape:
        expected = "[time, client, cell] or [time, client], none of them 0"
        raise Refused(key, f"{name}, whose gains_db has the shape {list(gains_db.shape)}", expected)
    if time_s.shape != gains_db.shape[:1]:
        expected = f"[{len(gains_db)}], a second for each row of gains_db"
        raise Refused(key, f"{name}, whose time_s has the shape {list(time_s.shape)}", expected)
    _refuse_times(time_s, name, key)
    if gains_db.shape[1] < clients:
        expected = f"at least population.clients, {clients}"
        raise Refused(key, f"{name}, whose gains_db has {gains_db.shape[1]} clients", expected)
    gains_db = gains_db[:, :clients]
    bad = np.isnan(gains_db) | (gains_db > 0)
    if bad.any():
        place = np.unravel_index(int(bad.argmax()), bad.shape)
        where = ", ".join(map(str, place))
        expected = "at most 0 dB, or -inf for no path: a gain is minus the path loss"
        raise Refused(key, f"{name}, whose gains_db[{where}] is {gains_db[place]:g}", expected)
    return GainsFile(gains_db, time_s - time_s[0])


def _arrays(path: str, folder: Path, key: str) -> tuple[np.ndarray, np.ndarray]:
    """`gains_db` and `time_s` as they stand in a file, in double precision."""
    arrays = []
    try:
        # the file's name is shown as the scenario has it
        with np.load(located(path, folder, key), allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise Refused(key, f"{path!r}, which is a single array", f"an npz file with the {ARRAYS}")
            for name in ("gains_db", "time_s"):
                if name not in file.files:
                    got = f"{path!r}, which has {', '.join(sorted(file.files)) or 'no array'}"
                    raise Refused(key, got, f"the {ARRAYS}")
                arrays.append(file[name])
    except Refused:
        raise
    except READING as e:
        got = f"{path!r}, which cannot be read ({getattr(e, 'strerror', None) or e})"
        raise Refused(key, got, f"an npz file with the {ARRAYS}") from None
    for name, array in zip(("gains_db", "time_s"), arrays, strict=True):
        if array.dtype.kind not in "fiu":
            raise Refused(key, f"{path!r}, whose {name} is of {array.dtype}", "real numbers")
    gains_db, time_s = (array.astype(np.float64) for array in arrays)
    return gains_db, time_s


def _refuse_times(time_s: np.ndarray, name: str, key: str) -> None:
    expected = "seconds that rise"
    if len(bad := np.flatnonzero(~np.isfinite(time_s))):
        raise Refused(key, f"{name}, whose time_s[{bad[0]}] is {time_s[bad[0]]:g}", expected)
    if len(back := np.flatnonzero(np.diff(time_s) <= 0) + 1):
        t = back[0]
        raise Refused(key, f"{name}, whose time_s[{t}] is {time_s[t]:g} after {time_s[t - 1]:g}", expected)
