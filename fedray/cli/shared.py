"""The command line's application, and what its verbs share."""

import atexit
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fedray import __version__
from fedray.errors import printable

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


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedray {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


def shipped_names(incomplete: str) -> list[str]:
    from fedray import shipped

    return [name for name in shipped.scenarios() if name.startswith(incomplete)]


SCENARIO = typer.Argument(
    metavar="SCENARIO", help="A file, or the name of a shipped scenario.", autocompletion=shipped_names
)
SCENARIOS = typer.Argument(
    metavar="SCENARIO...", help="Files, or names of shipped scenarios.", autocompletion=shipped_names
)
ShippedArg = Annotated[
    str, typer.Argument(metavar="NAME", help="A shipped scenario.", autocompletion=shipped_names)
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=v", help="Change one key, the value in YAML. May be repeated."),
]
Seed = Annotated[int | None, typer.Option(help="Another seed than the scenario's.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, and nothing else.")]


def run_folder(place: str) -> Path:
    """A run's folder of this machine: its path, or what is fetched from its URI until this process ends."""
    from fedray.runs.remote import Remote, is_uri, remove

    if not is_uri(place):
        return Path(place)
    folder = Remote(place).fetch()
    atexit.register(remove, folder)
    return folder


def fail(lines: list[str], code: int) -> NoReturn:
    """Ends the process with lines on standard error."""
    sys.stdout.flush()
    for line in lines:
        print(printable(line), file=sys.stderr)
    sys.exit(code)
