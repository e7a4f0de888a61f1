"""fedray from Python: load, check, plan and run scenarios, and what a run has to show.

The command line is a thin layer over this module.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fedray.scenario import Loaded, ScenarioError
from fedray.scenario.load import load_text

if TYPE_CHECKING:
    import pyarrow

    from fedray.callbacks import Callback
    from fedray.notebook import Svg
    from fedray.runs.folder import RunFolder
    from fedray.terminal import Quiet

Source = str | os.PathLike[str] | Mapping[str, Any] | Loaded
MAPPING = "scenario.yaml"  # what errors call a scenario that is a mapping


def load(source: Source, changes: Mapping[str, Any] | None = None) -> Loaded:
    """A scenario, with its text and sections checked.

    Args:
        source: the name of a shipped scenario, a file, a mapping of sections (whose relative paths start at
            the current folder), or a scenario that was loaded.
        changes: other values by their dotted keys, such as {"training.rounds": 5}.

    Raises:
        ScenarioError: with every problem found.
    """
    settings = tuple(f"{key}={_yaml(value)}" for key, value in (changes or {}).items())
    if isinstance(source, Loaded):
        return load_text(source.text, source.file, (*source.settings, *settings))
    if isinstance(source, Mapping):
        return load_text(_yaml(source), Path.cwd() / MAPPING, settings)
    from fedray import checks, scenario

    return scenario.load(checks.find(os.fspath(source)), settings)


def check(scenario: Source) -> Loaded:
    """The scenario, if its text, sections and combinations are right and the files that it names are there.

    Raises:
        ScenarioError: with every problem found.
    """
    from fedray import checks

    return checks.refuse_missing(scenario if isinstance(scenario, Loaded) else load(scenario))


def plan(scenario: Source) -> dict[str, Any]:
    """What a scenario needs and costs, without training anything: the object that `fedray plan --json`
    prints."""
    from fedray.planning import plan as planning

    return planning.plan(check(scenario))


def run(
    scenario: Source,
    out: str | os.PathLike[str] | None = None,
    callbacks: Sequence["Callback"] = (),
    progress: bool = True,
) -> "Run":
    """Runs a scenario to its end: the same bits as `fedray run`.

    Args:
        scenario: as `load` takes it.
        out: the run folder; otherwise a new one under runs/.
        callbacks: called as the run goes on.
        progress: show it here.

    Raises:
        ScenarioError: before anything trains.
        RunFailed: afterwards; error.json in the run folder says how.
    """
    from fedray import execution

    loaded = check(scenario)
    if loaded.scenario.sweep and callbacks:
        raise ScenarioError(
            ["callbacks: got some for a sweep, whose variants are processes of their own, expected"
             " runtime.report_to: [module:Class]"]
        )  # fmt: skip
    folder = execution.create(loaded, out)
    shown = _shown(progress)
    try:
        execution.execute(folder, loaded, shown, callbacks)
    finally:
        shown.close()
    return Run(folder.path)


def open(folder: str | os.PathLike[str]) -> "Run":
    """The run that a folder holds, finished or in progress.

    Raises:
        ScenarioError: where it holds none.
    """
    from fedray.runs.folder import RunFolder

    return Run(RunFolder.reopen(Path(folder)).path)


def trainable(scenario: Source) -> Callable[[Mapping[str, Any]], None]:
    """A function for `ray.tune.Tuner`. A trial's config is changes of the scenario by their dotted keys; each
    round's metrics are reported to Tune. A trial trains in its own process, so that Tune alone decides how
    many run at once; its run folder is `run` in the trial's folder.

    >>> from ray import tune  # doctest: +SKIP
    >>> rates = {"training.optimizer.learning_rate": tune.grid_search([0.1, 0.01])}  # doctest: +SKIP
    >>> tune.Tuner(trainable("quickstart"), param_space=rates).fit()  # doctest: +SKIP

    Raises:
        ScenarioError: for a scenario that is wrong, or where Ray Tune is not installed.
    """
    from fedray.executors.ray.tune import require_tune

    require_tune()
    loaded = check(scenario)
    text = loaded.text
    file = loaded.file.resolve()
    settings = loaded.settings

    def train(config: Mapping[str, Any]) -> None:
        from fedray.executors.ray.tune import TuneReporter, trial_folder

        changes = {**config, "runtime.executor": "serial"}
        changed = load(load_text(text, file, settings), changes)
        run(changed, trial_folder() / "run", [TuneReporter()], progress=False)

    return train


class Run:
    """A run folder, and what it has to show. It shows itself in a notebook."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"<fedray.Run {self.path}>"

    def _repr_html_(self) -> str:
        from fedray.notebook import run_html

        return run_html(self.path)

    @property
    def scenario(self) -> Loaded:
        """What was run, with every default."""
        from fedray.runs import reader

        return reader.scenario(self.path)

    @property
    def metrics(self) -> "pyarrow.Table":
        """A row a round; columns as in metrics.jsonl (bytes, seconds and joules are cumulative)."""
        return self._folder().table("metrics.jsonl")

    @property
    def clients(self) -> "pyarrow.Table":
        """A row a client and round: its samples, steps, loss, bytes, seconds, joules and outcome."""
        return self._folder().table("clients.jsonl")

    @property
    def timeline(self) -> "pyarrow.Table":
        """A row a step of a round's schedule, with its simulated start and end, bytes and energy."""
        return self._folder().table("timeline.jsonl")

    @property
    def result(self) -> dict[str, Any] | None:
        """result.json's object; None while there is none."""
        result: dict[str, Any] | None = self._folder().read("result.json")
        return result

    @property
    def variants(self) -> dict[str, "Run"]:
        """The runs of a sweep, by name; none of a single run."""
        sweep = self.scenario.scenario.sweep
        return {name: Run(self.path / name) for name in (sweep.variants if sweep else {})}

    @property
    def figures(self) -> "dict[str, Svg]":
        """The report's pictures by name, as SVG: each metric against rounds, the first round's timeline, and
        what else the run has."""
        from fedray.notebook import figures

        return figures(self.path)

    def generate(
        self,
        prompt: str | Sequence[str],
        num: int = 1,
        seed: int = 0,
        guidance: float | None = None,
        steps: int | None = None,
        negative: str | None = None,
    ) -> list[Any]:
        """What the run's model makes of prompts: PIL images, or texts.

        Args:
            prompt: one, or several.
            num: images or texts a prompt.
            seed: of a prompt's first image; the others count up.
            guidance: how much an image follows its prompt; None: as the run's own samples.
            steps: of the sampler, or tokens of a text; None: as the run's own samples.
            negative: what not to show; None: as the run's own samples.

        Raises:
            ScenarioError: for a model that generates nothing from prompts, or a run without a checkpoint.
        """
        from PIL import Image

        from fedray.generate import generate

        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        with TemporaryDirectory(prefix="fedray-") as folder:
            rows = generate(self.path, prompts, Path(folder), num, seed, guidance, steps, negative)
            if "text" in rows[0]:
                return [row["text"] for row in rows]
            images = []
            for row in rows:
                with Image.open(row["file"]) as image:
                    image.load()
                images.append(image)
            return images

    def report(
        self, out: str | os.PathLike[str] | None = None, network: str | os.PathLike[str] | None = None
    ) -> Path:
        """Writes the report, one HTML page, and gives its file: report.html in the run folder, unless `out`
        says otherwise. `network`: the costs on another scenario's network beside."""
        from fedray.report.page import write

        return write([self.path], Path(out) if out else None, Path(network) if network else None)

    def resume(
        self,
        rounds: int | None = None,
        callbacks: Sequence["Callback"] = (),
        progress: bool = True,
        accept_changed_code: bool = False,
    ) -> "Run":
        """Goes on from the newest whole checkpoint; nothing happens where the run is done.

        Args:
            rounds: up to which it goes on; None: as its scenario says.
            callbacks: called as the run goes on.
            progress: show it here.
            accept_changed_code: go on, too, where the code of your own kinds is other than before.

        Raises:
            ScenarioError: where scenario, data or your own kinds' code are others than before.
            RunFailed: where it fails again.
        """
        from fedray import execution

        folder, loaded, result = execution.reopen(self.path, rounds, accept_changed_code)
        if result is None:
            shown = _shown(progress)
            try:
                execution.execute(folder, loaded, shown, callbacks, resume=True)
            finally:
                shown.close()
        return self

    def _folder(self) -> "RunFolder":
        from fedray.runs.folder import RunFolder

        return RunFolder.reopen(self.path)


def _shown(progress: bool) -> "Quiet":
    from fedray import terminal

    return terminal.progress(quiet=not progress)


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
