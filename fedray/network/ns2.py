"""Movement from ns-2 files (see scenario.cell.Ns2)."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedray.network.movement import Movement, Reader, Way
from fedray.scenario.cell import Ns2

FORMAT = "an ns-2 movement file"
NODE = r"\$node_\((\d+)\)"
SET = re.compile(rf"\s*{NODE}\s+set\s+([XY])_\s+(\S+?)\s*(;.*)?$")
SETDEST = re.compile(rf'\s*\$\w+\s+at\s+(\S+)\s+"{NODE}\s+setdest\s+(\S+)\s+(\S+)\s+(\S+)\s*"\s*(;.*)?$')
MOVES = re.compile(r"\bsetdest\b|\bset\s+[XY]_")  # what has to be understood


class Command(NamedTuple):
    """A node that sets out, at a second, for a place, at metres per second."""

    time_s: float
    x: float
    y: float
    speed_mps: float
    line: int


class Ns2Reader(Reader):
    """Reads the commands of a movement file."""

    section: Ns2

    def __init__(self, section: Ns2, folder: Path, key: str) -> None:
        super().__init__(section, folder, key, FORMAT)
        self.first: dict[tuple[int, str], tuple[float, int]] = {}  # by node and axis, with the line
        self.commands: dict[int, list[Command]] = {}

    def read(self, clients: int) -> Movement:
        """The movement of so many clients."""
        try:
            with self.file.open(encoding="utf-8") as stream:
                for line, text in enumerate(stream, 1):
                    self._line(text.rstrip("\n"), line)
        except (OSError, UnicodeDecodeError) as e:
            self.unreadable(e)
        if not self.first and not self.commands:
            self.refuse("no node", f"{FORMAT}, with set X_, set Y_ and setdest of $node_(0)")
        ways = [self._way(node) for node in range(clients)]
        return Movement(self.verified(ways, [f"$node_({node})" for node in range(clients)]))

    def _line(self, text: str, line: int) -> None:
        if text.lstrip().startswith("#") or not MOVES.search(text):
            return
        if found := SET.match(text):
            node, axis, value = found.group(1, 2, 3)
            self.first[int(node), axis] = self.number(value, f"{axis}_ of $node_({node}):", line), line
        elif found := SETDEST.match(text):
            time_s, x, y, speed_mps = (self.number(found[i], "the number", line) for i in (1, 3, 4, 5))
            if min(time_s, speed_mps) < 0:
                self.refuse(f"the second {time_s:g} and the speed {speed_mps:g}", "0 or more", line)
            command = Command(time_s, x, y, speed_mps, line)
            self.commands.setdefault(int(found[2]), []).append(command)
        else:
            expected = 'numbers: $node_(0) set X_ 1.5, or $ns_ at 2.0 "$node_(0) setdest 9.0 4.5 1.2"'
            self.refuse(repr(text.strip()[:80]), expected, line)

    def _way(self, node: int) -> Way:
        for axis in "XY":
            if (node, axis) not in self.first:
                expected = f"$node_({node}) set {axis}_ with a number: where client {node} is at first"
                commands = self.commands.get(node)
                self.refuse(f"no {axis}_ of $node_({node})", expected, commands[0].line if commands else None)
        x, line = self.first[node, "X"]
        y, _ = self.first[node, "Y"]
        commands = sorted(self.commands.get(node, []), key=lambda command: command.time_s)
        times, places, lines = zip(*_legs((x, y), line, commands), strict=True)
        return Way(np.array(times), np.array(places) - self.section.server_m, np.array(lines))


def _legs(
    place: tuple[float, float], line: int, commands: Sequence[Command]
) -> Iterator[tuple[float, tuple[float, float], int]]:
    """Where a node is when it sets out, turns and arrives: seconds, place, line."""
    yield 0.0, place, line
    for i, command in enumerate(commands):
        if command.time_s > 0:
            yield command.time_s, place, command.line
        until_s = commands[i + 1].time_s if i + 1 < len(commands) else float("inf")
        way = np.subtract((command.x, command.y), place)
        length = float(np.hypot(*way))
        if length == 0 or command.speed_mps == 0:
            continue
        arrives_s = command.time_s + length / command.speed_mps
        part = min(1.0, (until_s - command.time_s) / (arrives_s - command.time_s))
        place = (command.x, command.y) if part == 1.0 else tuple((np.array(place) + part * way).tolist())
        if arrives_s < until_s:
            yield arrives_s, place, command.line


def read_ns2(section: Ns2, folder: Path, key: str, clients: int) -> Movement:
    """The movement of so many clients that an ns-2 file says.

    Args:
        section: that names it.
        folder: where relative paths start.
        key: of its path.
        clients: of the population.

    Raises:
        Refused: for a file that cannot be read, in which a client's node is missing or has no first place,
            numbers are none, or a way leads too near to the server; with the line.
    """
    return Ns2Reader(section, folder, key).read(clients)
