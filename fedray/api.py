"""fedray from Python: load, check, plan and run scenarios, and open and compare runs.

The command line is a thin layer over this module.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedray.calls import execute, python_words, refuse_no_callbacks
from fedray.results import PathLike, Run
from fedray.scenario import Loaded, ScenarioError
from fedray.scenario.load import load_text

if TYPE_CHECKING:
    from fedray.callbacks import Callback
    from fedray.notebook import Svg

ScenarioLike = str | os.PathLike[str] | Mapping[str, Any] | Loaded
MAPPING = "scenario.yaml"  # in whose folder a mapping's paths start; there need be no such file


@python_words()
def load(source: ScenarioLike, changes: Mapping[str, Any] | None = None) -> Loaded:
    """A scenario, with its text and sections checked.

    Args:
        source: the name of a shipped scenario, a file, a mapping of sections (whose relative paths, and
            modules with kinds of your own, are looked for in the current folder), or a loaded scenario.
        changes: other values by their dotted keys, such as {"training.rounds": 5}.

    Raises:
        ScenarioError: with every problem found.
    """
    settings = tuple(f"{key}={_yaml(value)}" for key, value in (changes or {}).items())
    if isinstance(source, Loaded):
        settings = (*source.settings, *settings)
        return load_text(source.text, source.file, settings, code=source.code, mapping=source.mapping)
    if isinstance(source, Mapping):
        return load_text(_yaml(source), Path.cwd() / MAPPING, settings, mapping=True)
    from fedray import checks, scenario

    return scenario.load(checks.find(os.fspath(source)), settings)


@python_words()
def check(scenario: ScenarioLike) -> Loaded:
    """The scenario, if its text, sections and combinations are right and the files that it names are there.

    Args:
        scenario: as `load` takes it.

    Raises:
        ScenarioError: with every problem found.
    """
    from fedray import checks

    return checks.refuse_missing(scenario if isinstance(scenario, Loaded) else load(scenario))


@python_words()
def plan(scenario: ScenarioLike) -> dict[str, Any]:
    """What a scenario needs and costs, without training anything: the object that `fedray plan --json`
    prints. `per_round` and `total` have transfers, bytes, simulated seconds and joules; a sweep's plan has a
    plan for each of its `variants`.

    Args:
        scenario: as `load` takes it.

    Raises:
        ScenarioError: with every problem found.
    """
    from fedray.planning import plan as planning

    return planning.plan(check(scenario))


@python_words()
def run(
    scenario: ScenarioLike,
    out: PathLike | None = None,
    callbacks: Sequence["Callback"] = (),
    progress: bool = True,
) -> Run:
    """Runs a scenario to its end: the same bits as `fedray run`. Of a sweep, all variants: one that fails
    does not stop the others, and the result's `status` is then `failed`.

    Args:
        scenario: as `load` takes it.
        out: the run folder, a new or an empty one, or a URI of one elsewhere (s3://bucket/run); None:
            runs/NAME, or the first of runs/NAME-2, ... that is free.
        callbacks: called as the run goes on; what they print is seen here. What anything else prints goes to
            run.log in the run folder.
        progress: show it here.

    Raises:
        ScenarioError: before anything trains.
        RunFailed: afterwards; error.json in the run folder says how.
    """
    from fedray import execution

    refuse_no_callbacks(callbacks)
    loaded = check(scenario)
    if loaded.scenario.sweep and callbacks:
        raise ScenarioError(
            ["callbacks: got some for a sweep, whose variants are processes of their own, expected"
             " runtime.report_to: [module:Class]"]
        )  # fmt: skip
    folder = execution.create(loaded, out)
    execute(folder, loaded, callbacks, progress)
    return Run(folder.path, folder.remote)


@python_words()
def open(folder: PathLike) -> Run:
    """The run that a folder holds, finished or in progress.

    Args:
        folder: a run folder, of `run` or of the command line, or its URI: what is there now is fetched, and
            `resume` brings what is new there.

    Raises:
        ScenarioError: where it holds none.
    """
    from fedray.runs.folder import RunFolder
    from fedray.runs.remote import Remote, is_uri

    if isinstance(folder, str) and is_uri(folder):
        remote = Remote(folder)
        return Run(RunFolder.reopen(remote.fetch()).path, remote)
    return Run(RunFolder.reopen(Path(folder)).path)


def compare(runs: Sequence[Run]) -> "dict[str, Svg]":
    """Pictures of several runs as SVG, each with a curve a run: every metric against rounds by its own name,
    such as `loss`, and against what the runs cost: `loss by bytes`, `loss by seconds`, `loss by joules`.

    Args:
        runs: at least one; a sweep stands for its variants. A run is called by its folder.

    Raises:
        ScenarioError: for files that are not a run's.
    """
    from fedray import notebook

    return notebook.compare([run.path for run in runs])


@python_words()
def trainable(scenario: ScenarioLike) -> Callable[[Mapping[str, Any]], None]:
    """A function for `ray.tune.Tuner`. A trial's config is changes of the scenario by their dotted keys; each
    round's metrics are reported to Tune under their names in metrics.jsonl. A trial trains in its own
    process (`runtime.executor: serial`), so that Tune alone decides how many run at once; its run folder is
    `run` in the trial's folder. Needs `pip install 'ray[tune]'`.

        from ray import tune

        rates = {"training.optimizer.learning_rate": tune.grid_search([0.1, 0.01])}
        results = tune.Tuner(fedray.trainable("quickstart"), param_space=rates).fit()
        best = results.get_best_result(metric="loss", mode="min")
        run = fedray.open(f"{best.path}/run")

    Args:
        scenario: as `load` takes it; no sweep, since Tune makes the variants.

    Raises:
        ScenarioError: for a scenario that is wrong, or where Ray Tune is not installed.
    """
    from fedray.executors.ray.tune import require_tune

    require_tune()
    loaded = check(scenario)
    if loaded.scenario.sweep:
        raise ScenarioError(
            ["sweep: got one for fedray.trainable, expected none: Ray Tune makes the variants"]
        )
    text = loaded.text
    file = loaded.file.resolve()
    settings = loaded.settings
    code = loaded.code
    mapping = loaded.mapping

    def train(config: Mapping[str, Any]) -> None:
        from fedray.executors.ray.tune import TuneReporter, trial_folder

        changes = {**config, "runtime.executor": "serial"}
        changed = load(load_text(text, file, settings, code=code, mapping=mapping), changes)
        run(changed, trial_folder() / "run", [TuneReporter()], progress=False)

    return train


def _yaml(value: Any) -> str:
    """A value as YAML, of which JSON is a part."""
    return json.dumps(value, default=_simple, indent=None if not isinstance(value, Mapping) else 1)


def _simple(value: Any) -> Any:
    """What json does not know: paths, NumPy's numbers, mappings of other kinds."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"got {type(value).__name__}, expected what YAML has: numbers, text, lists, mappings")
