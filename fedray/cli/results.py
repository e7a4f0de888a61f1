"""The verbs that show what runs made, and whether it is as they left it: generate, report, verify."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from fedray.cli.shared import Json, app, fail, run_folder
from fedray.errors import printable


@app.command(
    epilog=(
        'Example: fedray generate runs/quickstart --prompt "a photo of a bag in ink style" --num 4 --compare'
        " --out bags.png"
    )
)
def generate(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run folder, of a finished run or one in progress, or its URI."),
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            "-p",
            help="What to show. May be repeated. None for a model whose images come from noise alone.",
        ),
    ] = None,
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
    condition: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The picture that images follow, of a run with a ControlNet; its edges where those are its "
            "condition. Otherwise the run's own examples.",
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="The base model beside it, from the same noise.")
    ] = False,
    json: Json = False,
) -> None:
    """Images or texts from a run. Their prompt, seed and settings are in each PNG."""
    from fedray.generate import generate as generated

    rows = generated(
        run_folder(run), prompt or [], out, num, seed, guidance, steps, negative, compare, condition
    )
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
        list[str],
        typer.Argument(metavar="RUN...", help="Run folders; several are compared, a sweep's variants too."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Otherwise report.html in the (first) run folder.")
    ] = None,
    network: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What it would cost on this scenario's network, beside."),
    ] = None,
    tables: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also table.csv and table.tex, with means over runs that differ in their seeds alone.",
        ),
    ] = None,
) -> None:
    """One self-contained HTML page of a run, or of several compared."""
    from fedray.report.page import write

    folders = [run_folder(run) for run in runs]
    if out is None and folders[0] != Path(runs[0]):
        out = Path("report.html")  # what was fetched is nobody's to look into
    typer.echo(write(folders, out, network))
    if tables is not None:
        from fedray.report.tables import write as write_tables

        for file in write_tables(folders, tables):
            typer.echo(file)


@app.command(
    epilog="Example: fedray verify runs/ledger-quickstart --round 7 --client 3. Exit codes: 0 as it was"
    " signed, 1 something was changed, 2 no ledger there, or bad usage."
)
def verify(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run with a ledger, or its URI.")],
    round_: Annotated[
        int | None,
        typer.Option("--round", min=1, metavar="N", help="With --client: one update's proof."),
    ] = None,
    client: Annotated[int | None, typer.Option(min=0, metavar="K", help="With --round: whose.")] = None,
    json: Json = False,
) -> None:
    """Check the ledger of a run: signatures, the chain of heads, checkpoints, kept updates."""
    if (round_ is None) != (client is None):
        raise typer.BadParameter("--round goes with --client: got one of them, expected both or neither")
    from fedray.checks import refuse_without_signatures

    refuse_without_signatures()
    from fedray.verification import lines
    from fedray.verification import verify as verified

    result = verified(run_folder(run), round_, client)
    if json:
        typer.echo(jsonlib.dumps(result, indent=1))
    elif not result["problems"]:
        typer.echo("\n".join(lines(result)))
    if result["problems"]:
        fail([] if json else result["problems"], 1)
