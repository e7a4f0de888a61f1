"""Kinds of installed packages, by the short names of their entry points; and the schema that editors read."""

import json
import os
import shutil
import subprocess
import sys

import jsonschema
import pytest
from ruamel.yaml import YAML

from tests.plugins.test_rooms import ROOMS, changes
from tests.plugins.test_runs import cut_after, sha
from tests.plugins.users import users_folder

MODULE = '''
import fedray
from acme_base import Trimmed
from pydantic import Field


class Mine(fedray.Rule):
    class Section(fedray.Rule.Section):
        trim: int = Field(default=1, ge=0, description="How many at each end.")

    accumulator = fedray.Gathered
    combine = Trimmed.combine


class Noise(fedray.Hook):
    """It goes by the name that one of our defences has."""
'''
BASE = """
class Trimmed:
    def combine(self, result):
        n, trim = len(result.values), self.section.trim
        return result.values.sort(0).values[trim : n - trim].double().mean(0)
"""
ENTRIES = """[fedray.kinds]
acme_trimmed = acme_kinds:Mine
acme_broken = acme_broken:Mine
acme_gone = acme_kinds:Gone
noise = acme_kinds:Noise
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with an installed package that has kinds, on the path of this process and those it starts."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "acme_kinds.py").write_text(MODULE)
    (folder / "acme_base.py").write_text(BASE)
    (folder / "acme_broken.py").write_text("\n1 / 0\n")
    info = folder / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield folder


@pytest.fixture(scope="module")
def installed_run(site, tmp_path_factory):
    """A run of an installed rule, and its folder."""
    from tests.helpers import run

    folder = tmp_path_factory.mktemp("installed")
    file = users_folder(folder, {"aggregation": {"kind": "acme_trimmed", "trim": 2}})
    run(file, folder / "run")
    return folder / "run"


def test_a_process_of_its_own_checks_an_installed_kind(site, tmp_path):
    file = users_folder(tmp_path, {"aggregation": {"kind": "acme_trimmed", "trim": 2}})
    command = [sys.executable, "-m", "fedray", "check", file]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: garments OK\n", "")


def test_an_installed_rule_runs_by_its_short_name(installed_run, tmp_path):
    from tests.helpers import run

    median = run(users_folder(tmp_path, {"aggregation": {"kind": "median"}}), tmp_path / "run")
    assert sha(installed_run) == median["weights_sha256"]


def test_its_run_goes_on_from_anywhere_with_the_same_bits(installed_run, fedray, tmp_path):
    cut = cut_after(installed_run, tmp_path / "cut", 1)
    code, _, err = fedray("run", "--resume", cut, "--quiet")
    assert (code, err) == (0, "going on from round-0001\n")
    assert sha(cut) == sha(installed_run)


def test_another_version_of_its_package_has_to_be_accepted(
    installed_run, site, fedray, tmp_path, monkeypatch
):
    newer = shutil.copytree(site, tmp_path / "site")
    metadata = newer / "acme-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "1.1"))
    monkeypatch.syspath_prepend(str(newer))
    cut = cut_after(installed_run, tmp_path / "cut", 1)
    code, _, err = fedray("run", "--resume", cut, "--quiet")
    assert code == 2
    assert ": acme_trimmed: got acme 1.1, expected acme 1.0, as before (or go on with it: " in err
    assert fedray("run", "--resume", cut, "--quiet", "--accept-changed-code")[0] == 0


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"kind": "acme_trimmed", "trim": -1}, "aggregation.trim: got -1, expected at least 0"),
        ({"kind": "acme_trimmed", "trm": 1}, "aggregation.trm: got an unknown key, expected trim (did you"),
        ({"kind": "acme_trimed"}, "aggregation.kind: got 'acme_trimed', expected acme_trimmed (did you mean"),
        (
            {"kind": "acme_broken"},
            "aggregation.kind: got acme_broken, which does not import: {site}/acme_broken.py:2: ZeroDivision",
        ),
        (
            {"kind": "acme_gone"},
            "aggregation.kind: got acme_gone, but acme_kinds has no Gone, expected Mine or Noise",
        ),
        ({"kind": "noise"}, "aggregation.kind: got noise, which is no fedray.Rule but a class of Hook, exp"),
        ({"kind": "acme_kinds:Mine", "trim": -1}, "aggregation.trim: got -1, expected at least 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["kind"],
)
def test_what_is_wrong_with_an_installed_kind_is_one_line(section, said, site, fedray, tmp_path):
    file = users_folder(tmp_path / "home", {"aggregation": section})
    code, out, err = fedray("check", file)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said.format(site=site) in err


def test_an_installed_kind_takes_no_name_of_ours(site, tmp_path):
    from tests.helpers import run

    topology = {
        "kind": "split",
        "cut": "conv1",
        "may_send": ["labels"],
        "defence": {"kind": "noise", "std": 1.0},
    }
    file = users_folder(tmp_path, {"topology": topology, "training.rounds": 1})
    assert run(file, tmp_path / "run")["status"] == "done"


@pytest.fixture(scope="module")
def schema(site):
    """The schema where a package with kinds is installed."""
    from fedray.scenario.schema import schema

    return jsonschema.Draft202012Validator(schema())


def tree(file):
    return YAML(typ="safe", pure=True).load(file.read_text())


@pytest.mark.parametrize("room", ROOMS)
def test_the_schema_takes_any_module_and_class_in_every_room(room, schema, tmp_path):
    assert list(schema.iter_errors(tree(users_folder(tmp_path, changes(room))))) == []


def test_the_schema_knows_the_keys_of_an_installed_kind(schema, tmp_path):
    def errors(section):
        return list(schema.iter_errors(tree(users_folder(tmp_path, {"aggregation": section}))))

    assert errors({"kind": "acme_trimmed", "trim": 2}) == []
    assert errors({"kind": "acme_trimmed", "trim": -1})
    assert errors({"kind": "acme_trimmed", "trm": 2})
    assert errors({"kind": "noise"})  # of another room
    assert errors({"kind": "acme_nowhere"})
    assert "How many at each end." in json.dumps(schema.schema)
