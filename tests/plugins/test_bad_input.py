"""What is wrong with a user's kind is one line with the scenario's file and line, and no traceback."""

import json
import re

import pytest

from tests.plugins.users import RATES, network, users_folder

# what a user wrote in my_file.py, the kind that a scenario names, and what is said of it
KINDS = {
    "a class with a slip in its name": ("", "my_kinds:TrimedMean", "TrimmedMean (did you mean it?)"),
    "a class that is not there": (
        "import fedray\nclass Mine(fedray.Rule): pass\n",
        "my_file:Xyz",
        "got my_file:Xyz, but my_file has no Xyz, expected Mine",
    ),
    "one of ours with a slip in its name": ("", "fedavgg", "(did you mean fedavg?)"),
    "a dot for a colon": ("", "my_kinds.TrimmedMean", "my_kinds:TrimmedMean (did you mean it?)"),
    "no class": ("", "my_kinds:", "expected module:Class, such as "),
    "a file's name": ("", "my_kinds.py:TrimmedMean", "my_kinds:TrimmedMean (did you mean it?)"),
    "a module with a slip in its name": (
        "",
        "my_kind:TrimmedMean",
        "my_kinds:TrimmedMean (did you mean it?)",
    ),
    "a module that is not there": (
        "",
        "xyz:Mine",
        "got xyz:Mine, whose module is not there, expected xyz.py in {folder} or FEDRAY_CODE",
    ),
    "a module that imports what is not there": (
        "import torch\nimport xyz\n",
        "my_file:Mine",
        "which does not import: {folder}/my_file.py:2: ModuleNotFoundError: No module named 'xyz', expected",
    ),
    "a module that imports from us what is not there": (
        "from fedray import Xyz\n",
        "my_file:Mine",
        "which does not import: {folder}/my_file.py:1: ImportError: cannot import name 'Xyz' from 'fedray'",
    ),
    "a module that raises": (
        "def table():\n    return {{}}['missing']\n\n\ntable()\n",
        "my_file:Mine",
        "which does not import: {folder}/my_file.py:2: KeyError: 'missing', expected a module that imports",
    ),
    "a module that ends the process": (
        "import sys\nsys.exit(1)\n",
        "my_file:Mine",
        "which does not import: {folder}/my_file.py:2: SystemExit: 1, expected",
    ),
    "a syntax error": (
        "x = 1\ndef f(:\n",
        "my_file:Mine",
        "which does not import: {folder}/my_file.py:2: SyntaxError: invalid syntax, expected",
    ),
    "zero bytes": ("\0", "my_file:Mine", "which does not import: {folder}/my_file.py: SyntaxError: "),
    "a section that pydantic refuses": (
        "import fedray\nclass Mine(fedray.Rule):\n    class Section(fedray.Rule.Section):\n        n = 1\n",
        "my_file:Mine",
        "which does not import: {folder}/my_file.py:3: PydanticUserError: A non-annotated attribute",
    ),
    "a function": (
        "",
        "my_kinds:not_a_class",
        "which is no fedray.Rule but no class, expected a subclass of",
    ),
    "a class of nothing": (
        "",
        "my_kinds:Unrelated",
        "got my_kinds:Unrelated, which is no fedray.Rule but a class of Module, expected a subclass of",
    ),
    "a class of another room": (
        "",
        "my_kinds:Scaled",
        "which is no fedray.Rule but a class of Hook, expected",
    ),
    "a section of another room": (
        "import fedray\nclass Mine(fedray.Rule):\n    Section = fedray.Hook.Section\n",
        "my_file:Mine",
        "got my_file:Mine, whose Section is none, expected a subclass of fedray.Rule.Section",
    ),
    "a section that raises": (
        "import fedray\nfrom pydantic import model_validator\n\n\nclass Mine(fedray.Rule):\n"
        "    class Section(fedray.Rule.Section):\n        @model_validator(mode='after')\n"
        "        def whole(self):\n            return {{}}['missing']\n",
        "my_file:Mine",
        "got my_file:Mine, whose Section raises KeyError: 'missing' ({folder}/my_file.py:9), expected",
    ),
    "conflicts that raise": (
        "import fedray\n\n\nclass Mine(fedray.Rule):\n    class Section(fedray.Rule.Section):\n"
        "        def conflicts(self, scenario):\n            return {{}}['missing']\n",
        "my_file:Mine",
        "got my_file:Mine, whose conflicts raises KeyError: 'missing' ({folder}/my_file.py:7), expected",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_that_cannot_be_had_is_one_line_with_what_was_expected(name, fedray, tmp_path):
    text, kind, said = KINDS[name]
    folder = tmp_path / "home"
    file = users_folder(folder, {"aggregation": {"kind": kind}})
    (folder / "my_file.py").write_text(text.replace("{{}}", "{}"))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if kind in text)
    code, out, err = fedray("check", file)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"{file}:{line}: aggregation.kind: got {kind}") or f"got '{kind}'" in err
    assert said.format(folder=folder) in err


