"""Run folders on other file systems (s3://, gs://, hdfs://, abfs://, file://), by pyarrow.fs: a run is
written to this machine, copied up at each checkpoint and at its end, and fetched down by whoever reads it."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from fedray.errors import printable, reason
from fedray.runs import reader
from fedray.scenario import ScenarioError

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
CHUNK = 1 << 22  # bytes copied at a time
# Whose files appear whole when they are closed; elsewhere they are written beside and renamed.
WHOLE = ("s3", "gcs", "abfs")
STATE = "state.json"  # makes a checkpoint whole
RESULT = "result.json"
Stamp = tuple[int, int]  # size in bytes, and when it was changed in nanoseconds


def is_uri(place: object) -> bool:
    """Whether a place is named by a URI, and so is none of this machine's paths."""
    return isinstance(place, str) and URI.match(place) is not None


def without_secrets(text: str) -> str:
    """A URI, or text that contains some, without the names and keys that may stand before their hosts."""
    return printable(re.sub(r"([A-Za-z][A-Za-z0-9+.-]+://)[^/\s]*@", r"\1", text))


def cause(e: Exception) -> str:
    """Why a file system does not do what it is asked to, in a line without secrets."""
    return without_secrets(reason(e))


class Remote:
    """A run folder elsewhere.

    Args:
        uri: as pyarrow.fs.FileSystem.from_uri takes it: s3://bucket/run, s3://bucket/run?region=eu-west-1.

    Raises:
        ScenarioError: for a URI that names no file system, or where that is not there.
    """

    def __init__(self, uri: str) -> None:
        from pyarrow.fs import FileSystem

        self.shown = without_secrets(uri)
        try:
            self.fs, root = FileSystem.from_uri(uri)
        except (OSError, ValueError, NotImplementedError) as e:
            raise self.refused(
                e, "a URI such as s3://bucket/run, with credentials as its libraries have them"
            ) from None
        self.root = root.rstrip("/")
        self.name = PurePosixPath(self.root).name or "run"
        self.sent: dict[str, Stamp] = {}  # what is there, by its name

    def refused(self, e: Exception, expected: str) -> ScenarioError:
        """What is said of a place that does not do what it is asked to; nothing secret is in it."""
        return ScenarioError([f"{self.shown}: got {cause(e)}, expected {expected}"])

    @property
    def place(self) -> str:
        """What names of files are shown behind."""
        return self.shown.partition("?")[0].rstrip("/")

    def files(self) -> dict[str, Any]:
        """What is there: pyarrow's FileInfo by name, relative to the run folder."""
        from pyarrow.fs import FileSelector, FileType

        infos = self.fs.get_file_info(FileSelector(self.root, recursive=True, allow_not_found=True))
        start = len(self.root) + 1
        return {info.path[start:]: info for info in infos if info.type == FileType.File}

    def refuse_taken(self) -> None:
        """Raises ScenarioError where something is there already, or nobody can look."""
        try:
            there = self.files()
        except OSError as e:
            raise self.refused(e, "a place that can be read and written") from None
        if reader.SCENARIO in there:
            got = "a folder that already holds a run"
            raise ScenarioError(
                [f"--out {self.shown}: got {got}, expected a new one (or --resume {self.shown})"]
            )
        if there:
            got = "a folder that holds other files"
            raise ScenarioError([f"--out {self.shown}: got {got}, expected a new or an empty one"])

    def fetch(self) -> Path:
        """The run folder as it is there, in a folder of this machine.

        Raises:
            ScenarioError: where no run is there, or it cannot be read.
        """
        folder = self.staging()
        try:
            return self._fetch_all(folder)
        except BaseException:
            remove(folder)
            raise

    def _fetch_all(self, folder: Path) -> Path:
        try:
            there = self.files()
            if reader.SCENARIO not in there:
                expected = f"one with {reader.SCENARIO}"
                raise ScenarioError([f"{self.shown}: got a folder that holds no run, expected {expected}"])
            for name in there:
                self._fetch(name, folder)
        except OSError as e:
            raise self.refused(e, "a run folder that can be read") from None
        return folder

    def staging(self) -> Path:
        """A new folder of this machine, called as the run."""
        folder = Path(mkdtemp(prefix="fedray-")) / self.name
        folder.mkdir()
        return folder

    def _fetch(self, name: str, folder: Path) -> None:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            raise ScenarioError(
                [printable(f"{self.shown}: got a file called {name!r}, expected a run's own")]
            )
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with self.fs.open_input_stream(f"{self.root}/{name}") as source, file.open("wb") as target:
            shutil.copyfileobj(source, target, CHUNK)
        self.sent[name] = _stamp(file)

    def push(self, folder: Path) -> None:
        """Brings what is new in a run folder there. A kill at any time leaves a run that goes on: lines are
        there before the checkpoint that counts them, a checkpoint's state.json after its other files, and
        older checkpoints are taken away last.

        Raises:
            OSError: where it cannot be written.
        """
        with _snapshot(folder) as files:
            gone = self.sent.keys() - files.keys()
            if RESULT in gone:  # it goes on, and has no result any more
                self._delete(RESULT)
            for name in sorted(files, key=_order):
                try:
                    stamp = _stamp(files[name])
                    if self.sent.get(name) != stamp:
                        self.put(files[name], name)
                        self.sent[name] = stamp
                except (
                    FileNotFoundError
                ):  # it has been replaced in the meantime, and comes with the next push
                    if not files[name].exists():
                        continue
                    raise
            for name in sorted(gone - {RESULT}, key=_order, reverse=True):
                self._delete(name)

    def put(self, file: Path, name: str) -> None:
        """Copies one file there, whole or not at all."""
        target = f"{self.root}/{name}"
        whole = self.fs.type_name in WHOLE
        written = (
            target if whole else f"{self.root}/{PurePosixPath(name).parent}/.{PurePosixPath(name).name}.part"
        )
        if not whole:
            self.fs.create_dir(str(PurePosixPath(target).parent), recursive=True)
        with file.open("rb") as source, self.fs.open_output_stream(written) as out:
            shutil.copyfileobj(source, out, CHUNK)
        if not whole:
            self.fs.move(written, target)

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self.fs.delete_file(f"{self.root}/{name}")
        self.sent.pop(name, None)


