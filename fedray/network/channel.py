"""Radio links: path and fading make a signal-to-noise ratio, that a rate, that a time and joules."""

from functools import lru_cache

import numpy as np

from fedray.network import allocation
from fedray.network.devices import DEFAULT_DBM
from fedray.network.geometry import Geometry, disc
from fedray.network.links import Sends, Transfers, When, client_of
from fedray.network.propagation import DEVICE_MODELS, LIGHT_MPS, log_distance, shadowing
from fedray.network.rates import arq, efficiency, ergodic, linear, noise_dbm, worth
from fedray.randomness import SERVER, key, normals, uniforms
from fedray.scenario.cell import Cell, Disc
from fedray.scenario.radio import BLOCK_HZ, Level, LogDistance, Neighbours, Sidelink, Tr38901

UNTIL_THROUGH = 10**6
# in which a sender's share of the band carries a transport block (3GPP TS 38.211, 4.3.2, at 15 kHz)
SLOT_S = 1e-3
DRAWS = 8  # coherence times in which resource blocks are dealt anew; then the same again
BLOCKS = 32  # coherence times: what takes longer has the ergodic rate
FIGURE_DB = {"uplink": 5.0, "downlink": 9.0, "sidelink": 9.0}  # noise figure of a base station, of a device


class RadioLink:
    """One direction over a channel of scenario.radio. Who is asked for makes no difference to anybody's
    draws."""

    def __init__(
        self,
        section: LogDistance | Tr38901 | Sidelink,
        direction: str,
        geometry: Geometry,
        seed: int,
        dbm: np.ndarray | None = None,
    ) -> None:
        """`dbm`: each sender's own power, by client, where the section gives none; the server's alone for a
        downlink. None: what a device or a base station usually has."""
        self.section, self.direction, self.geometry, self.seed = section, direction, geometry, seed
        usual = np.full(1, base_station_dbm(section) if direction == "downlink" else DEFAULT_DBM)
        own = usual if dbm is None else dbm
        self.dbm = own if section.transmit_dbm is None else np.full(1, section.transmit_dbm)
        self.efficiency = efficiency(section.rate, section.modulation)
        self.worth = worth(self.efficiency)
        self.coherence_s = 0.423 * LIGHT_MPS / (section.speed_mps * section.frequency_hz)
        figure = section.noise_figure_db if section.noise_figure_db is not None else FIGURE_DB[direction]
        self.noise_dbm_hz = float(noise_dbm(1.0, figure))
        self._of_clients = lru_cache(maxsize=1)(self._at_clients)

    def rates_bps(self, when: When, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
        snr, k = self.mean_snr(when, sender, receiver)
        return np.where(self.reached(snr, 1.0), self.rate_bps(snr, k, 1.0), 0.0)

    def rate_bps(self, snr: np.ndarray, k: np.ndarray, share: np.ndarray | float) -> np.ndarray:
        """The ergodic rate over a share of the band."""
        snr, hz = self._used(snr, share)
        return hz * self.usable * ergodic(self.efficiency, snr, k)

    def reached(self, snr: np.ndarray, share: np.ndarray | float) -> np.ndarray:
        """Whether the mean signal is worth a try at all."""
        least = 0.0 if self.section.outage_db is None else linear(self.section.outage_db)
        return (self.efficiency(self._used(snr, share)[0]) > 0) & (self._over(snr, share) >= least)

    def luck(self, when: When, sends: Sends) -> np.ndarray:
        """How much faster than at its mean rate each transfer is as it fades [n]: 1 for what is so long that
        it has that rate, 0 for what does not reach its receiver."""
        at_mean_s, faded_s = self._on_air_s(when, sends, *self.mean_snr(when, sends.sender, sends.receiver))
        ratio = np.divide(
            at_mean_s, faded_s, out=np.ones(len(faded_s)), where=np.isfinite(faded_s) & (faded_s > 0)
        )
        return np.where(np.isfinite(faded_s), ratio, 0.0)

    def transfers(self, when: When, sends: Sends) -> Transfers:
        """Transfers of one pair in a round fade, are tried and lose blocks each by itself: as if a coherence
        time lay between them, which between short ones in a row it need not. A transfer is lost whose every
        try is below `outage_db`, or of whose blocks one is left after `harq` tries."""
        s = self.section
        snr, k = self.mean_snr(when, sends.sender, sends.receiver)
        time = self._on_air_s(when, sends, snr, k)[1]
        reached = np.isfinite(time)
        lost, tries = ~reached, np.ones(len(time), int)
        if s.outage_db is not None:
            number = sends.number[:, None] * s.attempts + np.arange(s.attempts)
            power = self._power(
                when, "try", k[:, None], sends.sender[:, None], sends.receiver[:, None], number
            )
            weak = self._over(snr, sends.share)[:, None] * power < linear(s.outage_db)
            tries = np.where(weak.all(1), s.attempts, np.argmin(weak, 1) + 1)
            lost = lost | weak.all(1)
        if s.harq is not None:
            sent, left = arq(s.block_error, s.harq)
            blocks = np.ceil(np.where(reached, time, 0.0) / (sent * SLOT_S))
            drawn = uniforms(
                self.seed,
                when.round,
                f"blocks left {self.direction}",
                sends.sender,
                sends.receiver,
                sends.number,
            )
            lost = lost | (drawn < -np.expm1(blocks * np.log1p(-left)))
        on_air_s = time * tries
        sent_s = np.where(reached, on_air_s, 0.0)
        part = sends.share if self.direction == "downlink" else 1.0
        sending_s = allocation.together(sent_s) if s.allocation == "broadcast" else sent_s
        energy = self.power_w(sends.sender, part) * sending_s + s.receive_w * sent_s
        return Transfers(s.latency_s * sends.messages * tries + on_air_s, energy, lost)

    def _on_air_s(
        self, when: When, sends: Sends, snr: np.ndarray, k: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Seconds that one try of each transfer takes at its mean rate, and as it fades [n]; infinite where
        there is no reaching."""
        blocks = self.section.allocation == "blocks"
        if blocks:
            dealt = self._blocks(when, sends, snr, k)
            rate, reached = dealt.mean(1), dealt.any(1)
        else:
            rate, reached = self.rate_bps(snr, k, sends.share), self.reached(snr, sends.share)
        with np.errstate(divide="ignore", invalid="ignore"):
            at_mean = np.where(reached, np.where(sends.nbytes > 0, 8 * sends.nbytes / rate, 0.0), np.inf)
        short = (at_mean > 0) & (at_mean < BLOCKS * self.coherence_s)
        faded = at_mean.copy()
        if short.any():
            few = Sends(*(a[short] for a in sends))
            bps = (
                dealt[short][:, np.arange(2 * BLOCKS) % DRAWS]
                if blocks
                else self._faded(when, few, snr[short], k[short])
            )
            faded[short] = self._block_by_block(8.0 * few.nbytes, bps, rate[short])
        return at_mean, faded

    def power_w(self, sender: np.ndarray, part: np.ndarray | float) -> np.ndarray:
        """Of the sender's radio, where its antenna has this part of its power."""
        return (
            linear(self._dbm(sender) - 30) * part / self.section.amplifier_efficiency + self.section.circuit_w
        )

    def mean_snr(self, when: When, sender: np.ndarray, receiver: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean signal-to-noise-and-interference ratio over the whole band, and the K-factor [n]."""
        s = self.section
        if isinstance(s, Sidelink) or self.direction == "sidelink":
            (loss, k), heard = self._between(when, sender, receiver), 0.0
        else:
            clients = client_of(sender, receiver)
            loss, k, heard = (
                part[clients]
                for part in self._of_clients(when.time_s if self.geometry.cell.mobility else 0.0)
            )
        if s.fading != "model":
            k = np.full(
                loss.shape,
                {"none": np.inf, "rayleigh": 0.0, "rician": float(linear(s.rician_k_db))}[s.fading],
            )
        level = linear(s.interference.dbm) if isinstance(s.interference, Level) else 0.0
        noise_mw = s.bandwidth_hz * linear(self.noise_dbm_hz) + (level + heard)
        return linear(self._dbm(sender) + s.antenna_gain_db - loss) / noise_mw, k

    def _dbm(self, sender: np.ndarray) -> np.ndarray:
        return self.dbm[sender] if len(self.dbm) > 1 else self.dbm[0]

    @property
    def usable(self) -> float:
        """The share of the band that carries what is new."""
        tries, _ = arq(self.section.block_error, self.section.harq or UNTIL_THROUGH)
        return (1 - self.section.overhead) / tries

    def _over(self, snr: np.ndarray, share: np.ndarray | float) -> np.ndarray:
        """A device has all its power for its share of the band, though for no less than a resource block; a
        base station only that share of it."""
        band_hz = self.section.bandwidth_hz
        return snr if self.direction == "downlink" else snr / np.maximum(share, min(1.0, BLOCK_HZ / band_hz))

    def _used(self, snr: np.ndarray, share: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """The signal-to-noise ratio over what is used of a share of the band, and its hertz: who is far sends
        over fewer resource blocks, down to one, where that carries more."""
        hz, over = self.section.bandwidth_hz * np.asarray(share), self._over(snr, share)
        used = np.maximum(over, np.minimum(self.worth, over * hz / BLOCK_HZ))
        return used, hz * np.divide(over, used, out=np.ones(np.broadcast(over, used).shape), where=used > 0)

    def _power(self, when: When, purpose: str, k: np.ndarray, *ids: np.ndarray) -> np.ndarray:
        """The power of a channel of K-factor k and mean 1, for each of the ids."""
        purpose = f"fading {self.direction} {purpose}"
        scattered = np.where(np.isinf(k), 0.0, 1 / (1 + k))
        steady = np.sqrt(1 - scattered)
        in_phase, out_of_it = (normals(self.seed, when.round, f"{purpose} {part}", *ids) for part in "iq")
        power: np.ndarray = (steady + np.sqrt(scattered / 2) * in_phase) ** 2 + scattered / 2 * out_of_it**2
        return power

    def _faded(self, when: When, sends: Sends, snr: np.ndarray, k: np.ndarray) -> np.ndarray:
        """What each of twice BLOCKS coherence times carries of a transfer, as its own fade lets it [n,
        times], in bit/s."""
        used, hz = self._used(snr, sends.share)
        times = sends.number[:, None] * 2 * BLOCKS + np.arange(2 * BLOCKS)
        power = self._power(when, "block", k[:, None], sends.sender[:, None], sends.receiver[:, None], times)
        return hz[:, None] * self.usable * self.efficiency(used[:, None] * power)

    def _block_by_block(self, bits: np.ndarray, bps: np.ndarray, rate: np.ndarray) -> np.ndarray:
        """Seconds of transfers that see only these coherence times; what is left after them goes at the mean
        rate."""
        sent = np.cumsum(bps * self.coherence_s, 1)
        whole = (sent < bits[:, None]).sum(1)  # coherence times that are used up
        row, last = np.arange(len(bits)), np.minimum(whole, bps.shape[1] - 1)
        before = np.where(whole > 0, sent[row, np.maximum(whole - 1, 0)], 0.0)
        rest = np.where(whole < bps.shape[1], bps[row, last], rate)
        seconds: np.ndarray = whole * self.coherence_s + (bits - before) / rest
        return seconds

    def _blocks(self, when: When, sends: Sends, snr: np.ndarray, k: np.ndarray) -> np.ndarray:
        """In each of DRAWS coherence times every resource block, which fades by itself, goes to somebody whom
        it serves well. Bit/s of each [n, draws]."""
        blocks, clients = np.arange(int(self.section.bandwidth_hz // BLOCK_HZ)), sends.client
        hz, bps = self.section.bandwidth_hz * self.usable / len(blocks), np.empty((len(snr), DRAWS))
        for draw in range(DRAWS):
            power = self._power(when, "blocks", k[:, None], clients[:, None], blocks, np.array(draw))
            each = self.efficiency(self._over(snr, 1 / len(snr))[:, None] * power)
            taken = allocation.blocks(each, bps[:, :draw].sum(1) / hz)
            # one more block, and its sender's power is spread thinner
            over = self._over(snr, taken.sum(1) / len(blocks))
            bps[:, draw] = hz * (taken * self.efficiency(over[:, None] * power)).sum(1)
        return bps

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
        blocked = model.blocked(distance, f, normals(self.seed, 0, "vehicle between a pair", *pair))
        loss = np.where(clear, model.clear(distance, f), blocked) + model.shadowing_db * shadow
        return loss, np.where(clear, *linear(np.array(model.k_db)))

    def _at_clients(self, time_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, K-factor, and what is heard of neighbouring cells in mW, of every client's link to the base
        station."""
        s, places = self.section, self.geometry.at(time_s)
        assert not isinstance(s, Sidelink)
        loss, k = path(s, self.geometry.cell, places, self.seed, self.geometry.began)
        around = s.interference
        return (
            loss,
            k,
            self._neighbours(s, around, places) if isinstance(around, Neighbours) else np.zeros(len(places)),
        )

    def _neighbours(self, s: LogDistance | Tr38901, around: Neighbours, places: np.ndarray) -> np.ndarray:
        """Six cells on a hexagon. Downlink: each device hears their base stations. Uplink: the base station
        hears a device in each, which lies there as this cell's own may."""
        cell, heard = self.geometry.cell, np.zeros(len(places))
        angle = np.arange(6) * np.pi / 3
        sites = around.distance_m * np.stack([np.cos(angle), np.sin(angle)], 1)
        if self.direction == "uplink":
            at = (
                cell.placement
                if isinstance(cell.placement, Disc)
                else Disc(kind="disc", radius_m=around.distance_m / 2)
            )
            sites = sites + disc(
                at, *(uniforms(self.seed, 0, f"neighbours {part}", np.arange(6)) for part in "uv")
            )
        for i, site in enumerate(sites):
            seen, began = (
                (site[None], site[None])
                if self.direction == "uplink"
                else (places - site, self.geometry.began)
            )
            loss, _ = path(s, cell, seen, key(self.seed, 0, i, "neighbour") % 2**31, began)
            heard = heard + around.load * linear(self.dbm.mean() + s.antenna_gain_db - loss)
        return heard


def base_station_dbm(section: LogDistance | Tr38901 | Sidelink) -> float:
    """The power of a base station whose scenario names none. Those of TR 38.901 have that of its Table 7.8-1
    (rma, which is not in it, as uma), others that of a macro cell (TR 36.942, Table 4.6)."""
    if not isinstance(section, Tr38901):
        return 46.0 if section.bandwidth_hz > 5e6 else 43.0
    if section.model == "inh":
        return 24.0
    return 35.0 if section.frequency_hz > 6e9 else 44.0 if section.model == "umi" else 49.0


def path(
    section: LogDistance | Tr38901, cell: Cell, places: np.ndarray, seed: int, began: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Loss in dB with shadowing, and K-factor, between a base station at (0, 0) and devices at these places
    [n], which were elsewhere when they `began`. The same both ways."""
    if isinstance(section, Tr38901):
        from fedray.network import sionna

        luck = key(seed, 0, SERVER, "large scale") % 2**31
        loss, k, _ = sionna.large_scale(places, section.model, section.frequency_hz, cell, luck, began)
        return loss, k
    distance = np.hypot(np.linalg.norm(places, axis=1), cell.server_height_m - cell.device_height_m)
    loss = log_distance(section, np.maximum(distance, 1.0))
    return loss + section.shadowing_db * shadowing(places, section.correlation_m, seed), np.zeros(len(places))
