"""The verbs about shipped scenarios, and about this installation: list, show, copy, schema, env."""

import json as jsonlib
import shutil
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from fedray.cli.shared import Json, ShippedArg, app


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

    listed = [
        {
            "name": name,
            "file": str(file),
            "description": file.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# "),
        }
        for name, file in shipped.scenarios().items()
    ]
    if json:
        typer.echo(jsonlib.dumps({"scenarios": listed}, indent=1))
        return
    names = max(len(one["name"]) for one in listed) + 2
    width = max(shutil.get_terminal_size().columns, names + 20)
    for one in listed:
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
