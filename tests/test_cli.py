import json
import os
import subprocess
import sys

import pytest

from fedray import shipped
from tests.helpers import UNSEEN, garments, tiny


def test_list_names_every_shipped_scenario_with_its_first_line(fedray, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    code, out, err = fedray("list")
    assert code == 0
    assert err == ""
    for name, file in shipped.scenarios().items():
        (line,) = [x for x in out.splitlines() if x.split()[0] == name]
        assert line.endswith(file.read_text().splitlines()[0].lstrip("# "))
    assert {"quickstart", "huang2023-lora", "huang2023-full"} <= set(shipped.scenarios())


def test_list_as_json_has_name_file_and_description(fedray):
    code, out, err = fedray("list", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)["scenarios"]
    assert {one["name"]: one["file"] for one in found} == {
        name: str(file) for name, file in shipped.scenarios().items()
    }
    assert next(one for one in found if one["name"] == "quickstart")["description"].startswith(
        "Five clients teach a small"
    )


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["list"], *([verb, "--help"] for verb in ["run", "check", "plan", "list", "copy"])],
)
def test_what_is_shown_fits_eighty_columns(arguments, fedray, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = fedray(*arguments)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert not [line for line in out.splitlines() if line.rstrip(" │").endswith("…")]


def test_a_plan_of_many_sites_and_long_names_fits_eighty_columns_and_leaves_nothing_out(capsys, monkeypatch):
    from fedray.plan_table import show_plan

    monkeypatch.setenv("COLUMNS", "80")
    sites = {f"hospital-number-{i}": i + 1 for i in range(12)}
    ways = ("uplink", "downlink", "sidelink")
    totals = {"transfers": 10**9, "sim_time_s": 1e6, "energy_j": 1e6} | {
        f"bytes_{way}": 10**12 for way in ways
    }
    show_plan(
        {
            "name": "n" * 64,
            "actors": {"executor": "ray", "client": 78, "sites": sites},
            "cpus_per_actor": 1,
            "gpus_per_actor": 0.25,
            "memory_bytes": {"client": 1e9},
            "parameters": 10**9,
            "trainable_parameters": 10**9,
            "home_parameters": 0,
            "payload_bytes": 10**9,
            "payload_bytes_uplink": 10**9,
            "payload_bytes_downlink": 10**9,
            "client_state_bytes": 0,
            "flops_per_sample": 1e12,
            "encode_flops_per_sample": 0,
            "preparation_flops": 0,
            "flops_per_picture": 0,
            "pictures": 0,
            "rounds": 10**9,
            "per_round": totals,
            "total": totals,
            "export_files": {"text_encoder/a-name-of-a-file-that-somebody-made-very-long.safetensors": 10**9},
        }
    )
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for site, clients in sites.items():
        assert f"{clients} at {site}" in " ".join(out.split()), out


def test_version_is_the_packages(fedray):
    from importlib.metadata import version

    assert fedray("--version") == (0, f"fedray {version('fedray')}\n", "")


def test_check_takes_settings_and_says_what_they_break(fedray, tmp_path):
    assert fedray("check", "quickstart", "--set", "training.rounds=5")[0] == 0
    code, out, err = fedray("check", "quickstart", "--set", "training.rounds=0")
    assert (code, out) == (2, "")
    assert err == "--set training.rounds=0: training.rounds: got 0, expected at least 1\n"


def test_check_as_json_is_one_object_of_problems_and_scenarios(fedray, tmp_path):
    bad = tiny(tmp_path, {"training.rounds": 0}, "bad.yaml")
    code, out, err = fedray("check", "quickstart", bad, "nowhere", "--json")
    assert (code, err) == (2, "")
    told = json.loads(out)
    assert [p.split(": got ")[0].removeprefix(f"{bad}:") for p in told["problems"]] == [
        "14: training.rounds",
        "nowhere",
    ]
    assert told["scenarios"] == [
        {"file": str(shipped.scenarios()["quickstart"]), "name": "quickstart", "ok": True},
        {"file": str(bad), "name": None, "ok": False},
        {"file": "nowhere", "name": None, "ok": False},
    ]
    code, out, err = fedray("check", "quickstart", "--json")
    assert (code, err, json.loads(out)["problems"]) == (0, "", [])


def test_a_file_that_is_no_text_is_not_shown(fedray, tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00caf\xe9")
    code, out, err = fedray("show", "bad.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("bad.yaml: got ")


def test_show_prints_a_scenario_and_copy_writes_the_same(fedray, tmp_path):
    code, shown, _ = fedray("show", "quickstart")
    assert code == 0
    assert shown == shipped.scenarios()["quickstart"].read_text()
    code, out, _ = fedray("copy", "quickstart", tmp_path / "new" / "mine.yaml")
    assert code == 0
    assert "Next: fedray run" in out
    copied = (tmp_path / "new" / "mine.yaml").read_text()
    assert copied.splitlines()[1] == "# yaml-language-server: $schema=fedray.schema.json"
    assert (tmp_path / "new" / "fedray.schema.json").is_file()
    assert [a for a, b in zip(copied.splitlines(), shown.splitlines(), strict=True) if a != b] in (
        [],
        [copied.splitlines()[1]],
    )
    code, out, _ = fedray("check", tmp_path / "new" / "mine.yaml")
    assert code == 0


def test_copy_writes_over_nothing(fedray, tmp_path):
    (tmp_path / "mine.yaml").write_text("mine")
    code, _, err = fedray("copy", "quickstart", "mine.yaml")
    assert code == 2
    assert err == "mine.yaml: got a file that is there already, expected a new one\n"
    assert (tmp_path / "mine.yaml").read_text() == "mine"


def test_a_scenario_that_is_not_there_comes_with_the_nearest_one(fedray):
    for verb in ("run", "plan", "check", "show"):
        code, _, err = fedray(verb, "quikstart")
        assert code == 2
        assert err == "quikstart: got a scenario that is not there, expected quickstart (did you mean it?)\n"


def test_check_says_everything_about_every_file_and_exits_2(fedray, tmp_path):
    one, two = (
        tiny(tmp_path, {"training.rounds": 0}, "one.yaml"),
        tiny(tmp_path, {"tuning.rank": 0, "model.base": "x y"}, "two.yaml"),
    )
    code, out, err = fedray("check", one, "quickstart", two)
    assert code == 2
    assert out == f"{shipped.scenarios()['quickstart']}: quickstart OK\n"
    assert [line.split(":")[0] for line in err.splitlines()] == [str(one), str(two)]


@pytest.mark.parametrize("arguments", [["--help"], ["check", "quickstart"], ["list"], ["run", "--help"]])
def test_looking_needs_neither_torch_nor_ray(arguments, tmp_path):
    code = (
        "import sys\nfrom fedray.cli import main\n"
        f"sys.argv = ['fedray', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        "loaded = {'torch', 'ray', 'diffusers', 'transformers', 'peft'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)


def test_python_m_fedray_is_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fedray", "check", "nowhere"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("nowhere: got a scenario that is not there")


BAD_RUNS = {
    "a scenario that is wrong": {"training.rounds": 0},
    "a base model that is not there": {"model.base": "no-model"},
    "a hub model that is not to be had": {"model.base": "nobody/no-model-at-all"},
    "targets that no layer has": {"tuning.targets": ["to_z"], "model.base": "tiny-sd"},
    "a pattern that no weight has": {"tuning": {"kind": "partial", "patterns": ["unet.nothing.*"]}},
    "a resolution that does not divide": {"model.resolution": 33},
}


@pytest.mark.parametrize("what", BAD_RUNS)
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_a_bad_scenario_is_lines_and_exit_code_2_and_leaves_nothing(verb, what, fedray, tmp_path):
    file = tiny(tmp_path, UNSEEN | BAD_RUNS[what])
    code, out, err = fedray(verb, file, *(["--out", "run"] if verb == "run" else []))
    assert code == 2, (code, out, err)
    assert err.startswith(f"{file}:")
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"]


def test_json_is_one_object_and_nothing_else(fedray, tmp_path):
    code, out, _ = fedray("run", garments(tmp_path), "--json", "--out", "run")
    result = json.loads(out)
    assert code == 0
    assert result == {"run": "run", **json.loads((tmp_path / "run" / "result.json").read_text())}


def test_a_run_without_out_gets_a_new_folder_and_says_where_and_what_next(fedray, tmp_path, monkeypatch):
    file = garments(tmp_path, {"training.rounds": 1, "name": "mine"})
    code, out, _ = fedray("run", file)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("serial, on ")
    assert lines[1].startswith("round 1/1  loss 2.")
    assert lines[2].startswith("runs/mine done: 1 rounds")
    assert lines[3] == "report: runs/mine/report.html"
    assert lines[4] == "next: look into runs/mine/model"
    assert (tmp_path / "runs" / "mine" / "report.html").stat().st_size > 10_000
    monkeypatch.setenv("FEDRAY_RUNS", "elsewhere")
    code, out, _ = fedray("run", file, "--quiet", "--seed", 3)
    assert code == 0
    assert len(out.splitlines()) == 2
    assert out.startswith("elsewhere/mine done")
    shas = [
        json.loads((tmp_path / name / "mine" / "result.json").read_text())["weights_sha256"]
        for name in ("runs", "elsewhere")
    ]
    assert shas[0] != shas[1]


def test_a_run_that_fails_says_where_to_look_and_exits_1(fedray, tmp_path):
    changes = {"training.local_steps": 2, "training.optimizer.learning_rate": 1e30}
    changes["runtime"] = {"executor": "serial", "failures": {"data": "abort"}}
    code, out, err = fedray("run", garments(tmp_path, changes), "--out", "run", "--json")
    assert code == 1
    assert out == ""
    assert "Traceback" not in err
    first, advice, second = err.splitlines()
    assert first.startswith("the run failed: client ")
    assert "in round 1, while training: the loss of step 2 is" in first
    assert (
        advice
        == "what to try: mend its data or the training, or leave such clients out: runtime: {failures: {data:"
        " drop}}"
    )
    assert second == "see run/error.json and run/run.log; to go on: fedray run --resume run"


def test_usage_errors_exit_2(fedray):
    for arguments in (
        ["run"],
        ["run", "--nonsense"],
        ["nonsense"],
        ["run", "quickstart", "--seed", "x"],
        ["copy", "quickstart"],
    ):
        code, _, err = fedray(*arguments)
        assert (code, "Traceback" in err) == (2, False), arguments


def test_an_out_that_is_a_file_is_refused(fedray, tmp_path):
    (tmp_path / "taken").write_text("mine")
    code, _, err = fedray("run", "quickstart", "--out", "taken")
    assert code == 2
    assert err.startswith("--out taken: got a file")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_refused_run_leaves_the_users_own_files_in_its_folder(fedray, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    code, _, _ = fedray("run", tiny(tmp_path, UNSEEN | BAD_RUNS["targets that no layer has"]), "--out", "out")
    assert code == 2
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_env_says_versions_devices_and_ray(fedray):
    code, out, _ = fedray("env")
    assert code == 0
    facts = dict(line.split(None, 1) for line in out.splitlines())
    assert {
        "python",
        "platform",
        "cpus",
        "gpus",
        "memory",
        "ray_address",
        "fedray",
        "torch",
        "ray",
        "diffusers",
    } <= set(facts)
    code, out, _ = fedray("env", "--json")
    assert json.loads(out)["packages"]["fedray"] == facts["fedray"]


def test_the_schema_takes_every_shipped_scenario_and_refuses_what_load_refuses(fedray):
    import jsonschema
    from ruamel.yaml import YAML

    code, out, _ = fedray("schema")
    assert code == 0
    schema = json.loads(out)
    check = jsonschema.Draft202012Validator(schema)
    for file in shipped.scenarios().values():
        assert "# yaml-language-server: $schema=" in file.read_text()
        tree = YAML(typ="safe", pure=True).load(file.read_text())
        assert not list(check.iter_errors(tree))
        assert list(check.iter_errors(tree | {"trainng": {}}))
        assert list(check.iter_errors(tree | {"training": tree["training"] | {"rounds": 0}}))
        assert list(check.iter_errors(tree | {"tuning": {"kind": "lora", "rnk": 8}}))


def test_the_schema_that_ships_is_the_one_it_prints(fedray):
    ours = next(iter(shipped.scenarios().values())).parent.parent / "fedray.schema.json"
    assert fedray("schema")[1] == ours.read_text()


@pytest.mark.parametrize(
    "verb", ["run", "check", "plan", "generate", "report", "env", "schema", "list", "show", "copy"]
)
def test_help_of_every_verb_has_an_example(fedray, verb):
    code, out, _ = fedray(verb, "--help")
    assert code == 0
    assert f"fedray {verb}" in " ".join(out.split("Example")[1].split())


def test_the_shell_completes_shipped_scenarios():
    command = os.path.join(os.path.dirname(sys.executable), "fedray")
    typed = {"_FEDRAY_COMPLETE": "complete_bash", "COMP_WORDS": "fedray run huang", "COMP_CWORD": "2"}
    done = subprocess.run([command], env=os.environ | typed, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        f"huang2023-{name}"
        for name in ("full", "lora", "sidelink", "table1", "table2", "table2-sizes", "tiny", "topologies")
    ]


def test_the_page_of_the_command_line_names_every_verb_and_variable():
    import re
    from pathlib import Path

    from typer.main import get_command

    from fedray.cli import app

    root = Path(__file__).parent.parent
    page = (root / "docs" / "command-line.md").read_text()
    for verb in get_command(app).commands:
        assert re.search(rf"`(fedray |`?){verb}\b|`{verb} ", page), verb
    used = {
        v
        for f in (root / "fedray").rglob("*.py")
        for v in re.findall(r"(?:environ\S*?[\[(]|TOKEN = )\"(FEDRAY_\w+)", f.read_text())
    }
    assert used == set(re.findall(r"`(FEDRAY_\w+)`", page))


@pytest.mark.parametrize("name", ["scenario.yaml", "metrics.jsonl", "anything"])
def test_a_folder_with_files_of_somebody_else_is_no_run_folder(fedray, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    code, _, err = fedray("run", "quickstart", "--out", "out")
    assert (code, err) == (
        2,
        "--out out: got a folder that holds other files, expected a new or an empty one\n",
    )
    assert {p.name: p.read_text() for p in (tmp_path / "out").iterdir()} == {name: "mine"}


def test_a_place_where_no_folder_can_be_is_refused(fedray, tmp_path):
    (tmp_path / "file").write_text("mine")
    for arguments in (("run", "quickstart", "--out", "file/run"), ("copy", "quickstart", "file/mine.yaml")):
        code, _, err = fedray(*arguments)
        assert code == 2
        assert err.count("\n") == 1
