"""Runs of users' kinds: all of them together, split, resumed and swept; and a stranger's run folder."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from fedray import api
from tests.helpers import rows, run
from tests.plugins.users import RATES, network, users_folder

ALL = {  # a kind of each room that goes with the others
    "model": {"kind": "my_learner:SmallNet", "width": 4},
    "tuning": {"kind": "my_kinds:Biases"},
    "aggregation": {
        "kind": "my_kinds:TrimmedMean",
        "transforms": [{"kind": "my_kinds:Scaled", "factor": 0.5}],
    },
    "topology": {"kind": "my_kinds:OneByOne"},
    "population": {"clients": 5, "per_round": 3, "selection": "my_kinds:Last"},
    "network": network(
        uplink={"kind": "my_kinds:RateTable", "rates_bps": RATES},
        device={"kind": "my_kinds:NanoDevice", "nanoseconds": 2.0},
    ),
    "evaluation": {"every": 1, "measures": [{"kind": "my_kinds:WeightNorm"}]},
    "runtime": {"executor": "serial", "report_to": ["my_kinds:CsvFile"]},
}
SPLIT = {
    "model": {"kind": "my_learner:SmallNet", "width": 4},
    "topology": {
        "kind": "split",
        "cut": "first",
        "may_send": ["labels"],
        "defence": {"kind": "my_kinds:Rounded", "bits": 8},
    },
}


def sha(run):
    return json.loads((run / "result.json").read_text())["weights_sha256"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A user's folder, and in it a run of three rounds with a kind of each room, and its report."""
    folder = tmp_path_factory.mktemp("whole") / "home"
    file = users_folder(folder, ALL | {"training.rounds": 3})
    api.run(file, folder / "run", progress=False)
    return folder


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """The weights of a split of a user's learner, which names its stages, in one process."""
    folder = tmp_path_factory.mktemp("split")
    return run(users_folder(folder, SPLIT), folder / "run")["weights_sha256"]


def test_a_kind_of_each_room_goes_into_one_run(whole):
    out = whole / "run"
    last = rows(out / "metrics.jsonl")[-1]
    assert last["round"] == 3
    assert last["eval_norm"] > 0
    assert len((out / "rounds.csv").read_text().splitlines()) == 3
    assert (out / "report.html").exists()


def test_its_report_names_the_kinds_and_their_options(whole):
    page = (whole / "run" / "report.html").read_text()
    for words in (
        "my_learner:SmallNet, width 4",
        "my_kinds:TrimmedMean",
        "trim 1",
        "my_kinds:Scaled, factor 0.5",
        "my_kinds:Biases",
        "my_kinds:OneByOne",
        "uplink my_kinds:RateTable",
    ):
        assert words in page


def test_what_a_users_section_cites_is_in_the_bibliography_where_we_have_it(whole):
    bibliography = (whole / "run" / "CITATION.bib").read_text()
    assert "{yin2018byzantine," in bibliography
    assert "nobody2026unheard" not in bibliography


def test_the_run_folder_names_the_modules_with_their_sha256(whole):
    import hashlib

    code = json.loads((whole / "run" / "env.json").read_text())["code"]
    assert code == {
        name: {
            "folder": str(whole),
            "sha256": hashlib.sha256((whole / f"{name}.py").read_bytes()).hexdigest(),
        }
        for name in ("my_learner", "my_kinds")
    }


def test_a_run_goes_on_with_the_same_bits_after_a_cut(whole, fedray, tmp_path):
    """From a folder that is not the user's: where the modules lay is in env.json."""
    cut = cut_after(whole / "run", tmp_path / "cut", 2)
    code, _, err = fedray("run", "--resume", cut, "--quiet")
    assert (code, err) == (0, "going on from round-0002\n")
    assert sha(cut) == sha(whole / "run")


