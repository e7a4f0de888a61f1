"""What a run folder goes on with: its scenario, up to which round, its newest whole checkpoint, and that
it is still the one that ran."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedray.executors import Executor
from fedray.runs import fingerprint, reader
from fedray.runs.folder import RunFolder
from fedray.runs.state import State
from fedray.scenario import Loaded, ScenarioError

Note = Callable[[str], None]  # shows a person a text


def reopened(run: RunFolder, rounds: int | None) -> Loaded:
    """The scenario that a run folder goes on with, up to round `rounds` where somebody says so.

    Raises:
        ScenarioError: where it has done as many, or where what it has done depends on how many there are.
    """
    loaded = reader.scenario(run.path, [] if rounds is None else [f"training.rounds={rounds}"])
    if rounds is None:
        return loaded
    done = max((state.round for _, state in run.states() if not isinstance(state, str)), default=0)
    if rounds <= done:
        raise ScenarioError(
            [f"--rounds {rounds}: got no more than the {done} rounds that are done, expected more"]
        )
    scenario = loaded.scenario
    for section in (scenario.companion, scenario.training):
        if done and section is not None and section.fixed_rounds is not None:
            raise loaded.error([section.fixed_rounds])
    return loaded


def refuse_edited(run: RunFolder, loaded: Loaded) -> None:
    """That a run which is done has still the scenario that it ran. Files are not looked at: they need not be
    there any more.

    Raises:
        ScenarioError: naming what is other than it was.
    """
    state = next((state for _, state in run.states() if not isinstance(state, str)), None)
    if state is None or not state.belongs:
        return
    now = {"scenario": fingerprint.kept(loaded.scenario, loaded.folder)}
    recorded = state.belongs.get("scenario", {}).items()
    before = {
        "scenario": {key: value for key, value in recorded if not key.endswith(fingerprint.FILES)},
    }
    if others := fingerprint.differences(before, now, "scenario"):
        raise ScenarioError([f"--resume {run.path}: {line}" for line in others])


def refuse_changed_code(run: RunFolder, loaded: Loaded) -> None:
    """That kinds of a user's own are in the code that they were in before.

    Raises:
        ScenarioError: naming the modules that changed.
    """
    state = next((state for _, state in run.states() if not isinstance(state, str)), None)
    if state is None or not state.round:
        return
    now = {fingerprint.USERS_CODE: fingerprint.of_users_code(loaded.scenario)}
    if others := fingerprint.differences(state.belongs, now, fingerprint.USERS_CODE):
        accept = "(or go on with it: --accept-changed-code)"
        raise ScenarioError([f"--resume {run.path}: {line} {accept}" for line in others])


def finished(run: RunFolder, rounds: int = 0, stopped: bool = False) -> dict[str, Any] | None:
    """result.json of a run that is done, and still has what it recorded of its rounds.

    Args:
        run: its folder.
        rounds: that it has at least.
        stopped: whether one that its evaluations ended before is done too.
    """
    try:
        result: dict[str, Any] | None = run.read("result.json")
        if result is None or result.get("status") != "done" or "variants" in result:
            return result if result is not None and result.get("status") == "done" else None
        recorded = [row["round"] for row in run.rows()]
    except ScenarioError:
        return None
    enough = result["rounds"] >= rounds or (stopped and "stopped" in result)
    return result if enough and recorded == list(range(1, result["rounds"] + 1)) else None


def restore(loaded: Loaded, run: RunFolder, executor: Executor, note: Note) -> State | None:
    """Brings folder and executor to the newest whole checkpoint; damaged ones are named and passed over. None
    where the run has had none yet.

    Args:
        loaded: the scenario that the run goes on with.
        run: its folder.
        executor: which has begun.
        note: shows a person what was found.

    Raises:
        ScenarioError: where all are damaged, or of another scenario or other data.
    """
    damaged = 0
    for folder, state in run.states():
        if isinstance(state, str):
            fault: str | None = state
        elif _is_other(run, state, note):
            damaged = 0
            break
        elif (fault := _fault(run, executor, folder, state)) is None:
            _keep_result(run, loaded.scenario.training.rounds, note)
            run.cut_back(state)
            run.keep_scenario(loaded)
            note(f"going on from {folder.name}")
            return state
        damaged += 1
        note(f"refused checkpoint {folder.name}, which is damaged: {fault}")
    if damaged:
        got = f"{damaged} damaged checkpoint{'s' * (damaged > 1)}"
        raise ScenarioError([f"--resume {run.path}: got {got}, expected a whole one in {run.checkpoints}"])
    run.cut_back(None)
    run.keep_scenario(loaded)
    note("nothing has been trained yet: the run begins with round 1")
    return None


def _keep_result(run: RunFolder, rounds: int, note: Note) -> None:
    """Of a run that was done and goes on with more rounds, what it came to is not lost."""
    result = finished(run)
    if result is not None and result["rounds"] < rounds:
        note(f"its result after round {result['rounds']} is kept in {keep_result(run, result)}")


def keep_result(run: RunFolder, result: dict[str, Any]) -> str:
    """Writes a result beside that of more rounds, which will take its place, and gives the file's name. Its
    `artifacts` are not kept: those of more rounds take their places."""
    runs = result.get("variants", {"": result})
    name = f"results/round-{next(iter(runs.values()))['rounds']:04d}.json"
    kept = {run_name: {k: v for k, v in one.items() if k != "artifacts"} for run_name, one in runs.items()}
    (run.path / name).parent.mkdir(exist_ok=True)
    run.write(name, result | {"variants": kept} if "variants" in result else kept[""])
    return name


def _fault(run: RunFolder, executor: Executor, folder: Path, state: State) -> str | None:
    """Restores a checkpoint, or says what is wrong with it."""
    if (lost := run.lost_lines(state)) is not None:
        return lost
    try:
        executor.restore(folder, state.saved)
    except ValueError as e:
        return str(e)
    return None


def _is_other(run: RunFolder, state: State, note: Note) -> bool:
    """Whether a checkpoint is of another scenario or other data, and nothing has been trained. Other code,
    with which bits may differ, is said.

    Raises:
        ScenarioError: where something has been trained, naming what is other than it was.
    """
    if not state.belongs:
        note(
            "this checkpoint does not say what it belongs to: whether scenario and data are as before is not"
            " known"
        )
        return False
    others = [
        line
        for part in ("scenario", "data")
        for line in fingerprint.differences(state.belongs, run.belongs, part)
    ]
    if others and state.round:
        raise ScenarioError([f"--resume {run.path}: {line}" for line in others])
    # What a user has not accepted is refused before.
    changed = fingerprint.differences(state.belongs, run.belongs, fingerprint.USERS_CODE)
    for line in [*fingerprint.differences(state.belongs, run.belongs, "code"), *changed]:
        note(f"other code than before, with which bits may differ: {line}")
    return bool(others or changed) and not state.round
