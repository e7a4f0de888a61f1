"""A run whose folder is elsewhere: what it writes on this machine is copied up while it goes on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedray.failures import RunFailed
from fedray.runs.remote import Remote, cause

INTERVAL_S = 1.0  # how often a new checkpoint is looked for


@contextmanager
def mirrored(remote: Remote | None, folder: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Inside, every new checkpoint in a run folder is copied up, and afterwards all that is new.

    Args:
        remote: where to; None: nowhere.
        folder: the run's on this machine.
        note: shows a person a text.

    Raises:
        RunFailed: where the end cannot be copied up; the folder on this machine has it.
    """
    if remote is None:
        yield
        return
    ended = threading.Event()
    copier = threading.Thread(target=_copy, args=(remote, folder, note, ended), daemon=True)
    copier.start()
    try:
        yield
    except BaseException:
        _end(copier, ended)
        try:
            remote.push(folder)
        except OSError as e:  # what stopped the run is worth more
            note(f"{remote.shown}: not copied up ({cause(e)}); the run is in {folder}")
        raise
    _end(copier, ended)
    try:
        remote.push(folder)
    except OSError as e:
        message = f"{remote.shown}: got {cause(e)}, expected a place that can be written"
        raise RunFailed(message, f"the run itself is in {folder}: copy it, or resume it there") from e


def _end(copier: threading.Thread, ended: threading.Event) -> None:
    ended.set()
    copier.join()


def _copy(remote: Remote, folder: Path, note: Callable[[str], None], ended: threading.Event) -> None:
    """Until the run has ended."""
    copied: set[str] = set()
    failing = False
    while not ended.wait(INTERVAL_S):
        there = {str(state) for state in folder.glob("**/checkpoints/round-*/state.json")}
        if there <= copied:
            continue
        try:
            remote.push(folder)
            copied = there
            failing = False
        except OSError as e:
            if not failing:
                note(f"{remote.shown}: not copied up yet ({cause(e)}); the run goes on in {folder}")
            failing = True
