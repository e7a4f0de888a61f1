"""Instructions: conversations in JSON lines."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fedray.data.conversations import Conversation, Conversations
from fedray.data.folders import composed
from fedray.data.instruction_forms import Unfit, conversation
from fedray.data.named_files import named_files
from fedray.data.places import located
from fedray.data.samples import DatasetInfo, Split
from fedray.data.source import Source
from fedray.errors import printable, reason, shortened
from fedray.scenario.base import Refused
from fedray.scenario.instructions import Instructions
from fedray.scenario.plugins import did_you_mean

SUFFIX = ".jsonl"
LINES = "one JSON object a line"
VALUES = "a text or a whole number in each line"


@dataclass(frozen=True)
class Reading:
    """How lines are read.

    Attributes:
        key: the scenario's that led to the files.
        given: what becomes of an Alpaca line's input.
        category: the key of a line that says its label; None: its file.
        column: the key of a line that says whose it is; None: its file or first folder.
    """

    key: str
    given: str
    category: str | None = None
    column: str | None = None

    @property
    def columns(self) -> dict[str, str]:
        """The keys that each line has beside its conversation, each with the scenario's that names it."""
        named = {self.column: "data.partition.column", self.category: "data.category"}
        return {name: key for name, key in named.items() if name is not None}


@dataclass(frozen=True)
class Place:
    """A file of instructions: where it lies, whose it is, and when it was changed."""

    file: Path
    name: str  # below the root, without .jsonl
    owner: str
    changed_ns: int


class InstructionsSource(Source):
    """Conversations in files, all of them in one place or at sites. `open` raises Refused for files that are
    missing, and for lines that are no conversations, by file and line."""

    section: Instructions

    def open(self, split: Split) -> Conversations:
        section = self.section
        if section.test is not None and split == "test":
            places = self._places(section.test, "data.test", False)
            test = _read(places, Reading("data.test", section.input, section.category))
            return _labelled_as(test, self.train.label_names)
        partition = section.partition
        places = self._places(section.path, "data.path", partition.by_folder)
        samples = _read(places, Reading("data.path", section.input, section.category, partition.by_column))
        if partition.by_label and section.category is None and len(samples.label_names) == 1:
            got = f"none for partition {partition.kind}, and one file"
            raise Refused("data.category", got, "the key of a line that says its category")
        if not section.held_out_share:
            return samples
        kept, held_out = _split(samples, section.held_out_share)
        return _at(samples, kept if split == "train" else held_out)

    def open_at_site(self, site: str) -> tuple[Conversations, Mapping[int, np.ndarray]]:
        section = self.section
        assert section.sites is not None
        at_site = section.sites[site]
        key = f"data.sites.{site}.path"
        closed = [name for each in section.sites.values() for name in each.folders]
        places = self._places(at_site.path or section.path, key, True, at_site.folders, closed)
        owners = {place.owner for place in places}
        if missing := [name for name in at_site.folders if composed(name) not in owners]:
            expected = f"a folder with *{SUFFIX} in it, or a file of this name and {SUFFIX}"
            raise Refused(key, f"no conversations of {missing[0]!r}", expected)
        samples = _read(places, Reading(key, section.input))
        groups = np.asarray(samples.groups)
        clients = section.clients_at_sites()[site]
        return samples, {
            client: np.flatnonzero(groups == composed(name))
            for client, name in zip(clients, at_site.folders, strict=True)
        }

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo(0, None, self.train.label_names)

    def _places(
        self,
        path: str,
        key: str,
        clients: bool,
        only: Sequence[str] | None = None,
        closed: Sequence[str] = (),
    ) -> tuple[Place, ...]:
        """The files that a path leads to (see `named_files`).

        Raises:
            Refused: where there are none.
        """
        root = located(path, self.folder, key)
        if not root.exists() or (root.is_file() and only is not None):
            raise Refused(
                key, repr(path), f"a folder of *{SUFFIX} files" + (", or one" if only is None else "")
            )
        if root.is_file():
            return (Place(root, root.stem, root.stem, root.stat().st_mtime_ns),)
        files = named_files(root, key, SUFFIX, clients, only, closed)
        if not files and only is None:
            raise Refused(key, f"{str(root)!r} without instructions", f"files *{SUFFIX} in it")
        return tuple(
            Place(below.file, name, name.split("/")[0], below.file.stat().st_mtime_ns)
            for name, below in files.items()
        )


def _labelled_as(samples: Conversations, names: Sequence[str]) -> Conversations:
    """The same with labels into these names, and behind them those that they lack."""
    known = [*names, *(name for name in samples.label_names if name not in names)]
    numbers = np.array([known.index(name) for name in samples.label_names], np.int64)
    return replace(samples, labels=numbers[samples.labels], label_names=known)


