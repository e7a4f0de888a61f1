"""What every call of the Python API does: errors in Python's words, callbacks checked, progress shown."""

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fedray.scenario import Loaded, ScenarioError

if TYPE_CHECKING:
    from fedray.callbacks import Callback
    from fedray.runs.folder import RunFolder

# The command line's options in errors, and what Python has in their place.
OPTIONS = (
    (r"^--(set|resume) ", ""),
    (r"^--(out|rounds) ", r"\1="),
    (r"\(or --resume (.+)\)$", r"(or fedray.open('\1').resume())"),
    (r"fedray run \.\.\. --out (.+)\)$", r"fedray.run(..., out='\1'))"),
    (r"--accept-changed-code", "accept_changed_code=True"),
    (r"--(guidance|negative|steps)\b", r"\1"),
    (r"^--dry-run ", "dry_run="),
    (r"^--license ", "license_name="),
)
# huggingface_hub looks for progress bars that need ipywidgets as soon as it is imported in a notebook
warnings.filterwarnings("ignore", message="IProgress not found")


@contextmanager
def python_words() -> Iterator[None]:
    """Inside, errors name no option of the command line."""
    try:
        yield
    except ScenarioError as e:
        raise ScenarioError([_in_python(line) for line in e.problems], e.more) from None


def _in_python(line: str) -> str:
    for pattern, words in OPTIONS:
        line = re.sub(pattern, words, line)
    return line


def execute(
    folder: "RunFolder", loaded: Loaded, callbacks: Sequence["Callback"], progress: bool, resume: bool = False
) -> None:
    """Runs a scenario in its folder.

    Args:
        folder: the run folder.
        loaded: the scenario, checked.
        callbacks: called as the run goes on.
        progress: show it here.
        resume: go on with what the folder holds.

    Raises:
        ScenarioError: before anything trains.
        RunFailed: afterwards; its notes say what to try and where to look.
    """
    from fedray import execution, terminal
    from fedray.failures import RunFailed

    shown = terminal.progress(quiet=not progress)
    try:
        execution.execute(folder, loaded, shown, callbacks, resume)
    except RunFailed as e:
        if e.advice:
            e.add_note(f"what to try: {e.advice}")
        e.add_note(f"see error.json and run.log in {folder.path}")
        e.add_note(f"to go on: fedray.open({os.fspath(folder.path)!r}).resume()")
        raise
    finally:
        shown.close()


def refuse_no_callbacks(callbacks: Any) -> None:
    """Raises TypeError for what is no sequence of callbacks."""
    from fedray.callbacks import Callback

    if not isinstance(callbacks, Sequence):
        raise TypeError(f"callbacks: got a {type(callbacks).__name__}, expected a list of fedray.Callback")
    for one in callbacks:
        if not isinstance(one, Callback):
            got = f"the class {one.__name__}" if isinstance(one, type) else f"a {type(one).__name__}"
            raise TypeError(f"callbacks: got {got}, expected objects of fedray.Callback")
