"""Radio links: path and fading make a signal-to-noise ratio, that a rate, that a time and joules."""

from functools import lru_cache

import numpy as np

from fedray.network import allocation
from fedray.network.geometry import Geometry, disc
from fedray.network.links import Sends, Transfers, When, client_of
from fedray.network.propagation import DEVICE_MODELS, LIGHT_MPS, log_distance, shadowing
from fedray.network.rates import arq, efficiency, ergodic, linear, noise_dbm
from fedray.randomness import SERVER, key, normals, uniforms
from fedray.scenario.network import BLOCK_HZ, Cell, Disc, Level, LogDistance, Neighbours, Sidelink, Tr38901

UNTIL_THROUGH = 10**6
BLOCKS = 32  # coherence times: what takes longer has the ergodic rate
FIGURE_DB = {"uplink": 5.0, "downlink": 9.0, "sidelink": 9.0}  # noise figure of a base station, of a device


class RadioLink:
    """One direction over a channel of scenario.network. Who is asked for makes no difference to anybody's draws."""

    def __init__(self, section: LogDistance | Tr38901 | Sidelink, direction: str, geometry: Geometry, seed: int) -> None:
        self.section, self.direction, self.geometry, self.seed = section, direction, geometry, seed
        self.efficiency = efficiency(section.rate, section.modulation)
        self.coherence_s = 0.423 * LIGHT_MPS / (section.speed_mps * section.frequency_hz)
        figure = section.noise_figure_db if section.noise_figure_db is not None else FIGURE_DB[direction]
        self.noise_dbm_hz = float(noise_dbm(1.0, figure))
        self._of_clients = lru_cache(maxsize=1)(self._at_clients)

    def rates_bps(self, when: When, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
        snr, k = self.mean_snr(when, sender, receiver)
        return np.where(self.reached(snr), self.rate_bps(snr, k, 1.0), 0.0)

    def rate_bps(self, snr: np.ndarray, k: np.ndarray, share: np.ndarray | float) -> np.ndarray:
        """The ergodic rate over a share of the band."""
        return self.section.bandwidth_hz * self.usable * share * ergodic(self.efficiency, self._over(snr, share), k)

    def reached(self, snr: np.ndarray) -> np.ndarray:
        """Whether the mean signal is worth a try at all."""
        least = 0.0 if self.section.outage_db is None else linear(self.section.outage_db)
        return (self.efficiency(snr) > 0) & (snr >= least)

    def rate_now(self, when: When, clients: np.ndarray) -> np.ndarray:
        """Beside its mean, what a client's uplink rate is in the round's first coherence time."""
        snr, k = self.mean_snr(when, clients, np.full_like(clients, SERVER))
        faded = snr * self._power(when, "now", k, clients)
        ratio: np.ndarray = self.efficiency(faded) / np.maximum(ergodic(self.efficiency, snr, k), 1e-12)
        return ratio

    def transfers(self, when: When, sends: Sends) -> Transfers:
        s = self.section
        snr, k = self.mean_snr(when, sends.sender, sends.receiver)
        over = self._over(snr, sends.share)
        if s.allocation == "blocks":
            rate, lost = self._blocks(when, sends, over, k), np.zeros(len(snr), bool)
        else:
            rate, lost = self.rate_bps(snr, k, sends.share), ~self.reached(snr)
        with np.errstate(divide="ignore"):
            time = np.where((rate > 0) & (sends.nbytes > 0), 8 * sends.nbytes / rate, 0.0)
        short = (time > 0) & (time < BLOCKS * self.coherence_s) & (s.allocation != "blocks")
        if short.any():
            time[short] = self._block_by_block(when, Sends(*(a[short] for a in sends)), over[short], k[short], rate[short])
        lost = lost | (rate <= 0)
        tries = np.ones(len(time), int)
        if s.outage_db is not None:
            number = np.arange(s.attempts)
            power = self._power(when, "try", k[:, None], sends.sender[:, None], sends.receiver[:, None], number)
            weak = snr[:, None] * power < linear(s.outage_db)
            tries = np.where(weak.all(1), s.attempts, np.argmin(weak, 1) + 1)
            lost = lost | weak.all(1)
        if s.harq is not None:
            left = arq(s.block_error, s.harq)[1]
            lost = lost | (uniforms(self.seed, when.round, f"blocks left {self.direction}", sends.sender, sends.receiver) < left)
        on_air_s = time * tries
        energy = self.power_w(sends.share if self.direction == "downlink" else 1.0) * on_air_s
        return Transfers(s.latency_s * sends.messages * tries + on_air_s, energy, lost)

    def power_w(self, part: np.ndarray | float) -> np.ndarray:
        """Of both radios, where the sender's antenna has this part of its power."""
        s = self.section
        return linear(s.transmit_dbm - 30) * part / s.amplifier_efficiency + s.circuit_w + s.receive_w

    def mean_snr(self, when: When, sender: np.ndarray, receiver: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean signal-to-noise-and-interference ratio over the whole band, and the K-factor [n]."""
        s = self.section
        if isinstance(s, Sidelink) or self.direction == "sidelink":
            (loss, k), heard = self._between(when, sender, receiver), 0.0
        else:
            clients = client_of(sender, receiver)
            loss, k, heard = (part[clients] for part in self._of_clients(when.time_s if self.geometry.cell.mobility else 0.0))
        if s.fading != "model":
            k = np.full(loss.shape, {"none": np.inf, "rayleigh": 0.0, "rician": float(linear(s.rician_k_db))}[s.fading])
        level = linear(s.interference.dbm) if isinstance(s.interference, Level) else 0.0
        noise_mw = s.bandwidth_hz * linear(self.noise_dbm_hz) + (level + heard)
        return linear(s.transmit_dbm + s.antenna_gain_db - loss) / noise_mw, k

    @property
    def usable(self) -> float:
        """The share of the band that carries what is new."""
        tries, _ = arq(self.section.block_error, self.section.harq or UNTIL_THROUGH)
        return (1 - self.section.overhead) / tries

    def _over(self, snr: np.ndarray, share: np.ndarray | float) -> np.ndarray:
        """A device has all its power for its share of the band; a base station only that share of it."""
        return snr if self.direction == "downlink" else snr / share

    def _power(self, when: When, purpose: str, k: np.ndarray, *ids: np.ndarray) -> np.ndarray:
        """The power of a channel of K-factor k and mean 1, for each of the ids."""
        purpose = f"fading {self.direction} {purpose}"
        scattered = np.where(np.isinf(k), 0.0, 1 / (1 + k))
        steady = np.sqrt(1 - scattered)
        in_phase, out_of_it = (normals(self.seed, when.round, f"{purpose} {part}", *ids) for part in "iq")
        power: np.ndarray = (steady + np.sqrt(scattered / 2) * in_phase) ** 2 + scattered / 2 * out_of_it**2
        return power

    def _block_by_block(self, when: When, sends: Sends, snr: np.ndarray, k: np.ndarray, rate: np.ndarray) -> np.ndarray:
        """Seconds of transfers that see only some coherence times: each block carries what its own fade lets it. After
        twice BLOCKS of them the rest goes at the mean rate."""
        block = np.arange(2 * BLOCKS)
        power = self._power(when, "block", k[:, None], sends.sender[:, None], sends.receiver[:, None], block)
        bps = self.section.bandwidth_hz * self.usable * sends.share[:, None] * self.efficiency(snr[:, None] * power)
        sent = np.cumsum(bps * self.coherence_s, 1)
        bits = 8.0 * sends.nbytes
        whole = (sent < bits[:, None]).sum(1)  # blocks that are used up
        row, last = np.arange(len(bits)), np.minimum(whole, len(block) - 1)
        before = np.where(whole > 0, sent[row, np.maximum(whole - 1, 0)], 0.0)
        rest = np.where(whole < len(block), bps[row, last], rate)
        seconds: np.ndarray = whole * self.coherence_s + (bits - before) / rest
        return seconds

    def _blocks(self, when: When, sends: Sends, snr: np.ndarray, k: np.ndarray) -> np.ndarray:
        """Each resource block, which fades by itself, goes to somebody whom it serves well."""
        blocks = np.arange(int(self.section.bandwidth_hz // BLOCK_HZ))
        clients = sends.client
        power = self._power(when, "blocks", k[:, None], clients[:, None], blocks)
        bps = self.section.bandwidth_hz * self.usable / len(blocks) * self.efficiency(snr[:, None] * power)
        return allocation.blocks(bps)

    def _between(self, when: When, sender: np.ndarray, receiver: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loss and K-factor of pairs of devices. A pair's luck is the same both ways, and in every round."""
        s = self.section
        sender, receiver = np.broadcast_arrays(sender, receiver)
        places = self.geometry.at(when.time_s)
        distance = np.maximum(np.linalg.norm(places[sender] - places[receiver], axis=1), 1.0)
        pair = np.minimum(sender, receiver), np.maximum(sender, receiver)
        shadow = normals(self.seed, 0, "shadowing of a pair", *pair)
        assert not isinstance(s, Tr38901)
        if isinstance(s, LogDistance):
            return log_distance(s, distance) + s.shadowing_db * shadow, np.zeros(distance.shape)
        model, f = DEVICE_MODELS[s.model], s.frequency_hz / 1e9
        clear = uniforms(self.seed, 0, "sight of a pair", *pair) < model.sight(distance)
        loss = np.where(clear, model.clear(distance, f), model.blocked(distance, f)) + np.where(clear, *model.shadowing_db) * shadow
        return loss, np.where(clear, linear(model.k_db), 0.0)

    def _at_clients(self, time_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, K-factor, and what is heard of neighbouring cells in mW, of every client's link to the base station."""
        s, places = self.section, self.geometry.at(time_s)
        assert not isinstance(s, Sidelink)
        loss, k = path(s, self.geometry.cell, places, self.seed)
        around = s.interference
        return loss, k, self._neighbours(s, around, places) if isinstance(around, Neighbours) else np.zeros(len(places))

    def _neighbours(self, s: LogDistance | Tr38901, around: Neighbours, places: np.ndarray) -> np.ndarray:
        """Six cells on a hexagon. Downlink: each device hears their base stations. Uplink: the base station hears a device in
        each, which lies there as this cell's own may."""
        cell, heard = self.geometry.cell, np.zeros(len(places))
        angle = np.arange(6) * np.pi / 3
        sites = around.distance_m * np.stack([np.cos(angle), np.sin(angle)], 1)
        if self.direction == "uplink":
            at = cell.placement if isinstance(cell.placement, Disc) else Disc(kind="disc", radius_m=around.distance_m / 2)
            sites = sites + disc(at, *(uniforms(self.seed, 0, f"neighbours {part}", np.arange(6)) for part in "uv"))
        for i, site in enumerate(sites):
            seen = site[None] if self.direction == "uplink" else places - site
            loss, _ = path(s, cell, seen, key(self.seed, 0, i, "neighbour") % 2**31)
            heard = heard + around.load * linear(s.transmit_dbm + s.antenna_gain_db - loss)
        return heard


def path(section: LogDistance | Tr38901, cell: Cell, places: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Loss in dB with shadowing, and K-factor, between a base station at (0, 0) and devices at these places [n]. The same
    both ways."""
    if isinstance(section, Tr38901):
        from fedray.network import sionna

        loss, k, _ = sionna.large_scale(places, section.model, section.frequency_hz, cell, key(seed, 0, SERVER, "large scale") % 2**31)
        return loss, k
    distance = np.hypot(np.linalg.norm(places, axis=1), cell.server_height_m - cell.device_height_m)
    loss = log_distance(section, np.maximum(distance, 1.0))
    return loss + section.shadowing_db * shadowing(places, section.correlation_m, seed), np.zeros(len(places))