def test_a_class_without_what_it_has_to_have_is_told_what(fedray, tmp_path):
    file = users_folder(tmp_path / "home", {"topology": {"kind": "my_file:Mine"}})
    (tmp_path / "home" / "my_file.py").write_text("import fedray\nclass Mine(fedray.Topology): pass\n")
    code, _, err = fedray("check", file)
    assert code == 2
    assert ": topology.kind: got my_file:Mine, which has no schedule, expected a class that has\n" in err


def test_every_wrong_kind_of_a_scenario_is_told_at_once(fedray, tmp_path):
    changes = {
        "topology": {"kind": "my_kinds:OneByTwo"},
        "aggregation": {"kind": "my_kinds:Scaled"},
        "population": {"clients": 5, "selection": "my_kinds:Lasst"},
        "evaluation": {"measures": [{"kind": "nowhere:Norm"}]},
        "runtime": {"executor": "serial", "report_to": ["my_kinds:CsvFil"]},
    }
    code, _, err = fedray("check", users_folder(tmp_path / "home", changes))
    keys = {re.match(r"\S+:\d+: ([\w.]+): got ", line)[1] for line in err.splitlines()}
    assert code == 2
    assert keys == {
        "topology.kind",
        "aggregation.kind",
        "population.selection",
        "evaluation.measures.0.kind",
        "runtime.report_to.0",
    }


# a kind of my_broken.py that raises when it is used, where it stands, and what is done then
RAISING = {
    "Learning": ({"model": {"kind": "my_broken:Learning"}}, "client 0 in round 1, while training"),
    "Sending": (
        {"aggregation": {"kind": "fedavg", "transforms": [{"kind": "my_broken:Sending"}]}},
        "client 0 in round 1, while training",
    ),
    "Combining": (
        {"aggregation": {"kind": "my_broken:Combining"}},
        "the server in round 1, while aggregating",
    ),
    "Transferring": (
        {"network": network(uplink={"kind": "my_broken:Transferring", "rates_bps": RATES})},
        "the server in round 1, while simulating it",
    ),
    "Writing": (
        {"topology": {"kind": "my_broken:Writing"}},
        "the server in round 2, while writing its schedule",
    ),
    "Choosing": (
        {"population": {"clients": 5, "per_round": 2, "selection": "my_broken:Choosing"}},
        "the server in round 2, while writing its schedule",
    ),
    "Measuring": (
        {"evaluation": {"measures": [{"kind": "my_broken:Measuring"}]}},
        "the server, while evaluating",
    ),
    "Calling": (
        {"runtime": {"executor": "serial", "report_to": ["my_broken:Calling"]}},
        "callback my_broken:Calling in round 1, while on_round",
    ),
}


def raised_at(folder, name):
    """FILE:LINE of where a kind of my_broken.py raises."""
    lines = (folder / "my_broken.py").read_text().splitlines()
    number = next(n for n, line in enumerate(lines, 1) if line.endswith(f"# {name}"))
    return f"{folder / 'my_broken.py'}:{number}"


@pytest.mark.parametrize("name", RAISING)
def test_a_kind_that_raises_ends_the_run_with_who_when_and_the_users_line(name, fedray, tmp_path):
    changes, where = RAISING[name]
    file = users_folder(tmp_path / "home", changes)
    code, out, err = fedray("run", file, "--out", "run", "--quiet")
    first, *_ = err.splitlines()
    assert (code, out) == (1, "")
    assert first.startswith(f"the run failed: {where}: KeyError: 'no such key'")
    assert err.count("no such key") == 1
    assert "Traceback" not in err
    facts = json.loads((tmp_path / "run" / "error.json").read_text())
    assert facts["error"] == "KeyError"
    assert raised_at(tmp_path / "home", name).rsplit(":", 1)[1] in facts["traceback"]
    if name != "Calling":
        assert first.endswith(f" ({raised_at(tmp_path / 'home', name)})")


def test_a_learner_that_raises_while_it_is_counted_is_one_line_of_plan(fedray, tmp_path):
    file = users_folder(tmp_path / "home", {"model": {"kind": "my_broken:Counted"}})
    code, out, err = fedray("plan", file)
    assert (code, out) == (1, "")
    assert err.startswith(f"KeyError: 'no such key' ({raised_at(tmp_path / 'home', 'Counted')})\n")
    assert "Traceback" not in err