def cut_after(whole, copy, round_number):
    """A copy of a run that was killed after this round."""
    shutil.copytree(whole, copy)
    (copy / "result.json").unlink()
    for checkpoint in (copy / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("round-")) > round_number:
            shutil.rmtree(checkpoint)
    return copy


def test_a_run_that_goes_on_with_a_changed_module_is_refused_until_somebody_accepts_that(
    whole, fedray, tmp_path
):
    home = shutil.copytree(whole, tmp_path / "home", ignore=shutil.ignore_patterns("run"))
    cut = cut_after(whole / "run", tmp_path / "cut", 2)
    edited = (home / "my_kinds.py").read_text() + "\n# a word more\n"
    (home / "my_kinds.py").write_text(edited)
    environment = json.loads((cut / "env.json").read_text())
    for module in environment["code"].values():
        module["folder"] = str(home)
    (cut / "env.json").write_text(json.dumps(environment))
    code, out, err = fedray("run", "--resume", cut, "--quiet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"--resume {cut}: my_kinds.py: got ")
    assert "(or go on with it: --accept-changed-code)" in err
    code, _, err = fedray("run", "--resume", cut, "--quiet", "--accept-changed-code")
    assert code == 0
    assert err.startswith("other code than before, with which bits may differ: my_kinds.py: got ")
    assert err.endswith("\ngoing on from round-0002\n")
    assert sha(cut) == sha(whole / "run")  # a comment changes no bit


@pytest.fixture
def stranger(whole, tmp_path):
    """A stranger's run folder with modules of the names that its scenario has, which leave a file behind
    where they are imported, and that file."""
    folder = cut_after(whole / "run", tmp_path / "stranger", 2)
    mark = tmp_path / "imported"
    for place in (folder, folder / "code", folder / "checkpoints"):
        place.mkdir(exist_ok=True)
        for module in ("my_kinds", "my_learner", "my_network"):
            (place / f"{module}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    environment = json.loads((folder / "env.json").read_text())
    for module in environment["code"].values():
        module["folder"] = str(folder / "code")
    (folder / "env.json").write_text(json.dumps(environment))
    return folder, mark


def fedray_in(folder, *arguments, **variables):
    """The command line as a process that begins in a folder, which is then among those of `python -m`."""
    command = [sys.executable, "-m", "fedray", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "verb",
    [
        ["report", "{run}"],
        ["generate", "{run}", "--prompt", "a bag"],
        ["run", "--resume", "{run}"],
        ["run", "{run}/scenario.resolved.yaml", "--out", "{run}-again"],
        ["check", "{run}/scenario.yaml"],
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_nothing_in_a_strangers_run_folder_is_imported(verb, inside, stranger, fedray, tmp_path, monkeypatch):
    folder, mark = stranger
    monkeypatch.chdir(folder if inside else tmp_path)
    code, _, err = fedray(*(word.format(run="." if inside else folder) for word in verb))
    assert code == 2
    assert not mark.exists()
    assert "my_learner:SmallNet, whose module is not there, expected " in err
    assert "Traceback" not in err


def test_nor_where_python_itself_looks_in_the_current_folder(stranger):
    folder, mark = stranger
    done = fedray_in(folder, "report", ".")
    assert done.returncode == 2
    assert "my_learner:SmallNet, whose module is not there" in done.stderr
    assert not mark.exists()


def test_a_strangers_run_is_shown_with_the_callers_own_modules(stranger, whole, fedray, monkeypatch):
    folder, mark = stranger
    monkeypatch.setenv("FEDRAY_CODE", str(whole))
    code, out, err = fedray("report", folder)
    assert (code, err) == (0, "")
    assert out == f"{folder / 'report.html'}\n"
    assert not mark.exists()


def test_a_strangers_sweep_that_goes_on_imports_nothing_of_its_folder(fedray, tmp_path, monkeypatch):
    """Its variants are new runs, whose scenarios lie in the run folder, beside what a stranger put there."""
    home = tmp_path / "home"
    file = users_folder(
        home,
        {"model": {"kind": "my_learner:SmallNet"}, "sweep": {"variants": {"a": {}}}, "training.rounds": 1},
    )
    assert fedray("run", file, "--out", home / "all", "--quiet")[0] == 0
    before = sha(home / "all" / "a")
    shutil.move(home / "all", tmp_path / "all")
    for name in ("result.json", "a/result.json"):
        (tmp_path / "all" / name).unlink()
    shutil.rmtree(tmp_path / "all" / "a" / "checkpoints")
    for place in (tmp_path / "all", tmp_path / "all" / "a"):
        (place / "my_learner.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    monkeypatch.chdir(home)
    code, _, err = fedray("run", "--resume", tmp_path / "all", "--quiet")
    assert (code, err) == (0, "")
    assert sha(tmp_path / "all" / "a") == before
    assert not (tmp_path / "imported").exists()


def test_a_split_cuts_a_users_learner_where_it_names_stages(split, fedray, tmp_path):
    for cut, code in (("first", 0), ("last", 0), ("second", 2)):
        topology = SPLIT["topology"] | {"cut": cut}
        file = users_folder(tmp_path / cut, SPLIT | {"topology": topology})
        got, _, err = fedray("plan", file, "--json")
        assert got == code, err
        if code:
            assert ": topology.cut: got 'second', expected auto, or one of first, last\n" in err
    whole = run(users_folder(tmp_path, {"model": SPLIT["model"]}), tmp_path / "run")
    assert split != whole["weights_sha256"]  # what is sent is rounded
    exact = SPLIT["topology"] | {"defence": None}
    cut = run(users_folder(tmp_path, SPLIT | {"topology": exact, "population.clients": 5}), tmp_path / "cut")
    assert cut["final"]["loss"] == pytest.approx(whole["final"]["loss"], rel=0.05)


def test_a_learner_is_counted_without_memory_or_says_itself_what_a_step_costs(fedray, tmp_path):
    def plan(name, changes):
        code, out, err = fedray("plan", users_folder(tmp_path / name, changes), "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    small = plan("small", {"model": {"kind": "my_learner:SmallNet", "width": 4}})
    assert small["parameters"] == 784 * 4 + 4 + 4 * 10 + 10
    forwards = 2 * (784 * 4 + 4 * 10)
    # the first layer's input needs no gradient
    assert small["flops_per_sample"] == forwards + 2 * (784 * 4) + 2 * 2 * (4 * 10)
    assert plan("countless", {"model": {"kind": "my_learner:Countless"}})["flops_per_sample"] == 1234


def test_a_learner_that_cannot_be_counted_cannot_be_cut(fedray, tmp_path):
    topology = SPLIT["topology"] | {"defence": None}
    changes = {"model": {"kind": "my_learner:Countless"}, "topology": topology}
    code, _, err = fedray("plan", users_folder(tmp_path / "home", changes))
    assert code == 2
    assert ": topology.kind: got split for a model without stages, expected " in err


def test_the_variants_of_a_sweep_find_the_users_kinds(fedray, tmp_path):
    """Each is a process of its own, whose scenario lies in the run folder."""
    home = tmp_path / "home"
    variants = {
        "mean": {},
        "trimmed": {"aggregation": {"kind": "my_kinds:TrimmedMean", "trim": 2}},
    }
    changes = {"sweep": {"variants": variants}, "model": {"kind": "my_learner:SmallNet"}}
    code, _, err = fedray("run", users_folder(home, changes), "--out", "all", "--quiet")
    assert (code, err) == (0, "")
    median = {"aggregation": {"kind": "median"}, "model": changes["model"]}
    alone = run(users_folder(tmp_path / "alone", median), tmp_path / "median")
    assert sha(tmp_path / "all" / "trimmed") == alone["weights_sha256"] != sha(tmp_path / "all" / "mean")
