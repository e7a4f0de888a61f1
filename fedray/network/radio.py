"""The links and devices of a scenario's network, and what every transfer of a round takes over them."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from fedray.network import allocation
from fedray.network.channel import RadioLink
from fedray.network.devices import Devices, Processor
from fedray.network.geometry import Geometry
from fedray.network.links import Fixed, Link, Sends, Trace, When, ids, numbered
from fedray.network.work import Work, number
from fedray.randomness import SERVER as SERVER_NUMBER
from fedray.scenario.links import FixedLink, TraceLink
from fedray.scenario.network import DIRECTIONS, Network
from fedray.schedule import SERVER, Schedule, Send, Train

SAVINGS = 128  # powers that a client chooses from
Air = dict[int, "Transfer"]  # by the place of a send step in the schedule
Begins = Callable[[Callable[[int, float], float]], list[float]]


class Transfer(NamedTuple):
    """One of a direction's transfers: seconds and joules, or what gives them for one that begins then."""

    time_s: float
    energy_j: float
    lost: bool
    at: Callable[[float], tuple[float, float]] | None = None

    def begun(self, begins_s: float) -> tuple[float, float]:
        return self.at(begins_s) if self.at else (self.time_s, self.energy_j)


class Radio:
    """Links and devices of a `network` section, for so many clients; `folder` is where relative paths
    start."""

    def __init__(self, section: Network, clients: int = 0, seed: int = 0, folder: Path = Path()) -> None:
        self.section = section
        self.geometry = Geometry(section.cell, clients, seed) if section.cell else None
        self.devices, self.server = Devices(section.device, clients, seed), Processor(section.server)
        self.links = {d: self._open(d, seed, folder) for d in DIRECTIONS}

    def _open(self, direction: str, seed: int, folder: Path) -> Link:
        section = getattr(self.section, direction)
        if isinstance(section, FixedLink):
            return Fixed(section, direction)
        if isinstance(section, TraceLink):
            return Trace(section, f"network.{direction}.path", seed, folder, direction)
        assert self.geometry is not None
        if direction != "downlink":
            return RadioLink(section, direction, self.geometry, seed, self.devices.transmit_dbm)
        own = self.server.section.transmit_dbm  # none: that of a base station
        return RadioLink(section, direction, self.geometry, seed, None if own is None else np.array([own]))

    def processor(self, node: str) -> Processor:
        return self.server if node == SERVER else self.devices[number(node)]

    def reaches(self, when: When, sender: int, receiver: int, nbytes: int = 1, share: float = 1.0) -> bool:
        """Whether the first hop of this round between these two over the sidelink arrives, over a share of
        its band."""
        sends = Sends(ids([sender]), ids([receiver]), ids([nbytes]), ids([1]), np.array([share]), ids([0]))
        return not self.links["sidelink"].transfers(when, sends).lost[0]

    def sidelink_rates_bps(self, when: When, sender: int, receivers: Collection[int]) -> np.ndarray:
        """Mean rates; 0 for who is out of range."""
        to = ids(list(receivers))
        return self.links["sidelink"].rates_bps(when, np.full_like(to, sender), to)

    def sidelinks(self, when: When, sender: int, receivers: Collection[int]) -> np.ndarray:
        """Whom a client's sidelink reaches at all, bool."""
        link, to = self.links["sidelink"], ids(list(receivers))
        assert isinstance(link, RadioLink)  # the others reach everybody
        return link.reached(link.mean_snr(when, np.full_like(to, sender), to)[0], 1.0)

    def finishes_s(
        self, when: When, work: Work, clients: np.ndarray, encoded: Collection[int] = ()
    ) -> Callable[[int], np.ndarray]:
        """About how long each client's round takes [n], given how many share each band. Clients that have not
        `encoded` their samples do it first."""
        base = np.full_like(clients, SERVER_NUMBER)
        parts: list[tuple[Any, np.ndarray, np.ndarray, np.ndarray | None]] = []
        for direction, pair in (("downlink", (base, clients)), ("uplink", (clients, base))):
            link, bits = (
                self.links[direction],
                8.0 * np.array([work.send_bytes(direction, c) for c in clients.tolist()]),
            )
            if isinstance(link, RadioLink) and link.section.allocation != "broadcast":
                parts.append((link, bits, *link.mean_snr(when, *pair)))
            else:
                parts.append((link, bits, link.rates_bps(when, *pair), None))
        flops = [work.train_flops(c, 0) for c in clients.tolist()]
        if work.encode_flops:
            known = set(encoded)
            flops = [
                n + (0.0 if c in known else work.encode_flops(c))
                for n, c in zip(flops, clients.tolist(), strict=True)
            ]
        compute_s = np.array(
            [self.devices[c].time_s(n) for n, c in zip(flops, clients.tolist(), strict=True)]
        )

        def seconds(at_once: int) -> np.ndarray:
            taken = compute_s
            for link, bits, snr, k in parts:
                rate = (
                    snr if k is None else link.rate_bps(snr, k, 1 / at_once) * link.reached(snr, 1 / at_once)
                )
                with np.errstate(divide="ignore"):
                    taken = taken + link.section.latency_s + bits / rate
            return taken

        return seconds


