"""`metadata.jsonl`, `.csv` or `.parquet`: captions of the images in its folder and below, and their
condition pictures where there are some, an image a row (Hugging Face's imagefolder)."""

import csv
import io
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fedray.data.decode import FORMATS, SUFFIXES, verify_header
from fedray.data.folders import FileBelow, Names, composed
from fedray.errors import reason
from fedray.scenario.base import Refused

NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


@dataclass(frozen=True)
class Keys:
    """What a row calls its values: the caption, and the condition picture, None where there is none."""

    caption: str
    condition: str | None = None

    def expected(self) -> str:
        """A line as it should be."""
        names = [name for name in ("file_name", self.caption, self.condition) if name is not None]
        return "{" + ", ".join(f'"{name}": ...' for name in names) + "}"


@dataclass(frozen=True)
class Row:
    """What a line says of its image."""

    caption: str
    condition: FileBelow | None = None


def rows(
    metadata: Sequence[FileBelow],
    files: Mapping[Names, FileBelow],
    key: str,
    keys: Keys,
    only: Collection[str] | None,
) -> dict[Names, Row]:
    """What the lines say of every file that one names. Of several the nearest to a file counts.

    Args:
        metadata: the files to read, each about its own folder and what is below.
        files: all files there are, by their names below the root.
        key: the scenario's key that named the root.
        keys: what a line calls its values.
        only: of the root's folders, the ones that are read; lines about others are left out.

    Raises:
        Refused: naming file and line, where a line is no such object, names no image below its folder, or one
            twice.
    """
    by_names: dict[Names, Row] = {}
    folders: dict[Names, FileBelow] = {}
    for file in metadata:
        other = folders.setdefault(file.names[:-1], file)
        if other is not file:
            raise Refused(key, f"{other.file} and {file.names[-1]} beside it", "one of them")
    for file in sorted(metadata, key=lambda f: len(f.names)):
        by_names |= _Lines(file, files, key, keys, only).rows()
    return by_names


class _Lines:
    """Those of one file."""

    def __init__(
        self,
        file: FileBelow,
        files: Mapping[Names, FileBelow],
        key: str,
        keys: Keys,
        only: Collection[str] | None,
    ) -> None:
        self._file = file.file
        self._folder = file.names[:-1]
        self._files = files
        self._key = key
        self._keys = keys
        self._only = only if not self._folder else None

    def rows(self) -> dict[Names, Row]:
        by_names: dict[Names, Row] = {}
        lines: dict[Names, str] = {}
        for place, values, shown in _READ[self._file.suffix](self._file, self._key):
            where = f"{self._file}:{place}"
            name, caption, condition = self._values(where, values, shown)
            names = self._named(where, name)
            if names is None:
                continue
            if names in lines:
                raise Refused(
                    self._key,
                    f"{where}: {_short(name)}, which line {lines[names]} names too",
                    "one line for an image",
                )
            lines[names] = place
            picture = None
            if condition is not None:
                picture = self._condition(where, condition)
            by_names[names] = Row(caption, picture)
        return by_names

    def _condition(self, where: str, name: str) -> FileBelow:
        names = self._named(where, name)
        if names is None:
            expected = "a picture in one of the folders that are read"
            raise Refused(self._key, f"{where}: {_short(name)}, which is in none of them", expected)
        return self._files[names]

    def _values(self, where: str, row: Any, shown: str) -> tuple[str, str, str | None]:
        """The names of a row's image, its caption, and of its condition picture where there is to be one.

        Args:
            where: file and row.
            row: what it says, by column; anything else is refused.
            shown: the same in a message.
        """
        keys = self._keys
        values = row if isinstance(row, dict) else {}
        name = values.get("file_name")
        caption = values.get(keys.caption)
        condition = None if keys.condition is None else values.get(keys.condition)
        lacks_condition = keys.condition is not None and not isinstance(condition, str)
        if not isinstance(name, str) or not isinstance(caption, str) or lacks_condition:
            raise Refused(self._key, f"{where}: {shown[:60]}", keys.expected())
        try:
            caption.encode()
        except UnicodeEncodeError:
            raise Refused(
                self._key, f"{where}: {shown[:60]}", f'whole characters as "{keys.caption}"'
            ) from None
        return name, caption, condition

    def _named(self, where: str, name: str) -> Names | None:
        """The names of a line's file below the root, or None where its folder is not read."""
        path = PurePosixPath(composed(name))
        if path.is_absolute() or ".." in path.parts:
            expected = f"a name below {self._file.parent}, without '..'"
            raise Refused(self._key, f"{where}: {_short(name)}, which leads out of its folder", expected)
        if self._only is not None and path.parts[:1] and path.parts[0] not in self._only:
            return None
        names = (*self._folder, *path.parts)
        if names not in self._files:
            got = f"{where}: {_short(name)}, which {self._what_is_wrong(name)}"
            raise Refused(self._key, got, f"an image in {self._file.parent}")
        file = self._files[names].file
        if file.suffix.lower() not in SUFFIXES:
            try:
                verify_header(file)
            except ValueError as e:
                raise Refused(self._key, f"{where}: {e}", f"one of {', '.join(FORMATS)}") from None
        return names

    def _what_is_wrong(self, name: str) -> str:
        place = os.path.join(self._file.parent, name)
        if os.path.isdir(place):
            return "is a folder"
        return "is hidden, or a link that is not followed" if os.path.exists(place) else "is missing"


Read = Iterator[tuple[str, Any, str]]  # of each row its place, what it says by column, and how that is shown


def text_of(file: Path, key: str, expected: str) -> str:
    """A file's text; raises Refused where it is none in UTF-8.

    Args:
        file: to be read.
        key: the scenario's, that led to it.
        expected: of the file, in the message.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise Refused(key, f"{file}, which cannot be read: {reason(e)}", f"{expected} in UTF-8") from None


def _json_lines(file: Path, key: str) -> Read:
    text = text_of(file, key, "JSON lines")
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would break a caption at U+2028
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as e:
            raise Refused(key, f"{file}:{number}: {e}", "one JSON object a line") from None
        except RecursionError:
            got = f"{file}:{number}: brackets within brackets, too deep to read"
            raise Refused(key, got, "one JSON object a line") from None
        yield str(number), row, line


def _comma_separated(file: Path, key: str) -> Read:
    """The first line names the columns."""
    text = text_of(file, key, "comma-separated values")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as e:
            raise Refused(key, f"{file}:{reader.line_num + 1}: {e}", "comma-separated values") from None
        if row is None:
            return
        yield str(reader.line_num), row, str({k: v for k, v in row.items() if v is not None})


def _parquet(file: Path, key: str) -> Read:
    from pyarrow.lib import ArrowException
    from pyarrow.parquet import read_table

    try:
        rows = read_table(file).to_pylist()
    except (ArrowException, OSError) as e:
        raise Refused(key, f"{file}, which cannot be read: {reason(e)}", "a parquet file") from None
    for number, row in enumerate(rows, 1):
        yield str(number), row, str(row)


_READ = {".jsonl": _json_lines, ".csv": _comma_separated, ".parquet": _parquet}


def _short(name: str) -> str:
    return repr(name) if len(name) <= 200 else f"{name[:60]!r}... of {len(name)} characters"
