"""Users' modules: what goes with a run to processes that do not have the files, and what is loaded anew."""

import pickle
import shutil
import subprocess
import sys

import pytest

from fedray.checks import check
from fedray.executors import Job
from fedray.scenario import plugins
from fedray.scenario.kinds import implementation
from fedray.scenario.modules import file_of, read, with_imports
from tests.plugins.users import users_folder

LEARNER = {"model": {"kind": "my_learner:SmallNet"}}


def names(folder, module):
    return [one.name for one in with_imports(read(module, file_of(module, folder)))]


def test_a_job_brings_the_users_modules_to_a_process_that_lacks_their_files(tmp_path):
    """And what they import from beside themselves: here, as on another node, the folder is gone."""
    loaded = check(users_folder(tmp_path / "home", LEARNER))
    job = tmp_path / "job.pickle"
    job.write_bytes(pickle.dumps(Job(loaded.scenario, tmp_path)))
    shutil.rmtree(tmp_path / "home")
    program = (
        "import pickle, sys\n"
        "from fedray.scenario.kinds import implementation\n"
        "job = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "learner = implementation(job.scenario.model)\n"
        "import my_network\n"
        "print(learner.__module__, learner.__name__, my_network.Small.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, job], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "my_learner SmallNet Small\n"), done.stderr


def test_modules_in_packages_go_with_what_they_import_of_their_package(tmp_path):
    package = tmp_path / "mine" / "inner"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .rules import Mine\n")
    (package / "rules.py").write_text("import csv, torch, fedray\nfrom ..tools import mean\nMine = mean\n")
    (tmp_path / "mine" / "tools.py").write_text("def mean():\n    import late\n")
    (tmp_path / "late.py").write_text("")
    (tmp_path / "csv.py").write_text("")  # Python has its own
    assert sorted(names(tmp_path, "mine.inner.rules")) == [
        "late",
        "mine",
        "mine.inner",
        "mine.inner.rules",
        "mine.tools",
    ]


def test_a_module_that_was_edited_is_loaded_anew_and_one_that_was_not_is_kept(tmp_path):
    def learner():
        return implementation(check(file).scenario.model)

    file = users_folder(tmp_path, LEARNER)
    first = learner()
    assert learner() is first
    (tmp_path / "my_network.py").write_text((tmp_path / "my_network.py").read_text() + "\nedited = True\n")
    assert learner() is not first
    assert sys.modules["my_network"].edited


def test_scenarios_of_two_folders_have_each_their_own_modules_of_one_name(tmp_path):
    files = [users_folder(tmp_path / name, LEARNER) for name in ("a", "b")]
    for file in files:
        (file.parent / "my_network.py").write_text(
            (file.parent / "my_network.py").read_text() + f"\nwhere = {file.parent.name!r}\n"
        )
    for file in (*files, *files):
        check(file)
        assert sys.modules["my_network"].where == file.parent.name


def test_a_kind_of_a_module_that_only_another_scenario_has_is_not_there(tmp_path):
    users_folder(tmp_path / "a")
    plugins.find("my_kinds:TrimmedMean", [tmp_path / "a"])
    with pytest.raises(plugins.NoKind) as refused:
        plugins.find("my_kinds:TrimmedMean", [tmp_path / "b"])
    assert refused.value.got == "my_kinds:TrimmedMean, whose module is not there"


def test_a_module_whose_name_an_installed_package_has_is_refused(tmp_path):
    import pydantic

    (tmp_path / "pydantic.py").write_text("")
    with pytest.raises(plugins.NoKind) as refused:
        plugins.find("pydantic:Mine", [tmp_path])
    assert refused.value.got == f"pydantic:Mine, whose module has the name of {pydantic.__file__}"


def test_a_module_that_its_user_has_imported_already_is_the_one_that_is_loaded(tmp_path, monkeypatch):
    """As in a notebook, whose folder is on the path."""
    import importlib

    users_folder(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("my_kinds")
    assert plugins.find("my_kinds:TrimmedMean", [tmp_path]) is sys.modules["my_kinds"].TrimmedMean


def test_a_module_that_raises_leaves_the_one_of_before(tmp_path):
    users_folder(tmp_path)
    before = plugins.find("my_kinds:TrimmedMean", [tmp_path])
    text = (tmp_path / "my_kinds.py").read_text()
    (tmp_path / "my_kinds.py").write_text(text + "\n1 / 0\n")
    with pytest.raises(plugins.NoKind):
        plugins.find("my_kinds:TrimmedMean", [tmp_path])
    assert plugins.use("my_kinds:TrimmedMean") is before
    (tmp_path / "my_kinds.py").write_text(text)
    assert plugins.find("my_kinds:TrimmedMean", [tmp_path]) is before


def test_a_scenario_beside_the_package_takes_the_packages_own_classes_as_they_are():
    from pathlib import Path

    import fedray
    from fedray.aggregation.median import Median

    beside = Path(fedray.__file__).parents[1]
    assert plugins.find("fedray.aggregation.median:Median", [beside]) is Median
