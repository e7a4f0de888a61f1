"""Movement from SUMO's fcd-output (see scenario.cell.Sumo)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from xml.parsers import expat

import numpy as np

from fedray.network.movement import Movement, Reader, Way
from fedray.scenario.base import Refused
from fedray.scenario.cell import Sumo

STEP_SLACK = 0.5  # of a time step, by which one may come later than the first two are apart
FORMAT = "the fcd-output of SUMO, in metres and seconds"
BROKEN_XML = (expat.ExpatError, ValueError, LookupError)  # the last two for its encoding


@dataclass
class Track:
    """What a file has said of a vehicle, a number for each time step."""

    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


class SumoReader(Reader):
    """Reads fcd-output as it comes. Only vehicles are kept that were in every time step so far."""

    section: Sumo

    def __init__(self, section: Sumo, folder: Path, key: str) -> None:
        super().__init__(section, folder, key, FORMAT)
        self.time_s: list[float] = []
        self.tracks: dict[str, Track] = {}
        self.gap: tuple[str, float, int] | None = None  # the first that was away, when, and the step's line
        self.first_line = 0
        self.reads = False  # whether this time step is one of those that are read
        self.step_line = 0
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = self._doctype

    def read(self, clients: int) -> Movement:
        """The movement of so many clients."""
        try:
            with self.file.open("rb") as stream:
                self.parser.ParseFile(stream)
        except OSError as e:
            self.unreadable(e)
        except Refused:
            raise
        except BROKEN_XML as e:
            self.refuse(f"what is no XML ({str(e).partition(':')[0]})", line=self.line)
        if not self.time_s:
            self.refuse("no time step", "at least one from from_s until until_s, of " + FORMAT)
        names = self.section.vehicles or list(self.tracks)[:clients]
        if len(names) < clients:
            self._refuse_few(len(names), clients)
        time_s = np.array(self.time_s) - self.time_s[0]
        ways = [self._way(time_s, self.tracks[name]) for name in names]
        period_s = float(time_s[-1]) if len(time_s) > 1 else float("inf")
        return Movement(self.verified(ways, [f"{name!r}" for name in names]), period_s)

    def _way(self, time_s: np.ndarray, track: Track) -> Way:
        places = np.array([track.x, track.y]).T - self.section.server_m
        return Way(time_s, places, np.array(track.lines))

    def _refuse_few(self, there: int, clients: int) -> NoReturn:
        expected = f"{clients}, one for each client, or other seconds from_s and until_s"
        got = f"{there} vehicles that are in every time step"
        if self.gap is None:
            self.refuse(got, expected)
        name, time_s, line = self.gap
        self.refuse(f"{got} ({name!r} is not at {time_s:g} s, the time step)", expected, line)

    @property
    def line(self) -> int:
        return self.parser.CurrentLineNumber

    def _doctype(self, *_: Any) -> None:
        # with one, XML names other files and grows without bounds
        self.refuse("a document type", "none, as SUMO writes it", self.line)

    def _start(self, element: str, attributes: dict[str, str]) -> None:
        if element == "timestep":
            self._begin_step(self.number(attributes.get("time"), "the time", self.line))
        elif element in ("vehicle", "person") and self.reads:
            self._add(attributes)

    def _begin_step(self, time_s: float) -> None:
        section = self.section
        self.step_line = self.line
        late = section.until_s is not None and time_s > section.until_s
        self.reads = not late and time_s >= (section.from_s or 0.0)
        if not self.reads:
            return
        if self.time_s and time_s <= self.time_s[-1]:
            self.refuse(f"the time {time_s:g} after {self.time_s[-1]:g}", "seconds that rise", self.line)
        if len(self.time_s) > 1:
            step_s = self.time_s[1] - self.time_s[0]
            if time_s - self.time_s[-1] > (1 + STEP_SLACK) * step_s:
                got = f"a gap: the time {time_s:g} after {self.time_s[-1]:g}"
                self.refuse(got, f"a time step every {step_s:g} s", self.line)
        self.first_line = self.first_line or self.line
        self.time_s.append(time_s)

    def _add(self, attributes: dict[str, str]) -> None:
        name = attributes.get("id", "")
        track = self.tracks.get(name)
        if track is None:
            chosen = self.section.vehicles is None or name in self.section.vehicles
            if len(self.time_s) > 1 and chosen:  # it was not there from the beginning
                self.gap = self.gap or (name, self.time_s[0], self.first_line)
            if len(self.time_s) > 1 or not chosen:
                return
            track = self.tracks[name] = Track()
        if len(track.x) == len(self.time_s):
            self.refuse(f"{name!r} for a second time in a time step", "once", self.line)
        track.x.append(self.number(attributes.get("x"), f"x of {name!r}:", self.line))
        track.y.append(self.number(attributes.get("y"), f"y of {name!r}:", self.line))
        track.lines.append(self.line)

    def _end(self, element: str) -> None:
        if element != "timestep" or not self.reads:
            return
        self.reads = False
        wanted = self.section.vehicles or list(self.tracks)
        away = [n for n in wanted if n not in self.tracks or len(self.tracks[n].x) < len(self.time_s)]
        if away and self.section.vehicles is not None:
            got = f"a gap: no {away[0]!r} in the time step {self.time_s[-1]:g}"
            self.refuse(got, "it in each from from_s until until_s", self.step_line)
        for name in away:
            self.gap = self.gap or (name, self.time_s[-1], self.step_line)
            del self.tracks[name]


def read_sumo(section: Sumo, folder: Path, key: str, clients: int) -> Movement:
    """The movement of so many clients that a file of SUMO says.

    Args:
        section: that names it.
        folder: where relative paths start.
        key: of its path.
        clients: of the population.

    Raises:
        Refused: for a file that cannot be read or is none of SUMO's, with a gap in its time steps, or of
            vehicles that are too few, not there all the time, or too near to the server; with the line.
    """
    return SumoReader(section, folder, key).read(clients)
