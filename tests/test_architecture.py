"""What the code of the house may not do, read from its source."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import fedray
from fedray.scenario.base import Section

PACKAGE = Path(fedray.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# The rooms whose own kinds the sections of each module are; anywhere else a section is asked, not told apart.
ROOMS = {
    "aggregation": ("aggregation",),
    "aggregation_section": ("aggregation",),
    "augmentation": ("augmentation",),
    "cell": ("network",),
    "data": ("data",),
    "device": ("network",),
    "environment": ("serving",),
    "evaluation": ("evaluation",),
    "links": ("network",),
    "model": ("learners",),
    "network": ("network",),
    "partition": ("data",),
    "personal": ("personal",),
    "privacy": ("privacy",),
    "providers": ("serving",),
    "population": ("planning/selection.py",),
    "radio": ("network",),
    "robust_aggregation": ("aggregation",),
    "server_optimizer": ("aggregation",),
    "topology": ("topologies",),
    "transforms": ("transport",),
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
    for file in FILES:
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


MOST_LINES = 350  # of a file
MOST_FUNCTION_LINES = 60


def functions(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_a_file_can_be_read_at_a_sitting(file):
    assert file.read_text(encoding="utf-8").count("\n") <= MOST_LINES
    long = [f.name for f in functions(file) if f.end_lineno - f.lineno >= MOST_FUNCTION_LINES]
    assert long == []


def test_functions_of_four_or_more_parameters_explain_each():
    silent = []
    for file in FILES:
        if file.is_relative_to(PACKAGE / "cli"):  # there a parameter's help is what a user reads
            continue
        for function in functions(file):
            arguments = function.args
            names = {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
            text = ast.get_docstring(function)
            names -= {"self", "cls"}
            if len(names) < 4 or not text or function.name.startswith("_"):
                continue
            if any(f"{name}: " not in text for name in names):
                silent.append(f"{file.relative_to(PACKAGE)}:{function.lineno} {function.name}")
    assert silent == []


def test_a_line_assigns_one_thing():
    """But for a swap, and for what a call gives several of."""
    several = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
                continue
            if isinstance(node.targets[0], ast.Tuple):
                several.append(f"{file.relative_to(PACKAGE)}:{node.lineno}")
    assert several == []
