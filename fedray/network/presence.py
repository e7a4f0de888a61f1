"""When each client is there, as a file says (see scenario.recorded.AvailabilityTrace)."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedray.network.recorded import is_number, read
from fedray.scenario.recorded import AvailabilityTrace

ROUNDING_S = 1e-6  # who comes or leaves so soon has come, or left


class Sessions(NamedTuple):
    """Of one device: seconds [session] at which it comes and leaves, and after how many all begins anew."""

    active: np.ndarray
    inactive: np.ndarray
    finish_time: float


class Presence:
    """When the clients of a population are there.

    Args:
        section: of the scenario.
        folder: where relative paths start.
        key: of the section.
    """

    def __init__(self, section: AvailabilityTrace, folder: Path, key: str) -> None:
        self.section = section
        self.devices = read_sessions(section, folder, f"{key}.path")
        self.active = np.concatenate([one.active for one in self.devices])
        self.inactive = np.concatenate([one.inactive for one in self.devices])
        sizes = [len(one.active) for one in self.devices]
        self.first = np.cumsum([0, *sizes[:-1]])  # of each device's sessions
        self.device = np.repeat(np.arange(len(sizes)), sizes)  # of each session
        self.finish_time = np.array([one.finish_time for one in self.devices])

    def there(self, time_s: float, clients: np.ndarray) -> np.ndarray:
        """Which of these clients are there at a second of the run, bool [clients]."""
        now_s = (self._phase(time_s) + ROUNDING_S)[self.device]
        within = (self.active <= now_s) & (now_s < self.inactive)
        there: np.ndarray = np.logical_or.reduceat(within, self.first)[clients % len(self.devices)]
        return there

    def next_s(self, time_s: float, clients: np.ndarray) -> float:
        """The first second, from this one on, at which one of these clients is there."""
        if not len(clients) or self.there(time_s, clients).any():
            return time_s
        waits_s = self.active - self._phase(time_s)[self.device]
        waits_s = np.where(waits_s < 0, waits_s + self.finish_time[self.device], waits_s)
        least_s = np.minimum.reduceat(waits_s, self.first)[clients % len(self.devices)]
        return time_s + float(least_s.min())

    def leaves_s(self, time_s: float, client: int) -> float:
        """The second of the run at which a client leaves that is there at this one; this one where it is not;
        infinite for one that always is."""
        device = client % len(self.devices)
        active, inactive, finish_time = self.devices[device]
        phase_s = float(self._phase(time_s)[device])
        session = int(np.searchsorted(active, phase_s + ROUNDING_S, side="right")) - 1
        if session < 0 or phase_s + ROUNDING_S >= inactive[session]:
            return time_s
        left_s = float(inactive[session]) - phase_s
        if inactive[session] == finish_time and active[0] == 0:  # where all begins anew, it stays
            left_s += math.inf if len(active) == 1 else float(inactive[0])
        return time_s + left_s

    def _phase(self, time_s: float) -> np.ndarray:
        """Seconds since each device's file began, the last time [device]."""
        return np.mod(self.section.start_s + time_s, self.finish_time)


def verify(section: AvailabilityTrace, folder: Path, key: str, clients: int) -> None:
    """That a file says when its devices are there.

    Args:
        section: that names it.
        folder: where relative paths start.
        key: of its path.
        clients: how many there are, of which each has one of the file's devices.

    Raises:
        Refused: as read_sessions.
    """
    read_sessions(section, folder, key)


def read_sessions(section: AvailabilityTrace, folder: Path, key: str) -> tuple[Sessions, ...]:
    """A file's devices, in its order.

    Args:
        section: that names it.
        folder: where relative paths start.
        key: of its path.

    Raises:
        Refused: for a file that cannot be read, and for sessions without an end, out of order, or beyond
            finish_time, with the device.
    """
    return read(section.path, folder, key, _sessions)


def _sessions(entry: dict[str, Any]) -> Sessions:
    finish_time = entry.get("finish_time")
    if not is_number(finish_time) or finish_time <= 0:
        raise ValueError(f"finish_time {finish_time!r}, expected a number of seconds above 0")
    seconds = []
    for name in ("active", "inactive"):
        values = entry.get(name)
        if not isinstance(values, list) or not values or not all(map(is_number, values)):
            raise ValueError(f"{name} {str(values)[:40]}, expected a list of seconds")
        seconds.append(np.array(values, float))
    active, inactive = seconds
    if len(active) != len(inactive):
        got = f"{len(active)} active and {len(inactive)} inactive"
        raise ValueError(f"{got}, expected an inactive for each active")
    edges = np.column_stack([active, inactive]).ravel()
    back = np.flatnonzero(np.diff(edges) < 0)
    if len(back) or edges[0] < 0 or edges[-1] > finish_time:
        at = edges[back[0] + 1] if len(back) else edges[0] if edges[0] < 0 else edges[-1]
        expected = f"seconds from 0 to finish_time, {finish_time:g}, that rise: active, inactive, active, ..."
        raise ValueError(f"{at:g}, expected {expected}")
    sessions = np.column_stack([active, inactive])[active < inactive]
    if not len(sessions):
        raise ValueError("no session longer than 0 s, expected one at least")
    apart = sessions[1:, 0] > sessions[:-1, 1]  # one that comes as it leaves has stayed
    begins = sessions[np.append(True, apart), 0]
    return Sessions(begins, sessions[np.append(apart, True), 1], float(finish_time))
