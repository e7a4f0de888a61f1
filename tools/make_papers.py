"""Writes what of the papers runs: `python tools/make_papers.py > docs/papers.md`, after a change of
tools/papers.yaml or of a shipped scenario's `shows`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from fedray import shipped

CLAIMS = Path(__file__).with_name("papers.yaml")
INTRO = """# What of the papers runs

Every claim, figure, table and direction of the three papers that fedray grew from, with the scenarios that show it.
A scenario names what it shows in its own `shows`; this page is made from those lines and from tools/papers.yaml:
`python tools/make_papers.py > docs/papers.md`. What came out stands in [Results](results.md) and in each scenario's
`description`. "Not shown" is said where nothing runs.
"""


def read(file: Path) -> Any:
    return YAML(typ="safe").load(file.read_text(encoding="utf-8"))


def claims() -> dict[str, dict[str, str]]:
    """Every claim by its id, `paper/name`."""
    return {f"{one['paper']}/{name}": claim for one in read(CLAIMS) for name, claim in one["claims"].items()}


def shown_by(files: Mapping[str, Path]) -> dict[str, list[str]]:
    """The names of the scenarios that show each claim."""
    shown: dict[str, list[str]] = {}
    for name, file in files.items():
        for claim in read(file).get("shows", []):
            shown.setdefault(claim, []).append(name)
    return shown


def headline(file: Path) -> str:
    """The first line of a scenario's file: what it is, and how long it takes or what it needs."""
    return file.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")


def page() -> Iterator[str]:
    files = shipped.scenarios()
    shown = shown_by(files)
    yield INTRO
    for paper in read(CLAIMS):
        yield f"## {paper['title']}\n"
        yield "| where | what | shown by |"
        yield "| --- | --- | --- |"
        for name, claim in paper["claims"].items():
            by = ", ".join(f"`{one}`" for one in shown.get(f"{paper['paper']}/{name}", []))
            yield f"| {claim['where']} | {claim['says']} | {by or 'Not shown. ' + claim['missing']} |"
        yield ""
    yield "## The scenarios\n"
    yield "`fedray run NAME` runs one; those that need weights or a GPU are planned here by `fedray plan NAME`.\n"
    yield "| scenario | what it is |"
    yield "| --- | --- |"
    for name in sorted({one for names in shown.values() for one in names}):
        yield f"| `{name}` | {headline(files[name])} |"


if __name__ == "__main__":
    print("\n".join(page()))
