"""What a run folder goes on with: its scenario, up to which round, and that it is still the one that ran."""

from fedray.runs import fingerprint, reader
from fedray.runs.folder import RunFolder
from fedray.scenario import Loaded, Refused, ScenarioError, load


def reopened(run: RunFolder, rounds: int | None) -> Loaded:
    """The scenario that a run folder goes on with, up to round `rounds` where somebody says so.

    Raises:
        ScenarioError: where it has done as many, or where what it has done depends on how many there are.
    """
    loaded = load(run.path / reader.SCENARIO, [] if rounds is None else [f"training.rounds={rounds}"])
    if rounds is None:
        return loaded
    if loaded.scenario.sweep is not None:
        raise ScenarioError([f"--rounds {rounds}: got one for a sweep, expected a run: {run.path}/NAME"])
    done = max((state.round for _, state in run.states() if not isinstance(state, str)), default=0)
    if rounds <= done:
        raise ScenarioError(
            [f"--rounds {rounds}: got no more than the {done} rounds that are done, expected more"]
        )
    if loaded.scenario.companion is not None and loaded.scenario.companion.depends_on_last_round and done:
        got, expected = (
            "linear with --rounds, up to which it rises",
            "fixed or held_out, which do not depend on the last round",
        )
        raise loaded.error([Refused("augmentation.weighting", got, expected)])
    return loaded


def refuse_edited(run: RunFolder, loaded: Loaded) -> None:
    """That a run which is done has still the scenario that it ran. Data are not looked at: they need not be
    there any more.

    Raises:
        ScenarioError: naming what is other than it was.
    """
    state = next((state for _, state in run.states() if not isinstance(state, str)), None)
    if state is None or not state.belongs:
        return
    now = {"scenario": fingerprint.kept(loaded.scenario)}
    before = {
        "scenario": {
            key: value for key, value in state.belongs.get("scenario", {}).items() if key != fingerprint.BASE
        }
    }
    if others := fingerprint.differences(before, now, "scenario"):
        raise ScenarioError([f"--resume {run.path}: {line}" for line in others])
