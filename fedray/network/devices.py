"""What it takes to compute: time and energy of a number of floating-point operations."""

from functools import cached_property

import numpy as np

from fedray.network.allocation import energy_frequency_hz
from fedray.randomness import uniforms
from fedray.scenario.device import ComputeDevice, CpuDevice, Device, Mix, Profile
from fedray.shipped import devices

DEFAULT_DBM = 23.0  # of a device: power class 3 of 3GPP TS 38.101-1, Table 6.2.1-1


class Processor:
    """A device with its figures (see scenario.device)."""

    def __init__(self, section: ComputeDevice) -> None:
        self.section = section
        if isinstance(section, CpuDevice):
            free = (
                energy_frequency_hz(section.second_w, section.kappa)
                if section.second_w
                else section.frequency_hz
            )
            self.frequency_hz = min(section.frequency_hz, free)
            self.memory_bytes = section.memory_bytes
        else:
            figures = (
                devices()[section.name]
                if isinstance(section, Profile)
                else section.model_dump(include={"peak_flops", "active_w"})
            )
            self.flops_per_s, self.active_w = figures["peak_flops"] * section.utilisation, figures["active_w"]
            self.memory_bytes = section.memory_bytes or figures.get("memory_bytes")
        self.transmit_dbm = DEFAULT_DBM if section.transmit_dbm is None else section.transmit_dbm

    def cycles(self, flops: float) -> float:
        assert isinstance(self.section, CpuDevice)
        return flops / self.section.flops_per_cycle

    def time_s(self, flops: float, frequency_hz: float | None = None) -> float:
        if isinstance(self.section, CpuDevice):
            return self.cycles(flops) / (frequency_hz or self.frequency_hz)
        return flops / self.flops_per_s

    def energy_j(self, flops: float, frequency_hz: float | None = None) -> float:
        if isinstance(self.section, CpuDevice):
            return self.section.kappa * self.cycles(flops) * (frequency_hz or self.frequency_hz) ** 2
        return self.active_w * self.time_s(flops)


class Devices:
    """Every client's device."""

    def __init__(self, section: Device, clients: int, seed: int) -> None:
        self.clients, self.seed = clients, seed
        parts = (
            [(part.device, part.share) for part in section.of]
            if isinstance(section, Mix)
            else [(section, 1.0)]
        )
        self.kinds, self.shares = (
            [Processor(device) for device, _ in parts],
            np.array([share for _, share in parts]),
        )

    @cached_property
    def kind_of(self) -> np.ndarray:
        """Which of the kinds each client's is."""
        drawn = uniforms(self.seed, 0, "device", np.arange(self.clients))
        return np.searchsorted(np.cumsum(self.shares / self.shares.sum())[:-1], drawn, side="right")

    @property
    def transmit_dbm(self) -> np.ndarray:
        """Of each client's radio; one number where all are of a kind."""
        each = np.array([kind.transmit_dbm for kind in self.kinds])
        return each[self.kind_of] if len(each) > 1 else each

    def __getitem__(self, client: int) -> Processor:
        return self.kinds[self.kind_of[client]] if len(self.kinds) > 1 else self.kinds[0]

    def available(self, round: int, clients: np.ndarray) -> np.ndarray:
        """Those that can be asked in this round."""
        return clients[self._happens(round, clients, "availability")]

    def drops(self, round: int, clients: np.ndarray) -> dict[int, float]:
        """Those that vanish within their turn, with how much of it they have done by then."""
        gone = clients[self._happens(round, clients, "dropout")]
        return dict(
            zip(gone.tolist(), uniforms(self.seed, round, "dropped after", gone).tolist(), strict=True)
        )

    def _happens(self, round: int, clients: np.ndarray, what: str) -> np.ndarray:
        chances = np.array([getattr(kind.section, what) for kind in self.kinds])
        mine = chances[self.kind_of[clients]] if len(self.kinds) > 1 else chances[0]
        return uniforms(self.seed, round, what, clients) < mine
