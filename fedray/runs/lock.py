"""One process at a time works on a run; the others are refused, with its name."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from fedray.scenario.load import ScenarioError

LOCK = ".lock"


@contextmanager
def locked(run: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Inside, this process alone works on the run folder. The lock is the system's, on a file that says whose
    it is: it ends with the process, however that ends.

    Raises:
        ScenarioError: where another process has it, or the folder cannot be written, or what is called so is
            no file of a run's.
    """
    file = run / LOCK
    try:
        handle = _take(file)
    except BlockingIOError:
        raise ScenarioError(
            [f"{run}: got a run that {_owner(file)} is working on, expected one that nobody is"]
        ) from None
    except OSError as e:
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise ScenarioError(
                [f"{file}: got a link, or something else that is no file, expected a run's own lock"]
            ) from None
        raise ScenarioError([f"{file}: got {e.strerror}, expected a folder that can be written"]) from None
    if handle is None:
        note(f"{run} lies where files cannot be locked: make sure that no other process works on it")
    try:
        yield
    finally:
        if handle is not None:
            file.unlink(missing_ok=True)
            handle.close()


def _take(file: Path) -> IO[str] | None:
    """The locked file; none where the file system knows no locks."""
    while True:
        handle = open(file, "a+", encoding="utf-8", opener=_no_link)  # noqa: SIM115 (it is held until the run ends)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            handle.close()
            if isinstance(e, BlockingIOError):
                raise
            return None
        if _is_same(handle, file):
            break
        handle.close()  # the process that had it has just ended, and removed the file
    handle.truncate(0)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    handle.write(json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": since}) + "\n")
    handle.flush()
    return handle


def _no_link(file: str, flags: int) -> int:
    """What is behind a link that came with somebody's run folder is not ours to write; a pipe is not waited
    for."""
    return os.open(file, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _is_same(handle: IO[str], file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), file.stat())
    except FileNotFoundError:
        return False


def _owner(file: Path) -> str:
    for _ in range(20):  # the process that has just taken the lock is about to write
        try:
            owner = json.loads(file.read_text(encoding="utf-8"))
            return (
                f"process {int(owner['process'])} on {str(owner['host'])!r} (since"
                f" {str(owner['since'])[:32]})"
            )
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.05)
    return "another process"
