"""The verbs that run a scenario, or say what a run would be: run, check, plan."""

import json as jsonlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedray.cli.shared import SCENARIO, SCENARIOS, Json, Seed, Set, app, fail
from fedray.errors import printable

if TYPE_CHECKING:
    from fedray.runs.folder import RunFolder
    from fedray.scenario import Loaded


@app.command(
    epilog=(
        "Examples: fedray run quickstart --set training.rounds=5 --out runs/short · fedray run --resume"
        " runs/short · on a cluster: ray job submit --working-dir . -- fedray run quickstart"
    )
)
def run(
    scenario: Annotated[str | None, SCENARIO] = None,
    set_: Set = None,
    seed: Seed = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="The run folder, or a URI such as s3://bucket/run; otherwise a new folder under runs/.",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on from the newest whole checkpoint of this run folder or URI."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --resume: go on up to round N.")
    ] = None,
    accept_changed_code: Annotated[
        bool,
        typer.Option(
            "--accept-changed-code",
            help="With --resume: go on although the code of your own kinds has changed.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json: Json = False,
) -> None:
    """Run a scenario (all variants of a sweep), or go on with a broken run."""
    if (scenario is None) == (resume is None):
        got = "neither" if scenario is None else "both"
        raise typer.BadParameter(f"got {got} of SCENARIO and --resume RUN, expected one of them")
    if resume is not None and (set_ or seed is not None or out):
        raise typer.BadParameter(
            "--resume goes on with the run as it is: got --set, --seed or --out, expected none of them"
        )
    if resume is None and rounds is not None:
        raise typer.BadParameter("--rounds goes with --resume: a new run takes --set training.rounds=N")
    if resume is None and accept_changed_code:
        raise typer.BadParameter("--accept-changed-code goes with --resume: a new run has no other code")
    from fedray import checks

    if scenario is not None:
        loaded = checks.check(checks.find(scenario), set_ or (), seed)  # before what takes long to import
    from fedray import execution
    from fedray.runs.remote import remove

    if resume is not None:
        folder, loaded, result = execution.reopen(resume, rounds, accept_changed_code)
        if result is not None:
            _finish(folder, result, json, quiet, "was already done")
            return
    else:
        folder = execution.create(loaded, out)
    result = _execute(folder, loaded, quiet or json, resume is not None)
    _finish(folder, result, json, quiet, result["status"])
    if folder.remote is not None and result["status"] == "done":
        remove(folder.path)
    if result["status"] != "done":
        fail([f"some variants failed; {_go_on(folder)}"], 1)


def _execute(folder: "RunFolder", loaded: "Loaded", quiet: bool, resume: bool) -> dict[str, Any]:
    """Runs it, shows its progress, and ends the process with a few lines where it fails."""
    from fedray import execution, terminal
    from fedray.failures import RunFailed

    progress = terminal.progress(quiet)
    try:
        return execution.execute(folder, loaded, progress, resume=resume)
    except RunFailed as e:
        progress.close()
        if os.environ.get("FEDRAY_TRACEBACK"):
            raise
        advice = [f"what to try: {e.advice}"] if e.advice else []
        facts = [str(file) for name in ("error.json", "run.log") if (file := folder.path / name).exists()]
        see = f"see {' and '.join(facts)}; {_go_on(folder)}"
        fail([f"the run failed: {e}", *advice, see], 1)
    except KeyboardInterrupt:
        progress.close()
        fail([f"interrupted; {_go_on(folder)}"], 1)
    finally:
        progress.close()


def _go_on(folder: "RunFolder") -> str:
    return f"to go on: fedray run --resume {folder.path if folder.remote is None else folder.remote.shown}"


def _finish(folder: "RunFolder", result: dict[str, Any], json: bool, quiet: bool, how: str) -> None:
    path = folder.path
    place = str(path) if folder.remote is None else folder.remote.place
    if json:
        run = place if folder.remote is None else folder.remote.shown
        typer.echo(jsonlib.dumps({"run": run, **result}, indent=1))
        return
    for name, one in result.get("variants", {"": result}).items():
        details = "see its error.json and output.log"
        if one["status"] == "done":
            details = f"{one['rounds']} rounds, weights {one['weights_sha256'][:12]}"
        shown = f"{place}/{name}" if name else place
        typer.echo(printable(f"{shown} {one['status'] if name else how}: {details}"))
    if (path / "report.html").exists():
        typer.echo(f"report: {place}/report.html")
    if "variants" in result:
        _show_tables(path, place, result.get("summary") or {})
    if not quiet and "variants" not in result:
        typer.echo(_next(place if folder.remote is None else folder.remote.shown, place, result))


def _next(run: str, place: str, result: dict[str, Any]) -> str:
    """What a person may type now."""
    opens = (
        f"; or load {place}/model in diffusers"
        if "model/text_encoder/config.json" in result["artifacts"]
        else ""
    )
    writes = any(file.startswith("samples/") and file.endswith(".txt") for file in result["artifacts"])
    if opens or writes:
        return f'next: fedray generate {run} --prompt "..."{opens}'
    return f"next: look into {place}/model"


def _show_tables(path: Path, place: str, summary: dict[str, Any]) -> None:
    """What a sweep's runs under several seeds say together, and where its tables are."""
    from fedray.report import tables

    for line in tables.described(summary):
        typer.echo(printable(line))
    if (path / tables.CSV).exists():
        typer.echo(f"tables: {place}/{tables.CSV}, {place}/{tables.LATEX}")


@app.command(
    epilog=(
        "Examples: fedray check mine.yaml quickstart · fedray check mine.yaml --set training.rounds=5 --json"
    )
)
def check(scenarios: Annotated[list[str], SCENARIOS], set_: Set = None, json: Json = False) -> None:
    """Say everything that is wrong with scenarios, at once, without torch or Ray."""
    from fedray import checks
    from fedray.scenario import ScenarioError

    problems: list[str] = []
    checked: list[dict[str, Any]] = []
    for scenario in scenarios:
        one: dict[str, Any] = {"file": scenario, "name": None, "ok": False}
        checked.append(one)
        try:
            file = checks.find(scenario)
            one["file"] = str(file)
            loaded = checks.check(file, set_ or ())
            facts = checks.privacy_facts(loaded)
            one |= {"name": loaded.scenario.name, "ok": True} | ({"privacy": facts} if facts else {})
            if leaving := checks.disclosures(loaded):
                one["disclosures"] = leaving
        except ScenarioError as e:
            problems += e.lines
        if one["ok"] and not json:
            said = "".join(f"; {text}" for text in one.get("disclosures", []))
            typer.echo(f"{one['file']}: {one['name']} OK" + _spends(one.get("privacy")) + said)
    if json:
        typer.echo(jsonlib.dumps({"problems": problems, "scenarios": checked}, indent=1))
    if problems:
        fail([] if json else problems, 2)


def _spends(facts: dict[str, Any] | None) -> str:
    """What a private scenario's epsilon is, for a person."""
    if facts is None or facts["epsilon"] is None:
        return ""
    noise = f"noise multiplier {facts['noise_multiplier']:g}"
    return f", epsilon {facts['epsilon']:.4g} at delta {facts['delta']:g}, {noise}"


@app.command(epilog="Example: fedray plan huang2023-lora --json")
def plan(scenario: Annotated[str, SCENARIO], set_: Set = None, seed: Seed = None, json: Json = False) -> None:
    """What a scenario needs and costs: actors, bytes, FLOPs, simulated seconds, joules. Trains nothing."""
    from fedray import checks
    from fedray.planning import plan as plans

    planned = plans.plan(checks.check(checks.find(scenario), set_ or (), seed))
    if json:
        typer.echo(jsonlib.dumps(planned, indent=1))
        return
    from fedray.plan_table import show_plan

    show_plan(planned)
