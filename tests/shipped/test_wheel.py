"""What goes to others: the package's files, its metadata, its README outside the repository."""

import importlib.util
import re
import sys
import tomllib
import types
from pathlib import Path

import pytest

from fedray import shipped

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture
def outside(monkeypatch):
    """The README's text as the wheel has it; hatchling, which is there only while a wheel is built, stands
    aside."""
    interface = types.ModuleType("hatchling.metadata.plugin.interface")
    interface.MetadataHookInterface = object
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    file = ROOT / PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["path"]
    spec = importlib.util.spec_from_file_location("wheel_readme", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hook = module.WheelReadme()
    hook.root, metadata = str(ROOT), {}
    hook.update(metadata)
    return metadata["readme"]["text"]


def test_every_link_of_the_wheels_readme_leads_somewhere_outside_the_repository(outside):
    assert "readme" in PROJECT["project"]["dynamic"]
    links = re.findall(r"\]\(([^)]*)\)", outside)
    assert links
    assert all(link.startswith("https://") for link in links), links
    assert "(docs/command-line.md, in the repository)" in outside
    assert len(outside) > 0.95 * len((ROOT / "README.md").read_text())


def test_the_licence_names_that_of_the_data_that_ship_and_its_text_goes_along():
    assert PROJECT["project"]["license"] == "Apache-2.0 AND MIT"
    texts = [(ROOT / file).read_text() for file in PROJECT["project"]["license-files"]]
    assert ["Apache License" in texts[0], "The MIT License" in texts[1], len(texts)] == [True, True, 3]
    assert "MIT License\n\nCopyright (c) Microsoft Corporation" in texts[2]


def test_no_file_that_ships_has_a_path_of_a_machine_in_it():
    machine = re.compile(rb"/(?:tmp|work|root|home/\w+|Users/\w+)/\w")
    folders = [shipped.HERE, ROOT / "scenarios"]
    files = [
        p for folder in folders for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts
    ]
    assert len(files) > 50
    found = {str(p): match.group() for p in files if (match := machine.search(p.read_bytes()))}
    assert not found
