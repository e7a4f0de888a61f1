"""The folder that is published: the files of `model/`, the card, settings and metrics, and what to cite."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from fedray.errors import printable
from fedray.files import write_whole
from fedray.publishing.card import card
from fedray.publishing.facts import Facts
from fedray.runs import reader
from fedray.scenario import ScenarioError

CARD = "README.md"
FACTS = "fedray.json"
CITATIONS = "CITATION.bib"
LARGEST_JSON = 64 * 2**20  # bytes of a file that is looked through for paths


def package(run: Facts, repo: str, license_name: str, into: Path) -> list[str]:
    """Writes the folder, and gives its files' names.

    Args:
        run: what may be known of it.
        repo: owner/name.
        license_name: of the weights.
        into: an empty folder.

    Raises:
        ScenarioError: where the run's `model/` holds nothing, or links out of the run folder.
    """
    model = run.folder / "model"
    reader.refuse_links_within(run.folder, model)
    sources = dict(_sources(model))
    if not sources:
        raise ScenarioError([printable(f"{model}: got no files, expected the model that the run wrote")])
    for name, source in sources.items():
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".json" and source.stat().st_size <= LARGEST_JSON:
            write_whole(into / name, _without_paths(source))
        else:
            shutil.copyfile(source, into / name)
    write_whole(into / CARD, card(run, repo, license_name, list(sources)))
    write_whole(into / FACTS, json.dumps(run.as_json(), indent=1, allow_nan=False) + "\n")
    if run.citations:
        write_whole(into / CITATIONS, run.citations + "\n")
    return sorted(str(file.relative_to(into)) for file in into.rglob("*") if file.is_file())


def _sources(model: Path) -> Iterator[tuple[str, Path]]:
    """The model's files by their names; a card that a library wrote there gives way to ours."""
    for file in sorted(model.rglob("*")):
        name = file.relative_to(model)
        hidden = any(part.startswith(".") for part in name.parts)
        if file.is_file() and not hidden and str(name) != CARD:
            yield str(name), file


def _without_paths(file: Path) -> str:
    """A JSON file's text, in which paths of this machine are their last names: libraries write down where a
    base model lay."""
    text = file.read_text(encoding="utf-8")
    try:
        tree = json.loads(text)
    except ValueError:
        return text
    bare = _bare(tree)
    return text if bare == tree else json.dumps(bare, indent=2, ensure_ascii=False) + "\n"


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _named(one) if key.endswith("path") else _bare(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_bare(one) for one in value]
    if isinstance(value, str) and os.path.isabs(value) and len(PurePath(value).parts) > 2:
        return PurePath(value).name if _exists(value) else value
    return value


def _named(value: Any) -> Any:
    """What a key holds that names a place: of one of this machine, there or gone, its last name."""
    return PurePath(value).name if isinstance(value, str) and os.path.isabs(value) else _bare(value)


def _exists(path: str) -> bool:
    try:
        return os.path.exists(path)
    except ValueError:  # zero bytes
        return False
