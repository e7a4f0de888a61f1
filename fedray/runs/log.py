"""run.log: what libraries, Ray and Python's warnings say while a run goes on, kept off the terminal."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path


class _Lines(io.TextIOBase):
    """Standard output or error for whoever prints: Ray prints there what its actors said."""

    def __init__(self) -> None:
        self.log = logging.getLogger("output")
        self.rest = ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in filter(str.strip, lines):
            self.log.warning(line)
        return len(text)


@contextmanager
def logged(file: Path) -> Iterator[None]:
    """Inside, only who holds the real standard output and error can write there."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk shall not hide what filled it
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    others = root.handlers[:]
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    try:
        with redirect_stdout(_Lines()), redirect_stderr(_Lines()):
            yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = others
        handler.close()
