"""run.log: what libraries, Ray and Python's warnings say while a run goes on, kept off the terminal."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO


class _Lines(io.TextIOBase):
    """Standard output or error for whoever prints: Ray prints there what its actors said.


    Attributes:
        outside: where the caller's own callbacks print (callbacks/dispatch.py).
    """

    def __init__(self, outside: TextIO) -> None:
        self.log = logging.getLogger("output")
        self.rest = ""
        self.outside = outside

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in filter(str.strip, lines):
            self.log.warning(line)
        return len(text)


@contextmanager
def logged(file: Path, out: TextIO, err: TextIO) -> Iterator[None]:
    """Inside, only who holds the real standard output and error can write there.

    Args:
        file: run.log.
        out: where callbacks that were passed from Python print instead.
        err: the same, for their standard error.
    """
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk shall not hide what filled it
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    others = root.handlers[:]
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    try:
        with redirect_stdout(_Lines(out)), redirect_stderr(_Lines(err)):
            yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = others
        handler.close()
