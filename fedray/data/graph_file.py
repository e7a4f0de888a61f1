"""Who is whose neighbour, from a file (see scenario.graph_file). Files are data: nothing in them is
run, and no other file is opened for them."""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from fedray.data.places import located
from fedray.scenario.base import Refused
from fedray.scenario.graph_file import GraphFile

Neighbours = dict[int, tuple[int, ...]]  # of each client those that the file has it send to, sorted
LINES = "lines of clients: one, then those that it sends to, such as 0 1"
OBJECT = 'an object of lists by client, such as {"0": [1, 2]}, or a list of pairs'


def read_graph(section: GraphFile, folder: Path, key: str, clients: int) -> Neighbours:
    """Whom each client of a population sends to, as a file says.

    Args:
        section: that names it.
        folder: where relative paths start.
        key: of its path.
        clients: of the population.

    Raises:
        Refused: for a file that cannot be read, and for what is no client's number, with the line.
    """
    file = located(section.file, folder, key)
    try:
        stat = file.stat()
        return dict(_read(file, (stat.st_mtime_ns, stat.st_size), section.file, key, clients))
    except (OSError, UnicodeDecodeError) as e:
        got = f"{section.file!r}, which cannot be read ({getattr(e, 'strerror', None) or e})"
        raise Refused(key, got, LINES) from None


@lru_cache(maxsize=4)
def _read(file: Path, version: tuple[int, int], path: str, key: str, clients: int) -> Neighbours:
    """Arguments as of _Reader, and what changes when the file does: a run asks in every round."""
    text = file.read_text(encoding="utf-8")
    reader = _Reader(path, key, clients)
    return reader.object(text) if file.suffix == ".json" else reader.lines(text)


class _Reader:
    """Reads a file's text.

    Args:
        path: as the scenario names it.
        key: of the path.
        clients: how many there are.
    """

    def __init__(self, path: str, key: str, clients: int) -> None:
        self.path = path
        self.key = key
        self.clients = clients
        self.receivers: dict[int, set[int]] = {client: set() for client in range(clients)}

    def lines(self, text: str) -> Neighbours:
        """Of text or CSV: a client, then those that it sends to. What follows a # is a remark, and so is a
        first line of names."""
        for number, line in enumerate(text.splitlines(), 1):
            fields = re.split(r"[\s,;]+", line.split("#", 1)[0].strip(" \t,;"))
            if fields == [""] or (number == 1 and all(re.fullmatch(r"[^\W\d]\w*", f) for f in fields)):
                continue
            sender, *receivers = (self._client(field, f"line {number}") for field in fields)
            for receiver in receivers:
                self._add(sender, receiver, f"line {number}")
        return self._graph()

    def object(self, text: str) -> Neighbours:
        """Of JSON: lists by client, or pairs."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as e:
            self._refuse(f"{e}", OBJECT)
        pairs: list[tuple[Any, Any]] = []
        if isinstance(value, dict) and all(isinstance(v, list) for v in value.values()):
            pairs = [(sender, receiver) for sender, receivers in value.items() for receiver in receivers]
        elif isinstance(value, list) and all(isinstance(v, list) and len(v) == 2 for v in value):
            pairs = [(sender, receiver) for sender, receiver in value]
        else:
            self._refuse(f"{str(value)[:40]!r}", OBJECT)
        for sender, receiver in pairs:
            where = f"the neighbours of {sender}"
            self._add(self._client(sender, where), self._client(receiver, where), where)
        return self._graph()

    def _client(self, value: Any, where: str) -> int:
        text = str(value)
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) >= self.clients:
            expected = f"the number of a client, from 0 to {self.clients - 1} (population.clients)"
            self._refuse(f"{text[:40]!r} in {where}", expected)
        return int(text)

    def _add(self, sender: int, receiver: int, where: str) -> None:
        if sender == receiver:
            self._refuse(f"client {sender} as its own neighbour in {where}", "another client")
        self.receivers[sender].add(receiver)

    def _graph(self) -> Neighbours:
        return {sender: tuple(sorted(receivers)) for sender, receivers in self.receivers.items()}

    def _refuse(self, got: str, expected: str) -> NoReturn:
        raise Refused(self.key, f"{got} of {self.path!r}", expected)
