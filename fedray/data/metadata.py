"""`metadata.jsonl`: captions of the images in its folder and below, and their
condition pictures where there are some, a JSON object a line (Hugging Face's
imagefolder)."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from fedray.data.decode import FORMATS, SUFFIXES, verify_header
from fedray.data.folders import FileBelow, Names, composed
from fedray.errors import reason
from fedray.scenario.base import Refused

NAME = "metadata.jsonl"


@dataclass(frozen=True)
class Keys:
    """What a line calls its values: the caption, and the condition picture, None where there is none."""

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
        try:
            text = self._file.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as e:
            raise Refused(
                self._key, f"{self._file}, which cannot be read: {reason(e)}", "JSON lines in UTF-8"
            ) from None
        by_names: dict[Names, Row] = {}
        lines: dict[Names, int] = {}
        for number, line in enumerate(text.split("\n"), 1):  # splitlines would break a caption at U+2028
            if not line.strip():
                continue
            where = f"{self._file}:{number}"
            name, caption, condition = self._values(where, line)
            names = self._named(where, name)
            if names is None:
                continue
            if names in lines:
                raise Refused(
                    self._key,
                    f"{where}: {_short(name)}, which line {lines[names]} names too",
                    "one line for an image",
                )
            lines[names] = number
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

    def _values(self, where: str, line: str) -> tuple[str, str, str | None]:
        """The names of a line's image, its caption, and of its condition picture where there is to be one."""
        try:
            row = json.loads(line)
        except ValueError as e:
            raise Refused(self._key, f"{where}: {e}", "one JSON object a line") from None
        except RecursionError:
            raise Refused(
                self._key, f"{where}: brackets within brackets, too deep to read", "one JSON object a line"
            ) from None
        keys = self._keys
        values = row if isinstance(row, dict) else {}
        name = values.get("file_name")
        caption = values.get(keys.caption)
        condition = None if keys.condition is None else values.get(keys.condition)
        lacks_condition = keys.condition is not None and not isinstance(condition, str)
        if not isinstance(name, str) or not isinstance(caption, str) or lacks_condition:
            raise Refused(self._key, f"{where}: {line[:60]}", keys.expected())
        try:
            caption.encode()
        except UnicodeEncodeError:
            raise Refused(
                self._key, f"{where}: {line[:60]}", f'whole characters as "{keys.caption}"'
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


def _short(name: str) -> str:
    return repr(name) if len(name) <= 200 else f"{name[:60]!r}... of {len(name)} characters"
