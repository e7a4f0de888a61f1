"""What the code of the house may not do, read from its source."""

import ast
import importlib
import inspect
from pathlib import Path

import fedray
from fedray.scenario.base import Section

PACKAGE = Path(fedray.__file__).parent
# The rooms whose own kinds the sections of each module are; anywhere else a section is asked, not told apart.
ROOMS = {
    "aggregation": ("aggregation", "transport"),
    "augmentation": ("augmentation",),
    "cell": ("network",),
    "data": ("data",),
    "device": ("network",),
    "evaluation": ("evaluation",),
    "links": ("network",),
    "model": ("learners",),
    "network": ("network",),
    "population": ("planning/selection.py",),
    "radio": ("network",),
    "topology": ("topologies",),
    "training": ("executors/optimizer.py",),
    "tuning": ("tuning",),
}


def sections_told_apart(file):
    """(line, class) of each isinstance in a file that asks which section something is."""
    imported = {}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fedray.scenario."):
            module = importlib.import_module(node.module)
            for alias in node.names:
                value = getattr(module, alias.name, None)
                if inspect.isclass(value) and issubclass(value, Section) and value is not Section:
                    imported[alias.asname or alias.name] = value
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            for name in ast.walk(node.args[1]):
                if isinstance(name, ast.Name) and name.id in imported:
                    yield node.lineno, imported[name.id]


def test_no_room_asks_which_section_of_another_room_it_has():
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE).as_posix()
        if place.startswith("scenario/"):
            continue
        for line, section in sections_told_apart(file):
            own = ROOMS.get(section.__module__.rpartition(".")[2], ())
            if not place.startswith(own):
                found.append(f"fedray/{place}:{line}: isinstance of {section.__name__}")
    assert found == []


def test_the_rule_sees_an_isinstance_of_a_section(tmp_path):
    file = tmp_path / "engine.py"
    file.write_text("from fedray.scenario.topology import Split\nprint(isinstance(None, (int, Split)))\n")
    assert [(line, section.__name__) for line, section in sections_told_apart(file)] == [(2, "Split")]
