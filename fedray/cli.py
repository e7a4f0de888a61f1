"""The verbs; no logic. Anything slow to import is imported by the verb that needs it."""

import json as jsonlib
import os
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fedray import __version__
from fedray.errors import UserError, printable

app = typer.Typer(
    help="Federated training and fine-tuning of generative models on Ray, over simulated wireless networks.",
    epilog=(
        "Exit codes: 0 done, 1 the run failed (error.json says how), 2 a bad scenario or bad usage."
        " FEDRAY_RUNS: where new run folders go (runs/). FEDRAY_TRACEBACK=1: show the traceback of a failed"
        " run."
    ),
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"fedray {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


def _shipped(incomplete: str) -> list[str]:
    from fedray import shipped

    return [name for name in shipped.scenarios() if name.startswith(incomplete)]


SCENARIO = typer.Argument(
    metavar="SCENARIO", help="A file, or the name of a shipped scenario.", autocompletion=_shipped
)
SCENARIOS = typer.Argument(
    metavar="SCENARIO...", help="Files, or names of shipped scenarios.", autocompletion=_shipped
)
ShippedArg = Annotated[
    str, typer.Argument(metavar="NAME", help="A shipped scenario.", autocompletion=_shipped)
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=v", help="Change one key, the value in YAML. May be repeated."),
]
Seed = Annotated[int | None, typer.Option(help="Another seed than the scenario's.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, and nothing else.")]


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
        Path | None, typer.Option(metavar="DIR", help="The run folder; otherwise a new one under runs/.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on from the newest whole checkpoint of this run folder."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --resume: go on up to round N.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json: Json = False,
) -> None:
    """Run a scenario (all variants of a sweep), or go on with a broken run."""
    from fedray import checks, engine, executors, terminal
    from fedray.runs import folder
    from fedray.runs.log import logged

    if (scenario is None) == (resume is None):
        got = "neither" if scenario is None else "both"
        raise typer.BadParameter(f"got {got} of SCENARIO and --resume RUN, expected one of them")
    if resume is not None:
        if set_ or seed is not None or out:
            raise typer.BadParameter(
                "--resume goes on with the run as it is: got --set, --seed or --out, expected none of them"
            )
        run_, loaded, already = _reopened(resume, rounds)
        if already is not None:
            _finish(run_.path, already, json, quiet, "was already done")
            return
    else:
        assert scenario is not None
        if rounds is not None:
            raise typer.BadParameter("--rounds goes with --resume: a new run takes --set training.rounds=N")
        loaded = checks.check(checks.find(scenario), set_ or (), seed)
        executors.refuse_silent_ray(loaded.scenario)
        run_ = folder.RunFolder.create(out or folder.new_path(loaded.scenario.name), loaded)
    watcher = terminal.progress(quiet or json)
    go_on = f"to go on: fedray run --resume {run_.path}"
    try:
        with logged(run_.path / "run.log"):
            if loaded.scenario.sweep:
                from fedray import sweep

                result = sweep.run(loaded, run_, watcher)
            else:
                result = engine.run(loaded, run_, [watcher], resume=resume is not None)
            _report(run_.path, watcher.on_note)
    except engine.RunFailed as e:
        watcher.close()
        if os.environ.get("FEDRAY_TRACEBACK"):
            raise
        advice = [f"what to try: {e.advice}"] if e.advice else []
        _fail(
            [
                f"the run failed: {e}",
                *advice,
                f"see {run_.path / 'error.json'} and {run_.path / 'run.log'}; {go_on}",
            ],
            1,
        )
    except KeyboardInterrupt:
        watcher.close()
        _fail([f"interrupted; {go_on}"], 1)
    except (ValueError, OSError) as e:
        watcher.close()
        if isinstance(e, OSError) and run_.training:  # a sweep's own files
            _fail([f"the run failed: {e.filename or run_.path}: {e.strerror or e}", go_on], 1)
        if resume is None and not run_.training:  # refused before anything trained
            run_.discard()
        if isinstance(e, OSError):
            raise folder.unwritable(run_.path, e) from None
        raise
    watcher.close()
    _finish(run_.path, result, json, quiet, result["status"])
    if result["status"] != "done":
        _fail([f"some variants failed; {go_on}"], 1)


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
            one |= {"name": checks.check(file, set_ or ()).scenario.name, "ok": True}
        except ScenarioError as e:
            problems += e.lines
        if one["ok"] and not json:
            typer.echo(f"{one['file']}: {one['name']} OK")
    if json:
        typer.echo(jsonlib.dumps({"problems": problems, "scenarios": checked}, indent=1))
    if problems:
        _fail([] if json else problems, 2)


@app.command(epilog="Example: fedray plan huang2023-lora --json")
def plan(scenario: Annotated[str, SCENARIO], set_: Set = None, seed: Seed = None, json: Json = False) -> None:
    """What a scenario needs and costs: actors, bytes, FLOPs, simulated seconds, joules. Trains nothing."""
    from fedray import checks
    from fedray.planning import plan as plans

    planned = plans.plan(checks.check(checks.find(scenario), set_ or (), seed))
    if json:
        typer.echo(jsonlib.dumps(planned, indent=1))
        return
    from fedray.terminal import show_plan

    show_plan(planned)


@app.command(
    epilog=(
        'Example: fedray generate runs/quickstart --prompt "a photo of a bag in ink style" --num 4 --compare'
        " --out bags.png"
    )
)
def generate(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, of a finished run or one in progress.")
    ],
    prompt: Annotated[list[str], typer.Option("--prompt", "-p", help="What to show. May be repeated.")],
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="Images, or texts, a prompt.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A PNG for a grid, a folder for single files; a file for texts."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a prompt's first image; the others count up.")] = 0,
    guidance: Annotated[float | None, typer.Option(min=0, help="Otherwise as the run's own samples.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of a text, tokens. Otherwise as the run's own samples.")
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What not to show.")] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="The base model beside it, from the same noise.")
    ] = False,
    json: Json = False,
) -> None:
    """Images or texts from a run. Their prompt, seed and settings are in each PNG."""
    from fedray.generate import generate as generated

    rows = generated(run, prompt, out, num, seed, guidance, steps, negative, compare)
    files = list(dict.fromkeys(row["file"] for row in rows))
    if json:
        typer.echo(
            jsonlib.dumps(
                {"run": str(run), "files": files, "texts" if "text" in rows[0] else "images": rows}, indent=1
            )
        )
        return
    for row in (row for row in rows if "text" in row):
        typer.echo(printable(f"--- {row['model']}, seed {row['seed']}\n{row['text']}\n", keep="\n"))
    typer.echo("\n".join(files))