def on_air(schedule: Schedule, loads: Sequence[float], radio: Radio, when: When, begins: Begins) -> Air:
    """Every send step's transfer. `begins` says when each step would begin, if steps took what it is
    given."""
    found: Air = {}
    # who gets how much of the uplink may depend on what was before
    for direction in ("downlink", "sidelink", "uplink"):
        if not (places := schedule.sends.get(direction)):
            continue
        link, steps = radio.links[direction], [cast(Send, schedule.steps[n]) for n in places]
        sender, receiver = ids([number(s.node) for s in steps]), ids([number(s.peer) for s in steps])
        nbytes, messages = np.array([loads[n] for n in places]), ids([s.messages for s in steps])
        sends = Sends(sender, receiver, nbytes, messages, np.ones(len(steps)), numbered(sender, receiver))
        if isinstance(link, RadioLink):
            sends = sends._replace(
                share=_shares(schedule, places, sends, link, radio, loads, when, found, begins)
            )
        elif direction == "downlink" and link.section.transmit_w is None:
            sends = sends._replace(share=_equal(schedule, places, sends))
        transfers = link.transfers(when, sends)
        numbers = zip(
            places,
            transfers.time_s.tolist(),
            transfers.energy_j.tolist(),
            transfers.lost.tolist(),
            strict=True,
        )
        for i, (n, time_s, energy_j, lost) in enumerate(numbers):
            found[n] = Transfer(time_s, energy_j, lost, partial(transfers.at, i) if transfers.at else None)
    return found


def _shares(
    schedule: Schedule,
    places: list[int],
    sends: Sends,
    link: RadioLink,
    radio: Radio,
    loads: Sequence[float],
    when: When,
    air: Air,
    begins: Begins,
) -> np.ndarray:
    """Each send step's share of its direction's band."""
    how = link.section.allocation
    if how == "broadcast":
        return np.ones(len(places))
    if how in ("min_max", "proportional_fair"):
        snr, k = link.mean_snr(when, sends.sender, sends.receiver)

        def rate(share: np.ndarray) -> np.ndarray:
            shape = np.broadcast_shapes(share.shape, snr.shape)
            flat = [np.broadcast_to(a, shape).ravel() for a in (snr, k, share)]
            return link.rate_bps(*flat).reshape(shape) * link.reached(snr, 1 / len(snr))

        if how == "proportional_fair":
            return allocation.proportional_fair(rate, len(snr))

        def seconds(n: int, now_s: float) -> float:
            step = schedule.steps[n]
            if isinstance(step, Send):
                return air[n].begun(when.time_s + now_s)[0] if n in air else 0.0
            return radio.processor(step.node).time_s(loads[n])

        ready = begins(seconds)
        return allocation.min_max(8.0 * sends.nbytes, np.array([ready[n] for n in places]), rate)
    return _equal(schedule, places, sends)


def _equal(schedule: Schedule, places: list[int], sends: Sends) -> np.ndarray:
    """The same share for all of a direction's send steps: one of those that send at once when most do."""
    mine, depth = bytearray(len(schedule.steps)), [0] * len(schedule.steps)
    for n in places:
        mine[n] = 1
    # how many before it in this direction: those equally deep send at once
    for n, before in enumerate(schedule.before):
        if before:
            depth[n] = (depth[before[0]] if len(before) == 1 else max([depth[i] for i in before])) + mine[n]
    # one's own follow each other
    at_once = set(zip((depth[n] for n in places), sends.client.tolist(), strict=True))
    return np.full(len(places), 1 / max(Counter(deep for deep, _ in at_once).values()))


def saving(
    schedule: Schedule, loads: Sequence[float], radio: Radio, when: When, air: Air
) -> dict[int, float]:
    """The joint choice of CPU frequency and transmit power: of SAVINGS powers up to the link's, the one with
    which a client's kappa C f^2 + p t is least, where f = C / (what the deadline leaves). Who cannot meet it
    does what it can.

    Gives the frequency of each train step, and `air` the new uplinks.
    """
    link, deadline = radio.links["uplink"], radio.section.deadline_s
    assert isinstance(link, RadioLink)
    assert deadline is not None
    ups = {
        step.node: n
        for n, step in enumerate(schedule)
        if isinstance(step, Send) and step.direction == "uplink"
    }
    frequency: dict[int, float] = {}
    less = np.logspace(-4, 0, SAVINGS)
    for n, step in enumerate(schedule):
        if not isinstance(step, Train) or step.node not in ups:
            continue
        processor, up = radio.processor(step.node), ups[step.node]
        down_s = sum(air[i].begun(when.time_s)[0] for i in schedule.before[n] if i in air)
        snr, k = link.mean_snr(when, ids([step.client]), ids([SERVER_NUMBER]))
        share = 1 / len(ups)
        rate = link.rate_bps(snr * less, np.full(SAVINGS, k[0]), share)
        latency_s = link.section.latency_s
        with np.errstate(divide="ignore", invalid="ignore"):
            up_s = 8 * loads[up] / rate
            hz = processor.cycles(loads[n]) / (deadline - down_s - latency_s - up_s)
        able = (hz > 0) & (hz <= processor.frequency_hz)
        if not able.any() or air[up].lost:
            continue
        power_w = link.power_w(ids([step.client]), less) + link.section.receive_w
        joules = np.where(
            able, power_w * up_s + [processor.energy_j(loads[n], f) if f > 0 else np.inf for f in hz], np.inf
        )
        best = int(np.argmin(joules))
        frequency[n] = float(hz[best]) * (1 + 1e-12)  # not a rounding error late
        air[up] = Transfer(latency_s + float(up_s[best]), float(power_w[best] * up_s[best]), False)
    return frequency
