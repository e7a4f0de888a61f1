"""A generator that is fine-tuned before the first round: a run of its own, in its folder in the run's."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from fedray.callbacks import Callback
from fedray.planning.fine_tuning import collect, fine_tuning
from fedray.runs.folder import COLLECTION, RunFolder
from fedray.runs.reader import SCENARIO
from fedray.scenario import Loaded
from fedray.scenario.tune_first import GENERATOR

Run = Callable[[Loaded, RunFolder, Sequence[Callback], bool], dict[str, Any]]


def tune(loaded: Loaded, folder: RunFolder, callbacks: Sequence[Callback], run: Run) -> None:
    """Fine-tunes the generator where the scenario says so and it is not done yet; goes on where it was broken
    off.

    Args:
        loaded: the scenario that it is for.
        folder: of its run.
        callbacks: called as it goes on.
        run: runs a scenario in a folder.
    """
    first = fine_tuning(loaded)
    if first is None:
        return
    own = RunFolder(folder.path / GENERATOR)
    if own.read("result.json") is not None:
        return
    begun = (own.path / SCENARIO).exists()
    collected = collect(loaded)
    if not begun:
        own = RunFolder.create(own.path, first)
    if collected is not None:
        own.write(COLLECTION, collected.row())
        logging.getLogger("fedray").warning(collected.note)  # in run.log, too
        for callback in callbacks:
            callback.on_note(collected.note)
    run(first, own, callbacks, begun)
