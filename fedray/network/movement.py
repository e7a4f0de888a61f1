"""Where devices are over time, as files of traffic simulators say. Files are data: nothing in them is run,
and no other file is opened for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from fedray.data.places import located
from fedray.scenario.base import Refused
from fedray.scenario.cell import RecordedMovement


class Way(NamedTuple):
    """Where one device is [k, 2], in metres from the server, at rising seconds [k], and the lines [k] that
    say so. It goes straight from each to the next, and stays at the last."""

    time_s: np.ndarray
    places: np.ndarray
    lines: np.ndarray


@dataclass
class Movement:
    """The ways of all clients.

    Attributes:
        ways: of each.
        period_s: after which they begin anew; infinite for never.
    """

    ways: list[Way]
    period_s: float = float("inf")

    def at(self, time_s: float) -> np.ndarray:
        """Where they are at a second of the run [clients, 2]."""
        phase_s = time_s % self.period_s
        return np.array(
            [[np.interp(phase_s, way.time_s, axis) for axis in way.places.T] for way in self.ways]
        )


class Reader:
    """What both formats have in common.

    Args:
        section: that names the file.
        folder: where relative paths start.
        key: of its path.
        format: what is expected.
    """

    def __init__(self, section: RecordedMovement, folder: Path, key: str, format: str) -> None:
        self.path = section.path
        self.section = section
        self.file = located(section.path, folder, key)
        self.key = key
        self.format = format

    def refuse(self, got: str, expected: str = "", line: int | None = None) -> NoReturn:
        """Raises Refused with the file and the line."""
        where = f"line {line} of {self.path!r}" if line is not None else repr(self.path)
        raise Refused(self.key, f"{got} in {where}", expected or self.format)

    def unreadable(self, error: OSError | UnicodeDecodeError) -> NoReturn:
        got = f"{self.path!r}, which cannot be read ({getattr(error, 'strerror', None) or error})"
        raise Refused(self.key, got, self.format) from None

    def number(self, text: str | None, what: str, line: int) -> float:
        try:
            value = float(text or "")
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            self.refuse(f"{what} {text!r}", "a number", line)
        return value

    def verified(self, ways: Sequence[Way], names: Sequence[str]) -> list[Way]:
        """The ways, none of which leads nearer to the server than `least_m`."""
        for way, name in zip(ways, names, strict=True):
            passed_m = _passed_m(way.places)
            if (passed_m < self.section.least_m).any():
                i = int(np.argmax(passed_m < self.section.least_m))
                got = f"{name} {passed_m[i]:.3g} m from the server"
                expected = f"at least least_m, {self.section.least_m:g}; the server stands at server_m"
                self.refuse(got, expected, int(way.lines[i]))
        return list(ways)


def _passed_m(places: np.ndarray) -> np.ndarray:
    """How near to (0, 0) the way from each place to the next leads, and the last place is [k]."""
    way = np.diff(places, axis=0, append=places[-1:])
    length = (way * way).sum(1)
    part = np.divide(-(places * way).sum(1), length, out=np.zeros(len(places)), where=length > 0)
    return np.linalg.norm(places + np.clip(part, 0.0, 1.0)[:, None] * way, axis=1)