@app.command(
    epilog="Example: fedray report runs/huang2023-tiny · fedray report runs/lora runs/full --out both.html"
)
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders; several are compared, a sweep's variants too."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Otherwise report.html in the (first) run folder.")
    ] = None,
    network: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What it would cost on this scenario's network, beside."),
    ] = None,
) -> None:
    """One self-contained HTML page of a run, or of several compared."""
    from fedray.report.page import write

    typer.echo(write(runs, out, network))


@app.command(epilog="Example: fedray env")
def env(json: Json = False) -> None:
    """Versions, devices and Ray: a block to paste into an issue."""
    from fedray.runs import environment

    facts = environment.environment() | environment.devices()
    if json:
        typer.echo(jsonlib.dumps(facts, indent=1))
        return
    packages = facts.pop("packages")
    for name, value in (facts | packages).items():
        typer.echo(f"{name:<14}{value if value is not None else 'not installed'}")


@app.command(
    epilog=(
        "Example: fedray schema > fedray.schema.json, and # yaml-language-server: $schema=fedray.schema.json"
        " in a scenario"
    )
)
def schema() -> None:
    """The scenario's JSON Schema: editors complete and check with it."""
    from fedray.scenario.schema import schema as json_schema

    typer.echo(jsonlib.dumps(json_schema(), indent=1))