@lru_cache(maxsize=4)  # every evaluation asks again; files that have changed are read again
def _read(places: tuple[Place, ...], reading: Reading) -> Conversations:
    """Every conversation in these files."""
    conversations: list[Conversation] = []
    columns: dict[str, list[str | int]] = {name: [] for name in reading.columns}
    sizes = []
    for place in places:
        before = len(conversations)
        for where, row in _rows(place.file, reading.key):
            try:
                conversations.append(conversation(row, reading.given))
            except Unfit as e:
                raise Refused(reading.key, f"{where}: {e.got}", e.expected) from None
            for name, key in reading.columns.items():
                columns[name].append(_value(row, name, key, where))
        sizes.append(len(conversations) - before)
        if not sizes[-1]:
            raise Refused(reading.key, f"{place.file} without conversations", LINES)
    files = np.repeat(np.arange(len(places)), sizes)
    labels = files
    names = [place.name for place in places]
    groups = [places[k].owner for k in files]
    if reading.category is not None:
        labels, names = _labels(columns[reading.category])
    if reading.column is not None:
        groups = [str(value) for value in columns[reading.column]]
    return Conversations(conversations, labels, names, groups, columns)


def _labels(values: Sequence[str | int]) -> tuple[np.ndarray, list[str]]:
    """Labels [n] of what lines say, and what they are called, in the order of texts or of numbers."""
    names = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    number = {name: k for k, name in enumerate(names)}
    return np.array([number[value] for value in values], np.int64), [str(name) for name in names]


def _rows(file: Path, key: str) -> Iterator[tuple[str, Any]]:
    """What a file's lines say, each with its place.

    Raises:
        Refused: for a file that cannot be read, and a line that is no JSON.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise Refused(key, f"{file}, which cannot be read: {reason(e)}", "JSON lines in UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would break a text at U+2028
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            yield where, json.loads(line)
        except RecursionError:
            raise Refused(key, f"{where}: brackets within brackets, too deep to read", LINES) from None
        except ValueError as e:
            raise Refused(key, f"{where}: no JSON ({e})", LINES) from None


def _value(row: Mapping[str, Any], name: str, key: str, where: str) -> str | int:
    """What a line says in a column.

    Args:
        row: what the line says.
        name: of the column.
        key: the scenario's that names it.
        where: the line's file and number.
    """
    if name not in row:
        keys = ", ".join(shortened(printable(key), 40) for key in list(row)[:8])
        expected = did_you_mean(name, row) or VALUES
        raise Refused(key, f"{name!r}, which {where} lacks (it has {keys})", expected)
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int):
        got = {float: "a float", bool: "true or false", type(None): "null"}.get(
            type(value), "no single value"
        )
        raise Refused(key, f"{name!r}, which is {got} in {where}", VALUES)
    return value


def _split(samples: Conversations, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of those to train on, and of those to test on, both ascending. Of each group, and in it of
    each label, as near as can be the same share is held out, and never all of a group. What is said decides
    which: neither the order of lines nor a seed does.

    Args:
        samples: all of them.
        share: that is held out, in 0..1.

    Raises:
        Refused: where no group is large enough.
    """
    said = [hashlib.blake2b(part, digest_size=8).digest() for part in samples.contents()]
    order = sorted(range(len(samples)), key=lambda i: (samples.groups[i], samples.labels[i], said[i], i))
    held_out = np.zeros(len(samples), bool)
    groups: dict[str, list[int]] = {}
    for i in order:
        groups.setdefault(samples.groups[i], []).append(i)
    for indices in groups.values():
        count = min(round(len(indices) * share), len(indices) - 1)
        # the middle of each of `count` equal parts
        chosen = (np.arange(count) * 2 + 1) * len(indices) // max(2 * count, 1)
        held_out[np.array(indices)[chosen]] = True
    if not held_out.any():
        largest = max(map(len, groups.values()))
        expected = (
            f"more: of the most that a client's file has, {largest}, none would be held out; or data.test"
        )
        raise Refused("data.held_out", f"{share:g}", expected)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _at(samples: Conversations, indices: np.ndarray) -> Conversations:
    """Those samples of these indices."""

    def chosen(values: Sequence[Any]) -> list[Any]:
        return [values[i] for i in indices]

    return replace(
        samples,
        conversations=chosen(samples.conversations),
        labels=samples.labels[indices],
        groups=chosen(samples.groups),
        columns={name: chosen(values) for name, values in samples.columns.items()},
    )
