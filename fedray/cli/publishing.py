"""The verb that brings a result to a hub: publish."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from fedray.cli.shared import Json, app, fail, run_folder
from fedray.errors import printable


@app.command(
    epilog=(
        "Example: fedray publish runs/ink me/ink-lora --dry-run ink-lora, look into it, then fedray publish"
        " runs/ink me/ink-lora --license apache-2.0. HF_TOKEN: the hub's token, otherwise that of hf auth"
        " login. Exit codes: 0 done, 1 the hub did not take it, 2 a run that is not done, or bad usage."
    )
)
def publish(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run, or its URI.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the hub.")],
    dry_run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write what would be published there, and publish nothing."),
    ] = None,
    license_name: Annotated[
        str,
        typer.Option("--license", metavar="ID", help="Of the weights, as the hub calls it: apache-2.0, ..."),
    ] = "unknown",
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    json: Json = False,
) -> None:
    """Bring a run's model and its card to the Hugging Face hub, and nothing of the clients' data."""
    from fedray.publishing.hub import NotPublished
    from fedray.publishing.publish import publish as published

    try:
        result = published(run_folder(run), repo, dry_run, license_name, private)
    except NotPublished as e:
        fail([str(e)], 1)
    if json:
        typer.echo(jsonlib.dumps(result, indent=1))
        return
    for file in result["files"]:
        typer.echo(printable(f"{file['bytes']:>15,} {file['name']}"))
    if dry_run is None:
        typer.echo(f"published: {result['url']}")
    else:
        typer.echo(printable(f"nothing was published; what would be lies in {dry_run}"))