@app.command("list", epilog="Example: fedray list --json")
def list_(json: Json = False) -> None:
    """The shipped scenarios."""
    from fedray import shipped

    found = [
        {
            "name": name,
            "file": str(file),
            "description": file.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# "),
        }
        for name, file in shipped.scenarios().items()
    ]
    if json:
        typer.echo(jsonlib.dumps({"scenarios": found}, indent=1))
        return
    names = max(len(one["name"]) for one in found) + 2
    width = max(shutil.get_terminal_size().columns, names + 20)
    for one in found:
        first, *rest = textwrap.wrap(one["description"], width - names)
        typer.echo("\n".join([f"{one['name']:<{names}}{first}", *(" " * names + line for line in rest)]))


@app.command(epilog="Example: fedray show quickstart")
def show(name: ShippedArg) -> None:
    """Print a shipped scenario."""
    typer.echo(_text(name), nl=False)


@app.command(epilog="Example: fedray copy quickstart mine.yaml")
def copy(name: ShippedArg, file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")]) -> None:
    """Copy a shipped scenario to a file of your own, the schema beside it; it runs like the original."""
    from fedray.scenario import ScenarioError
    from fedray.scenario.schema import FILE, point_at, schema

    text = _text(name)
    try:
        if file.exists():
            raise ScenarioError([f"{file}: got a file that is there already, expected a new one"])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(point_at(text, FILE), encoding="utf-8")
        (file.parent / FILE).write_text(jsonlib.dumps(schema(), indent=1) + "\n", encoding="utf-8")
    except OSError as e:
        raise ScenarioError(
            [f"{file}: got a file that cannot be written ({e.strerror}), expected another place"]
        ) from None
    typer.echo(f"{file} is yours, with {FILE} beside it for editors. Next: fedray run {file}")


def _text(scenario: str) -> str:
    """Of a shipped scenario, or a file."""
    from fedray import checks
    from fedray.scenario.tree import text_of

    return text_of(checks.find(scenario))


def main() -> None:
    """The command line. A user's mistake is one line and exit code 2, never a traceback."""
    try:
        app()
    except UserError as e:
        _fail(str(e).split("\n"), 2)


def _reopened(resume: Path, rounds: int | None) -> tuple[Any, Any, dict[str, Any] | None]:
    """The folder of a run that is to go on, its scenario, and its result where it is done."""
    from fedray import checks, executors
    from fedray import resume as resuming
    from fedray.runs.folder import RunFolder

    run = RunFolder.reopen(resume, "--resume ")
    loaded = resuming.reopened(run, rounds)
    if (already := resuming.finished(run, loaded.scenario.training.rounds)) is not None:
        resuming.refuse_edited(run, loaded)
        return run, loaded, already
    loaded = checks.check(loaded.file, loaded.settings)
    executors.refuse_silent_ray(loaded.scenario)
    return run, loaded, None


def _report(path: Path, note: Callable[[str], None]) -> None:
    """report.html of a run that is done. A run is worth more than its page: what goes wrong here is said and
    passed over."""
    from fedray.report.page import write

    try:
        write([path])
    except Exception as e:
        note(f"the report was not written: {type(e).__name__}: {e}; try: fedray report {path}")


def _finish(path: Path, result: dict[str, Any], json: bool, quiet: bool, how: str) -> None:
    if json:
        typer.echo(jsonlib.dumps({"run": str(path), **result}, indent=1))
        return
    for name, one in result.get("variants", {"": result}).items():
        told = "see its error.json and output.log"
        if one["status"] == "done":
            told = f"{one['rounds']} rounds, weights {one['weights_sha256'][:12]}"
        typer.echo(printable(f"{path / name} {one['status'] if name else how}: {told}"))
    if (path / "report.html").exists():
        typer.echo(f"report: {path / 'report.html'}")
    if not quiet and "variants" not in result:
        opens = (
            f"; or load {path / 'model'} in diffusers"
            if "model/text_encoder/config.json" in result["artifacts"]
            else ""
        )
        writes = any(file.startswith("samples/") and file.endswith(".txt") for file in result["artifacts"])
        typer.echo(
            f'next: fedray generate {path} --prompt "..."{opens}'
            if opens or writes
            else f"next: look into {path / 'model'}"
        )


def _fail(lines: list[str], code: int) -> None:
    sys.stdout.flush()
    for line in lines:
        print(printable(line), file=sys.stderr)
    sys.exit(code)
