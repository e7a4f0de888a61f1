"""Devices and rates that were recorded for each client, in a file of FedScale's form as JSON (see
scenario.recorded). Files are data: nothing in them is run."""

import json
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, TypeVar

import numpy as np

from fedray.data.places import located
from fedray.network.devices import Device
from fedray.network.fixed import ConstantRateLink
from fedray.network.links import LinkContext, RoundStart, link_client
from fedray.scenario.base import Refused
from fedray.scenario.recorded import RecordedDevice as DeviceSection
from fedray.scenario.recorded import RecordedLink

Entry = TypeVar("Entry")
DEVICES = "an object of devices by name, or a list of them"


class Capacity(NamedTuple):
    """Of one device: the first as milliseconds a sample, the second in kilobits a second."""

    computation: float
    communication: float


class RecordedDevice(Device):
    """One client's device.

    Args:
        section: of the scenario.
        capacity: of the device.
    """

    def __init__(self, section: DeviceSection, capacity: Capacity) -> None:
        super().__init__(section)
        self.flops_per_s = section.flops_per_sample / (capacity.computation / 1000)

    @classmethod
    def of_clients(cls, section: DeviceSection, folder: Path, key: str) -> list[Device]:
        return [cls(section, one) for one in read_capacities(section.path, folder, f"{key}.path")]

    def time_s(self, flops: float, frequency_hz: float | None = None) -> float:
        return flops / self.flops_per_s

    def energy_j(self, flops: float, frequency_hz: float | None = None) -> float:
        active_w: float = self.section.active_w
        return active_w * self.time_s(flops)


class RecordedRateLink(ConstantRateLink):
    """A constant rate for each client (see scenario.recorded.RecordedLink); that of a hop between two clients
    is its sender's."""

    section: RecordedLink

    def __init__(self, section: RecordedLink, context: LinkContext) -> None:
        super().__init__(section, context)
        capacities = read_capacities(section.path, context.folder, f"{context.key}.path")
        self.rate_bps = np.array([1000 * one.communication for one in capacities])

    def rates_bps(self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
        rates: np.ndarray = self.rate_bps[link_client(sender, receiver) % len(self.rate_bps)]
        return rates


def verify_capacities(section: DeviceSection | RecordedLink, folder: Path, key: str, clients: int) -> None:
    """That a file says how fast its devices are.

    Args:
        section: that names it.
        folder: where relative paths start.
        key: of its path.
        clients: how many there are, of which each has one of the file's devices.

    Raises:
        Refused: as read_capacities.
    """
    read_capacities(section.path, folder, key)


def read_capacities(path: str, folder: Path, key: str) -> tuple[Capacity, ...]:
    """A file's devices, in its order.

    Args:
        path: as the scenario names it.
        folder: where relative paths start.
        key: of the path.

    Raises:
        Refused: for a file that cannot be read, and for what is no number above 0, with its device.
    """
    return read(path, folder, key, _capacity)


def _capacity(entry: dict[str, Any]) -> Capacity:
    values = []
    for name in Capacity._fields:
        value = entry.get(name)
        if not is_number(value) or value <= 0:
            raise ValueError(f"{name} {value!r}, expected a number above 0")
        values.append(float(value))
    return Capacity(*values)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read(path: str, folder: Path, key: str, entry: Callable[[dict[str, Any]], Entry]) -> tuple[Entry, ...]:
    """What a JSON file says of each of its devices.

    Args:
        path: as the scenario names it.
        folder: where relative paths start.
        key: of the path.
        entry: makes it of an object, or raises ValueError with what it got and expects.

    Raises:
        Refused: for a file that cannot be read, and for what `entry` refuses, with its device.
    """
    try:
        file = located(path, folder, key)
        stat = file.stat()
        devices = _parsed(file, (stat.st_mtime_ns, stat.st_size))
    except (OSError, UnicodeDecodeError) as e:
        got = f"{path!r}, which cannot be read ({getattr(e, 'strerror', None) or e})"
        raise Refused(key, got, f"a JSON file of {DEVICES}") from None
    except (ValueError, RecursionError) as e:
        raise Refused(key, f"{path!r}: {e}", DEVICES) from None
    return tuple(_entries(devices, path, key, entry))


def _entries(
    devices: list[tuple[str, Any]], path: str, key: str, entry: Callable[[dict[str, Any]], Entry]
) -> Iterator[Entry]:
    for name, device in devices:
        try:
            if not isinstance(device, dict):
                raise ValueError(f"{str(device)[:40]!r}, expected an object")
            yield entry(device)
        except ValueError as e:
            got, _, expected = str(e).partition(", expected ")
            raise Refused(key, f"{got} of device {name[:40]!r} in {path!r}", expected) from None


@lru_cache(maxsize=4)
def _parsed(file: Path, version: tuple[int, int]) -> list[tuple[str, Any]]:
    """Devices with their names. `version` changes when the file does: several keys may name it."""
    value = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(value, dict | list) or not value:
        raise ValueError(f"{str(value)[:40]!r}")
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return [(str(name), device) for name, device in pairs]
