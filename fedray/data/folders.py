"""The files below a folder: links within it are followed, loops of them cut, and what systems leave behind is
passed over."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedray.errors import reason
from fedray.scenario.base import Refused

# beside hidden names: by macOS, Windows, file systems, Synology's and QNAP's stations
LEFT_BEHIND = frozenset(
    {
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "@eadir",
        "#recycle",
        "#snapshot",
        "@recycle",
        "@__thumb",
    }
)
# by which links may lead to one folder: n folders that link to each other have n! ways through them
WAYS = 100

Names = tuple[str, ...]


@dataclass(frozen=True)
class FileBelow:
    """A file below a root."""

    file: Path  # as it is reached from there
    names: Names  # its folders' below the root, and its own, in Unicode's composed form (NFC)
    real: str  # where it lies, once links are followed
    link: Path | None  # the last link on the way to it


@dataclass(frozen=True)
class _Folder:
    path: str
    names: Names
    real: str
    link: Path | None
    within: tuple[str, ...]  # the real folders that were entered on the way, itself among them


class Walk:
    """One walk over the files below a root; no file is opened, and only links and folders are looked up on
    the disk.

    Args:
        root: a folder, itself maybe a link.
        key: the scenario's key that named it.
        wanted: whether a file of this name matters. A link that leads astray is refused only where it does.
        only: of the root's folders, the ones to enter, also where they are hidden; None for all that are not.
        closed: the root's folders that no link may lead into from another.
    """

    def __init__(
        self,
        root: Path,
        key: str,
        wanted: Callable[[str], bool],
        only: Sequence[str] | None = None,
        closed: Collection[str] = (),
    ) -> None:
        self._root = root
        self._key = key
        self._wanted = wanted
        self._only = None if only is None else {composed(name) for name in only}
        self._closed = {composed(name) for name in closed}
        self._real_root = os.path.realpath(root)
        self._ways: Counter[str] = Counter()

    def files(self) -> list[FileBelow]:
        """All of them, sorted by their names.

        Raises:
            Refused: naming the link that leads nowhere, out of the root or into a closed folder; the folder
                that cannot be listed, or whose name is no UTF-8; two names that read the same.
        """
        files = []
        pending = [_Folder(str(self._root), (), self._real_root, None, (self._real_root,))]
        while pending:
            folder = pending.pop()
            for entry, names in self._entries(folder):
                link = folder.link
                real = os.path.join(folder.real, entry.name)
                if entry.is_symlink():
                    link = Path(entry.path)
                    real = os.path.realpath(entry.path)
                    if not self._leads_within(entry, names, real):
                        continue
                if entry.is_dir():
                    if real in folder.within:
                        continue  # a loop
                    self._nameable(entry)
                    self._count(real, link)
                    pending.append(_Folder(entry.path, names, real, link, (*folder.within, real)))
                elif entry.is_file():
                    files.append(FileBelow(Path(entry.path), names, real, link))
                elif self._wanted(entry.name):
                    raise Refused(self._key, f"{entry.path}, which is neither a file nor a folder", "files")
        return sorted(files, key=lambda f: f.names)

    def _entries(self, folder: _Folder) -> Iterator[tuple[os.DirEntry[str], Names]]:
        """What is to be looked at in a folder, in the order of its names."""
        try:
            with os.scandir(folder.path) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as e:
            raise Refused(
                self._key, f"{folder.path}, which cannot be listed: {reason(e)}", "folders that open"
            ) from None
        seen: dict[str, str] = {}
        for entry in entries:
            name = composed(entry.name)
            named = not folder.names and self._only is not None and name in self._only
            passed_over = hidden(name) or (
                not folder.names and self._only is not None and not self._wanted(name)
            )
            if passed_over and not named:
                continue
            if name in seen:
                got = f"{seen[name]!a} and {entry.name!a} in {folder.path}, which read the same"
                raise Refused(self._key, got, "names that differ in more than how Unicode composes them")
            seen[name] = entry.name
            yield entry, (*folder.names, name)

    def _leads_within(self, link: os.DirEntry[str], names: Names, real: str) -> bool:
        """Whether to follow a link; not where it leads astray and nothing of its name matters."""
        if not os.path.exists(real):
            raise Refused(
                self._key,
                f"{link.path}, a link to {os.readlink(link.path)}, which leads nowhere",
                "links to what is there",
            )
        inside = real == self._real_root or real.startswith(self._real_root.rstrip(os.sep) + os.sep)
        if not inside and (os.path.isdir(real) or self._wanted(link.name)):
            expected = f"links that stay within {self._root}, or what they lead to in their place"
            raise Refused(self._key, f"{link.path}, a link to {real}", expected)
        top = composed(os.path.relpath(real, self._real_root).split(os.sep)[0])
        if inside and top in self._closed and top != names[0]:
            raise Refused(
                self._key,
                f"{link.path}, a link into {top}, which is another client's",
                "links that stay with their client",
            )
        return inside

    def _nameable(self, folder: os.DirEntry[str]) -> None:
        """Refuses a folder in another encoding: its name is a client's or a label, which reports write in
        UTF-8."""
        try:
            folder.name.encode()
        except UnicodeEncodeError:
            raise Refused(
                self._key, f"a folder of the name {os.fsencode(folder.path)!r}", "folders' names in UTF-8"
            ) from None

    def _count(self, real: str, link: Path | None) -> None:
        if link is None:
            return
        self._ways[real] += 1
        if self._ways[real] > WAYS:
            got = f"{link}, by which links lead to {real} in more than {WAYS} ways"
            raise Refused(self._key, got, "folders that do not link to each other")


def refuse_shared(files: Sequence[FileBelow], owner: Callable[[FileBelow], str], key: str) -> None:
    """Raises Refused, naming the link, where two owners would hold one file."""
    first: dict[str, FileBelow] = {}
    for file in files:
        other = first.setdefault(file.real, file)
        if owner(other) != owner(file):
            link = other.link if file.link is None else file.link
            got = f"{link}, a link by which {owner(other)!r} and {owner(file)!r} both hold {file.real}"
            raise Refused(key, got, "links that stay with their client: each folder is one")


def hidden(name: str) -> bool:
    """Whether a file or folder is a system's own, which a person does not see."""
    return name.startswith(".") or name.casefold() in LEFT_BEHIND


def composed(name: str) -> str:
    """A name in NFC: macOS stores letters and their accents apart, and most others do not."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
