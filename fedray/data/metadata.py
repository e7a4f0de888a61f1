"""`metadata.jsonl`: captions of the images in its folder and below, a JSON object a line (Hugging Face's
imagefolder)."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath

from fedray.data.decode import FORMATS, SUFFIXES, verify_header
from fedray.data.folders import FileBelow, Names, composed
from fedray.errors import reason
from fedray.scenario.base import Refused

NAME = "metadata.jsonl"


def captions(
    metadata: Sequence[FileBelow],
    files: Mapping[Names, FileBelow],
    key: str,
    caption_key: str,
    only: Collection[str] | None,
) -> dict[Names, str]:
    """The caption of every file that a line names. Of several the nearest to a file says what it shows.

    Args:
        metadata: the files to read, each about its own folder and what is below.
        files: all files there are, by their names below the root.
        key: the scenario's key that named the root.
        caption_key: what a line calls its caption.
        only: of the root's folders, the ones that are read; lines about others are left out.

    Raises:
        Refused: naming file and line, where a line is no such object, names no image below its folder, or one
            twice.
    """
    by_names: dict[Names, str] = {}
    for file in sorted(metadata, key=lambda f: len(f.names)):
        by_names |= _Lines(file, files, key, caption_key, only).captions()
    return by_names


class _Lines:
    """Those of one file."""

    def __init__(
        self,
        file: FileBelow,
        files: Mapping[Names, FileBelow],
        key: str,
        caption_key: str,
        only: Collection[str] | None,
    ) -> None:
        self._file = file.file
        self._folder = file.names[:-1]
        self._files = files
        self._key = key
        self._caption_key = caption_key
        self._only = only if not self._folder else None

    def captions(self) -> dict[Names, str]:
        try:
            text = self._file.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as e:
            raise Refused(
                self._key, f"{self._file}, which cannot be read: {reason(e)}", "JSON lines in UTF-8"
            ) from None
        by_names: dict[Names, str] = {}
        lines: dict[Names, int] = {}
        for number, line in enumerate(text.split("\n"), 1):  # splitlines would break a caption at U+2028
            if not line.strip():
                continue
            where = f"{self._file}:{number}"
            name, caption = self._row(where, line)
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
            by_names[names] = caption
        return by_names

    def _row(self, where: str, line: str) -> tuple[str, str]:
        try:
            row = json.loads(line)
        except ValueError as e:
            raise Refused(self._key, f"{where}: {e}", "one JSON object a line") from None
        except RecursionError:
            raise Refused(
                self._key, f"{where}: brackets within brackets, too deep to read", "one JSON object a line"
            ) from None
        name, caption = (
            (row.get("file_name"), row.get(self._caption_key)) if isinstance(row, dict) else (None, None)
        )
        if not isinstance(name, str) or not isinstance(caption, str):
            raise Refused(
                self._key, f"{where}: {line[:60]}", f'{{"file_name": ..., "{self._caption_key}": ...}}'
            )
        try:
            caption.encode()
        except UnicodeEncodeError:
            raise Refused(
                self._key, f"{where}: {line[:60]}", f'whole characters as "{self._caption_key}"'
            ) from None
        return name, caption

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
