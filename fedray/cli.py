"""The verbs; no logic. Anything slow to import is imported by the verb that needs it."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fedray.errors import UserError

app = typer.Typer(
    help="Federated training and fine-tuning of generative models on Ray, over simulated wireless networks.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ScenarioArg = Annotated[str, typer.Argument(metavar="SCENARIO", help="A file, or the name of a shipped scenario.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="a.b=v", help="Change one key, the value in YAML. May be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, and nothing else.")]


@app.command(epilog="Example: fedray run quickstart --set training.rounds=5 --out runs/short")
def run(
    scenario: Annotated[str | None, typer.Argument(metavar="SCENARIO", help="A file, or the name of a shipped scenario.")] = None,
    set_: Set = None,
    seed: Annotated[int | None, typer.Option(help="Another seed than the scenario's.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run folder; otherwise a new one under runs/.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on from the newest whole checkpoint of this run folder.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json: Json = False,
) -> None:
    """Run a scenario, or go on with a broken run."""
    from fedray import check, engine, terminal
    from fedray.runs import folder
    from fedray.runs.log import logged

    if (scenario is None) == (resume is None):
        raise typer.BadParameter(
            "got neither, expected SCENARIO or --resume RUN" if scenario is None else "got SCENARIO and --resume, expected one of them"
        )
    if resume is not None:
        if set_ or seed is not None or out:
            raise typer.BadParameter("--resume goes on with the run as it is: got --set, --seed or --out, expected none of them")
        loaded = check.check(engine.resume_scenario(resume))
        run_ = folder.RunFolder.reopen(resume)
        if (already := engine.finished(run_)) is not None:
            _finish(run_.path, already, json, quiet, "was already done")
            return
    else:
        assert scenario is not None
        loaded = check.check(check.find(scenario), set_ or (), seed)
        run_ = folder.RunFolder.create(out or folder.new_path(loaded.scenario.name), loaded)
    watcher = terminal.watcher(quiet, json)
    try:
        with logged(run_.path / "run.log"):
            result = engine.run(loaded, run_, watcher, resume=resume is not None)
    except engine.RunFailed as e:
        watcher.close()
        _fail(
            [
                f"the run failed: {e}",
                *([f"what to try: {e.advice}"] if e.advice else []),
                f"see {run_.path / 'error.json'} and {run_.path / 'run.log'}; to go on: fedray run --resume {run_.path}",
            ],
            1,
        )
    except KeyboardInterrupt:
        watcher.close()
        _fail([f"interrupted; to go on: fedray run --resume {run_.path}"], 1)
    except ValueError:
        watcher.close()
        if resume is None:
            run_.discard()  # refused before anything trained
        raise
    watcher.close()
    _finish(run_.path, result, json, quiet, "done")


@app.command(epilog="Example: fedray check mine.yaml quickstart")
def check(scenarios: Annotated[list[str], typer.Argument(metavar="SCENARIO...", help="Files, or names of shipped scenarios.")]) -> None:
    """Say everything that is wrong with scenarios, without torch or Ray."""
    from fedray import check as checks
    from fedray.scenario import ScenarioError

    problems: list[str] = []
    for scenario in scenarios:
        try:
            loaded = checks.check(checks.find(scenario))
            typer.echo(f"{loaded.file}: {loaded.scenario.name} is whole")
        except ScenarioError as e:
            problems += e.problems
    if problems:
        _fail(problems, 2)


@app.command(epilog="Example: fedray plan huang2023-lora --json")
def plan(
    scenario: ScenarioArg,
    set_: Set = None,
    seed: Annotated[int | None, typer.Option(help="Another seed than the scenario's.")] = None,
    json: Json = False,
) -> None:
    """What a scenario needs and costs: actors, bytes, FLOPs, simulated seconds, joules. Trains nothing."""
    from fedray import check as checks
    from fedray import plan as plans

    planned = plans.plan(checks.check(checks.find(scenario), set_ or (), seed))
    if json:
        typer.echo(jsonlib.dumps(planned, indent=1))
        return
    from fedray.terminal import show_plan

    show_plan(planned)


@app.command("list")
def list_() -> None:
    """The shipped scenarios."""
    from fedray import shipped

    scenarios = shipped.scenarios()
    for name, file in scenarios.items():
        first = file.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
        typer.echo(f"{name:<{max(map(len, scenarios)) + 2}}{first}")


@app.command(epilog="Example: fedray show quickstart")
def show(name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped scenario.")]) -> None:
    """Print a shipped scenario."""
    from fedray import check as checks

    typer.echo(checks.find(name).read_text(encoding="utf-8"), nl=False)


@app.command(epilog="Example: fedray copy quickstart mine.yaml")
def copy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped scenario.")], file: Annotated[Path, typer.Argument(metavar="FILE")]
) -> None:
    """Copy a shipped scenario to a file of your own; it runs like the original."""
    from fedray import check as checks
    from fedray.scenario import ScenarioError

    text = checks.find(name).read_text(encoding="utf-8")
    if file.exists():
        raise ScenarioError([f"{file}: got a file that is there already, expected a new one"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    typer.echo(f"{file} is yours. Next: fedray run {file}")


def main() -> None:
    """The command line. A user's mistake is one line and exit code 2, never a traceback."""
    try:
        app()
    except UserError as e:
        _fail(str(e).split("\n"), 2)


def _finish(path: Path, result: dict[str, Any], json: bool, quiet: bool, how: str) -> None:
    if json:
        typer.echo(jsonlib.dumps({"run": str(path), **result}, indent=1))
        return
    typer.echo(f"{path} {how}: {result['rounds']} rounds, weights {result['weights_sha256'][:12]}")
    if not quiet:
        typer.echo(f"next: look at {path / 'samples'}; load {path / 'model'} in diffusers")


def _fail(lines: list[str], code: int) -> None:
    sys.stdout.flush()
    for line in lines:
        print(line, file=sys.stderr)
    sys.exit(code)
