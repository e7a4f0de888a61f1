"""What a path of a scenario may lead to: regular files and folders of them, and not so many that nobody could
look at all."""

import os
import stat
from functools import cache
from pathlib import Path

from fedray import shipped
from fedray.scenario.base import Refused

MOST_ENTRIES = 1_000_000  # files and folders under a data folder


def unfit(place: Path) -> str | None:
    """Why a place cannot be read: a device or a pipe, the root of all files, a folder of the system's or of
    too many files. None for what can, and for what is not there."""
    try:
        mode = place.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as e:
        return f"which cannot be looked at ({getattr(e, 'strerror', None) or e})"
    if stat.S_ISDIR(mode):
        if place.resolve() == Path(place.resolve().anchor):
            return "the root of all files"
        return _unbounded(place)
    return None if stat.S_ISREG(mode) else "a device or a pipe"


def _unbounded(folder: Path) -> str | None:
    """Whether going through a folder would end, and where not. Links are not followed."""
    pending = [os.fspath(folder)]
    count = 0
    while pending:
        current = pending.pop()
        try:
            if os.stat(current).st_dev in _pseudo():
                return (
                    f"which has {current} in it, no folder of files"
                    if current != os.fspath(folder)
                    else "no folder of files"
                )
            with os.scandir(current) as entries:
                for entry in entries:
                    count += 1
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except OSError:
            continue  # whoever opens it says what is wrong with it
        if count > MOST_ENTRIES:
            return f"which has more than {MOST_ENTRIES:,} files and folders in it"
    return None


@cache
def _pseudo() -> frozenset[int]:
    """Devices of the folders in which a system shows itself: /proc, /sys and /dev."""
    return frozenset(os.stat(place).st_dev for place in ("/proc", "/sys", "/dev") if os.path.ismount(place))


def located(path: str, folder: Path, key: str) -> Path:
    """What a scenario's key names, relative to its folder or as shipped:NAME, whether it is there or not.

    Raises:
        Refused: for a NAME that does not ship, and for what is there but neither a file nor a folder of
            files.
    """
    try:
        place = shipped.resolve(path, folder)
    except FileNotFoundError as e:
        raise Refused(key, repr(path), str(e)) from None
    if (got := unfit(place)) is not None:
        raise Refused(key, f"{path!r}, {got}", "a regular file, or a folder of them")
    return place


def verify_file(path: str, folder: Path, key: str) -> None:
    """Raises Refused where a scenario's key names no file."""
    if not located(path, folder, key).is_file():
        raise Refused(key, repr(path), "a file")


def verify_exists(path: str, folder: Path, key: str) -> None:
    """Raises Refused where a scenario's key names neither a file nor a folder."""
    if not located(path, folder, key).exists():
        raise Refused(key, repr(path), "a file or a folder that is there")