def remove(folder: Path) -> None:
    """Takes away a folder of this machine in which a run from elsewhere was staged."""
    shutil.rmtree(folder.parent, ignore_errors=True)


def _order(name: str) -> tuple[int, str]:
    """Lines and models first, then checkpoints, each one's state after all else, and results last."""
    path = PurePosixPath(name)
    if path.name == RESULT:
        return 3 + (len(path.parts) == 1), name
    if "checkpoints" in path.parts:
        return (2 if path.name == STATE else 1), name
    return 0, name


@contextmanager
def _snapshot(folder: Path) -> Iterator[dict[str, Path]]:
    """A run folder's files by name. Checkpoints are held by links, so that none is taken away while it is
    read; what is hidden, half written or a link is not there."""
    with TemporaryDirectory(prefix=".push-", dir=folder.parent) as held:
        files: dict[str, Path] = {}
        for file in sorted(folder.rglob("*")):
            path = file.relative_to(folder)
            if any(part.startswith(".") for part in path.parts) or file.is_symlink() or not file.is_file():
                continue
            name = path.as_posix()
            if "checkpoints" not in path.parts:
                files[name] = file
                continue
            link = Path(held) / str(len(files))
            try:
                os.link(file, link)
            except OSError:  # it is gone, or links are not known here
                link = file
            if link.exists():
                files[name] = link
        yield _whole_checkpoints(files)


def _whole_checkpoints(files: dict[str, Path]) -> dict[str, Path]:
    """Without the files of checkpoints that were being taken away."""
    whole = {str(PurePosixPath(name).parent) for name in files if PurePosixPath(name).name == STATE}

    def stays(name: str) -> bool:
        parents = {str(parent) for parent in PurePosixPath(name).parents}
        return "checkpoints" not in PurePosixPath(name).parts or bool(parents & whole)

    return {name: file for name, file in files.items() if stays(name)}


def _stamp(file: Path) -> Stamp:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
