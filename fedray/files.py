"""Files that are written whole or not at all, and errors that name theirs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Whatever goes wrong with writing in here names the file: the system names none where a disk is full."""
    try:
        yield
    except OSError as e:
        raise OSError(e.errno, e.strerror or str(e), str(e.filename or file)) from None


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A place beside a file to write it to, which takes the file's own once all is there. Of one that fails
    nothing is left."""
    part = file.with_name(f".{file.name}.part")
    try:
        with naming(file):
            part.unlink(missing_ok=True)  # a link there would lead the writing elsewhere
            yield part
            part.replace(file)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_whole(file: Path, text: str) -> None:
    """A text file in UTF-8."""
    with whole(file) as part:
        part.write_text(text, encoding="utf-8")


def write_synced(file: Path, data: bytes) -> None:
    """Bytes that are on the disk when this is done."""
    with naming(file), file.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
