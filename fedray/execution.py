"""A run from its folder to its report, for the command line and Python: create or reopen, then execute."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedray import checks, engine, executors, mirror, sweep, tune_first
from fedray.callbacks import Callback
from fedray.failures import failure
from fedray.report import page, tables
from fedray.resume import finished, refuse_changed_code, refuse_edited, reopened
from fedray.runs import reader
from fedray.runs.folder import RunFolder, new_path, unwritable
from fedray.runs.log import logged
from fedray.runs.remote import Remote, is_uri, remove
from fedray.scenario import Loaded
from fedray.terminal import Quiet


def create(loaded: Loaded, out: str | os.PathLike[str] | None = None) -> RunFolder:
    """The folder of a new run of a scenario that was checked, once Ray answers where it is needed."""
    executors.refuse_silent_ray(loaded.scenario)
    if isinstance(out, str) and is_uri(out):
        return _create_elsewhere(loaded, Remote(out))
    path = Path(out) if out is not None else new_path(loaded.scenario.name)
    return RunFolder.create(path, loaded)


def _create_elsewhere(loaded: Loaded, remote: Remote) -> RunFolder:
    """A new run whose folder is elsewhere, and on this machine while it runs."""
    remote.refuse_taken()
    folder = RunFolder.create(remote.staging(), loaded)
    folder.remote = remote
    try:
        remote.push(folder.path)
    except OSError as e:
        remove(folder.path)
        raise remote.refused(e, "a place that can be written") from None
    return folder


def opened(place: str | os.PathLike[str], option: str = "") -> RunFolder:
    """The folder of a run, of this machine or fetched from elsewhere; `option` is the command line's."""
    if isinstance(place, str) and is_uri(place):
        remote = Remote(place)
        folder = RunFolder.reopen(remote.fetch(), option)
        folder.remote = remote
        return folder
    return RunFolder.reopen(Path(place), option)


def reopen(
    place: str | os.PathLike[str], rounds: int | None = None, accept_changed_code: bool = False
) -> tuple[RunFolder, Loaded, dict[str, Any] | None]:
    """The folder of a run that is to go on, its scenario, and its result where it is done.

    Args:
        place: the run folder, or its URI.
        rounds: up to which it goes on; None: as its scenario says.
        accept_changed_code: go on, too, where the code of a user's own kinds is other than before.
    """
    folder = opened(place, "--resume ")
    if rounds is not None and (before := reader.scenario(folder.path)).scenario.sweep is not None:
        return folder, checks.refuse_missing(sweep.longer(folder, before, rounds)), None
    loaded = reopened(folder, rounds)
    if (result := finished(folder, loaded.scenario.training.rounds, stopped=rounds is None)) is not None:
        refuse_edited(folder, loaded)
        return folder, loaded, result
    if not accept_changed_code:
        refuse_changed_code(folder, loaded)
    loaded = checks.refuse_missing(loaded)
    executors.refuse_silent_ray(loaded.scenario)
    return folder, loaded, None


def execute(
    folder: RunFolder,
    loaded: Loaded,
    progress: Quiet,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
) -> dict[str, Any]:
    """Runs a scenario, or all variants of a sweep, in its folder, writes the report, and gives result.json's
    object.

    Args:
        folder: the run folder.
        loaded: the scenario, checked.
        progress: shows it; the caller closes it.
        callbacks: are told what happens in a run that is no sweep.
        resume: go on with what the folder holds.

    Raises:
        ScenarioError: before anything trains; a new run's folder is gone then.
        RunFailed: afterwards.
    """
    with mirror.mirrored(folder.remote, folder.path, progress.on_note):
        return _execute(folder, loaded, progress, callbacks, resume)


def _execute(
    folder: RunFolder,
    loaded: Loaded,
    progress: Quiet,
    callbacks: Sequence[Callback],
    resume: bool,
) -> dict[str, Any]:
    try:
        with logged(folder.path / "run.log", progress.out, progress.err):
            if loaded.scenario.sweep:
                result = sweep.run(loaded, folder, progress)
            else:
                tune_first.tune(loaded, folder, [progress], engine.run)
                result = engine.run(loaded, folder, [progress, *callbacks], resume)
            _write_report(folder.path, loaded.scenario.sweep is not None, progress)
            return result
    except (ValueError, OSError) as e:
        if isinstance(e, OSError) and folder.training:  # a sweep's own files
            raise failure(e) from e
        if not resume and not folder.training:  # refused before anything trained
            folder.discard()
        if isinstance(e, OSError):
            raise unwritable(folder.path, e) from None
        raise


def _write_report(path: Path, is_sweep: bool, progress: Quiet) -> None:
    """A run is worth more than its page: what goes wrong here is said and passed over."""
    try:
        page.write([path])
        if is_sweep:
            tables.write([path], path)
    except Exception as e:
        progress.on_note(f"the report was not written: {type(e).__name__}: {e}; try: fedray report {path}")
