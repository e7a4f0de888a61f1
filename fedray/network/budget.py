"""The link budget: power, antennas, path and noise make a mean signal-to-noise ratio."""

from functools import lru_cache

import numpy as np

from fedray.network.devices import DEFAULT_DBM
from fedray.network.geometry import Geometry, disc
from fedray.network.links import LinkContext, RoundStart, link_client
from fedray.network.propagation import SIDELINK_MODELS, log_distance, shadowing
from fedray.network.rates import linear, noise_dbm
from fedray.randomness import SERVER_ID, key, normals, uniforms
from fedray.scenario.band import RadioBand
from fedray.scenario.cell import Cell, Disc
from fedray.scenario.radio import Level, LogDistance, Neighbours, Sidelink, Tr38901

RadioSection = LogDistance | Tr38901 | Sidelink
# of a base station, of a device
NOISE_FIGURE_DB = {"uplink": 5.0, "downlink": 9.0, "sidelink": 9.0}


class LinkBudget:
    """Mean signal-to-noise ratios of one direction over a channel of scenario.network. Which pairs are
    computed together makes no difference to any pair's draws."""

    def __init__(self, section: RadioSection, context: LinkContext) -> None:
        assert context.geometry is not None, "a radio channel depends on where clients are"
        self.section = section
        self.direction = context.direction
        self.seed = context.seed
        self.geometry: Geometry = context.geometry
        self.transmit_dbm = sender_dbm(section, context)
        self.thermal_mw = total_noise_mw(section, context.direction)
        self._paths_at = lru_cache(maxsize=1)(self._paths_of_clients)

    def mean_snr(
        self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mean signal-to-noise-and-interference ratio over the whole band, and the K-factor [n]."""
        section = self.section
        if isinstance(section, Sidelink) or self.direction == "sidelink":
            loss, k = self._paths_between(start, sender, receiver)
            neighbours_mw = 0.0
        else:
            clients = link_client(sender, receiver)
            time_s = start.time_s if self.geometry.moves else 0.0
            loss, k, neighbours_mw = (values[clients] for values in self._paths_at(time_s))
        if section.fading != "model":
            factors = {"none": np.inf, "rayleigh": 0.0, "rician": float(linear(section.rician_k_db))}
            k = np.full(loss.shape, factors[section.fading])
        level_mw = linear(section.interference.dbm) if isinstance(section.interference, Level) else 0.0
        noise_mw = self.thermal_mw + (level_mw + neighbours_mw)
        return linear(self.sender_dbm(sender) + section.antenna_gain_db - loss) / noise_mw, k

    def cells(self, start: RoundStart, clients: np.ndarray) -> np.ndarray:
        return np.zeros(clients.shape, np.int64)

    def sender_dbm(self, sender: np.ndarray) -> np.ndarray:
        return self.transmit_dbm[sender] if len(self.transmit_dbm) > 1 else self.transmit_dbm[0]

    def _paths_between(
        self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Loss in dB and K-factor of pairs of devices [n]. A pair's draws are the same both ways, and in
        every round."""
        section = self.section
        sender, receiver = np.broadcast_arrays(sender, receiver)
        positions = self.geometry.at(start.time_s)
        distance = np.maximum(np.linalg.norm(positions[sender] - positions[receiver], axis=1), 1.0)
        pair = np.minimum(sender, receiver), np.maximum(sender, receiver)
        shadow = normals(self.seed, 0, "shadowing of a pair", *pair)
        assert not isinstance(section, Tr38901)
        if isinstance(section, LogDistance):
            return log_distance(section, distance) + section.shadowing_db * shadow, np.zeros(distance.shape)
        model = SIDELINK_MODELS[section.model]
        f = section.frequency_hz / 1e9
        los = uniforms(self.seed, 0, "sight of a pair", *pair) < model.los_probability(distance)
        vehicle = normals(self.seed, 0, "vehicle between a pair", *pair)
        nlos_db = model.path_loss_nlos(distance, f, vehicle)
        loss = np.where(los, model.path_loss_los(distance, f), nlos_db) + model.shadowing_db * shadow
        return loss, np.where(los, *linear(np.array(model.k_db)))

    def _paths_of_clients(self, time_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss in dB, K-factor, and the power of neighbouring cells in mW, of every client's link to the base
        station."""
        section = self.section
        positions = self.geometry.at(time_s)
        assert not isinstance(section, Sidelink)
        loss, k = cell_path(
            section, self.geometry.cell, positions, self.seed, self.geometry.initial_positions
        )
        around = section.interference
        if isinstance(around, Neighbours):
            return loss, k, self._neighbours_mw(section, around, positions)
        return loss, k, np.zeros(len(positions))

    def _neighbours_mw(
        self, section: LogDistance | Tr38901, around: Neighbours, positions: np.ndarray
    ) -> np.ndarray:
        """Six cells on a hexagon. Downlink: each device receives their base stations. Uplink: the base
        station receives a device in each, which lies there as this cell's own may."""
        cell = self.geometry.cell
        received_mw = np.zeros(len(positions))
        angle = np.arange(6) * np.pi / 3
        sites = around.distance_m * np.stack([np.cos(angle), np.sin(angle)], 1)
        if self.direction == "uplink":
            placement = cell.placement
            if not isinstance(placement, Disc):
                placement = Disc(kind="disc", radius_m=around.distance_m / 2)
            draws = (uniforms(self.seed, 0, f"neighbours {part}", np.arange(6)) for part in "uv")
            sites = sites + disc(placement, *draws)
        for i, site in enumerate(sites):
            if self.direction == "uplink":
                seen = site[None]
                initial = site[None]
            else:
                seen = positions - site
                initial = self.geometry.initial_positions
            seed = key(self.seed, 0, i, "neighbour") % 2**31
            loss, _ = cell_path(section, cell, seen, seed, initial)
            power_mw = linear(self.transmit_dbm.mean() + section.antenna_gain_db - loss)
            received_mw = received_mw + around.load * power_mw
        return received_mw


def total_noise_mw(section: RadioBand, direction: str) -> float:
    """Thermal noise over the whole band, with the receiver's noise figure."""
    figure_db = section.noise_figure_db
    if figure_db is None:
        figure_db = NOISE_FIGURE_DB[direction]
    return float(section.bandwidth_hz * linear(float(noise_dbm(1.0, figure_db))))


def sender_dbm(section: RadioBand, context: LinkContext) -> np.ndarray:
    """Each sender's power, or one for all: the link's own, the device's, or what is usual."""
    if section.transmit_dbm is not None:
        return np.full(1, section.transmit_dbm)
    if context.transmit_dbm is not None:
        return context.transmit_dbm
    return np.full(1, base_station_dbm(section) if context.direction == "downlink" else DEFAULT_DBM)


def base_station_dbm(section: RadioBand) -> float:
    """The power of a base station whose scenario names none. Those of TR 38.901 have that of its Table 7.8-1
    (rma, which is not in it, as uma), others that of a macro cell (TR 36.942, Table 4.6)."""
    if not isinstance(section, Tr38901):
        return 46.0 if section.bandwidth_hz > 5e6 else 43.0
    if section.model == "inh":
        return 24.0
    if section.frequency_hz > 6e9:
        return 35.0
    return 44.0 if section.model == "umi" else 49.0


def cell_path(
    section: LogDistance | Tr38901,
    cell: Cell,
    positions: np.ndarray,
    seed: int,
    initial_positions: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss in dB with shadowing, and K-factor [n], between a base station at (0, 0) and devices. The same
    both ways.

    Args:
        section: the channel.
        cell: heights.
        positions: of the devices [n, 2], in metres.
        seed: of the draws.
        initial_positions: where the devices were first [n, 2].
    """
    if isinstance(section, Tr38901):
        from fedray.network import sionna

        draws = key(seed, 0, SERVER_ID, "large scale") % 2**31
        loss, k, _ = sionna.large_scale(
            positions, section.model, section.frequency_hz, cell, draws, initial_positions
        )
        return loss, k
    distance = np.hypot(np.linalg.norm(positions, axis=1), cell.server_height_m - cell.device_height_m)
    loss = log_distance(section, np.maximum(distance, 1.0))
    shadow = shadowing(positions, section.correlation_m, seed)
    return loss + section.shadowing_db * shadow, np.zeros(len(positions))
