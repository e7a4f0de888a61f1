"""What it takes to compute: time and energy of a number of floating-point operations, by kind of device."""

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from fedray.network.allocation import best_frequency_hz
from fedray.scenario.device import CpuDevice, DeviceSection, FlopsDevice, Profile
from fedray.scenario.kinds import implementation
from fedray.shipped import devices

DEFAULT_DBM = 23.0  # of a device: power class 3 of 3GPP TS 38.101-1, Table 6.2.1-1


class Device(ABC):
    """A client's device, or the server. A kind of device gives `time_s` and `energy_j`, such as one that
    takes a nanosecond and a nanojoule an operation:

    >>> from fedray.scenario.device import DeviceSection
    >>> class NanoDevice(Device):
    ...     def time_s(self, flops, frequency_hz=None):
    ...         return 1e-9 * flops
    ...
    ...     def energy_j(self, flops, frequency_hz=None):
    ...         return 1e-9 * flops
    >>> NanoDevice(DeviceSection(kind="mine:NanoDevice")).time_s(5e9)
    5.0
    """

    Section: ClassVar[type[DeviceSection]] = DeviceSection
    scales_frequency = False  # whether time and energy depend on a frequency that may be chosen
    frequency_hz = math.inf  # the highest, where it does

    def __init__(self, section: Any) -> None:
        """`section`: of the scenario, a scenario.device.DeviceSection."""
        self.section = section
        self.memory_bytes: float | None = section.memory_bytes
        self.transmit_dbm = DEFAULT_DBM if section.transmit_dbm is None else section.transmit_dbm

    @classmethod
    def of_clients(cls, section: Any, folder: Path, key: str) -> list["Device"]:
        """The devices of all clients: client k has the k-th, and from the beginning again.

        Args:
            section: of the scenario.
            folder: where relative paths start.
            key: of the section.
        """
        return [cls(section)]

    @abstractmethod
    def time_s(self, flops: float, frequency_hz: float | None = None) -> float:
        """Seconds of so many operations, at a lower frequency where one is given."""

    @abstractmethod
    def energy_j(self, flops: float, frequency_hz: float | None = None) -> float:
        """Joules of so many operations, at a lower frequency where one is given."""

    def cycles(self, flops: float) -> float:
        """Of a processor whose frequency may be chosen."""
        raise NotImplementedError(f"{type(self).__name__} does not count cycles")


class RatedDevice(Device):
    """A device of a rate and a power (see scenario.device.FlopsDevice and Profile)."""

    def __init__(self, section: FlopsDevice | Profile) -> None:
        super().__init__(section)
        figures = section.model_dump(include={"peak_flops", "active_w"})
        if isinstance(section, Profile):
            figures = devices()[section.name]
            self.memory_bytes = section.memory_bytes or figures.get("memory_bytes")
        self.flops_per_s = figures["peak_flops"] * section.utilisation
        self.active_w = figures["active_w"]

    def time_s(self, flops: float, frequency_hz: float | None = None) -> float:
        return flops / self.flops_per_s

    def energy_j(self, flops: float, frequency_hz: float | None = None) -> float:
        return self.active_w * self.time_s(flops)


class CycleDevice(Device):
    """A processor counted in cycles (see scenario.device.CpuDevice)."""

    scales_frequency = True

    def __init__(self, section: CpuDevice) -> None:
        super().__init__(section)
        self.frequency_hz = section.frequency_hz
        if section.second_w:
            self.frequency_hz = min(self.frequency_hz, best_frequency_hz(section.second_w, section.kappa))

    def cycles(self, flops: float) -> float:
        return flops / self.section.flops_per_cycle

    def time_s(self, flops: float, frequency_hz: float | None = None) -> float:
        return self.cycles(flops) / (frequency_hz or self.frequency_hz)

    def energy_j(self, flops: float, frequency_hz: float | None = None) -> float:
        return self.section.kappa * self.cycles(flops) * (frequency_hz or self.frequency_hz) ** 2


def open_device(section: DeviceSection) -> Device:
    """The device that a section of the scenario names."""
    device: Device = implementation(section)(section)
    return device
