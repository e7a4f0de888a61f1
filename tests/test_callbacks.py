"""What a run tells its callbacks, and what becomes of a callback that fails."""

import json
import os
import re
import shutil
import sys

import pyarrow.parquet
import pytest

import fedray
from fedray.callbacks.dispatch import CallbackList
from fedray.engine import RunFailed
from fedray.scenario.runtime import TRACKERS
from tests.helpers import broken_off, garments, rows, run, tiny


class Recording(fedray.Callback):
    """Keeps what it is told, in order."""

    def __init__(self):
        self.told = []

    def on_start(self, start):
        self.told.append(("start", start.rounds, start.done, [row["round"] for row in start.history]))

    def on_client(self, report):
        self.told.append(("client", report.round_number, report.client))

    def on_round(self, report):
        self.told.append(("round", report.round_number, report.metrics))

    def on_evaluation(self, report):
        self.told.append(("evaluation", report.round_number, dict(report.metrics), report.samples))

    def on_end(self, end):
        self.told.append(("end", end.status, end.error))

    def of(self, kind):
        return [rest for name, *rest in self.told if name == kind]


def test_callbacks_are_told_of_every_client_round_and_evaluation_in_order(tmp_path):
    callback = Recording()
    run(garments(tmp_path), tmp_path / "run", callback=callback)
    assert callback.told[0] == ("start", 2, 0, [])
    assert callback.told[-1] == ("end", "done", None)
    assert callback.of("client") == [[t, c] for t in (1, 2) for c in range(5)]
    assert callback.of("round") == [[row["round"], row] for row in rows(tmp_path / "run" / "metrics.jsonl")]
    baseline = json.loads((tmp_path / "run" / "baseline.json").read_text())
    evaluations = {number: metrics for number, metrics, _ in callback.of("evaluation")}
    assert evaluations[0] == baseline
    assert evaluations[2].items() <= rows(tmp_path / "run" / "metrics.jsonl")[-1].items()
    order = [told[0] for told in callback.told if told[1] == 2 and told[0] in ("evaluation", "round")]
    assert order == ["evaluation", "round"]


def test_an_evaluation_comes_with_the_grid_that_it_made(unbroken, tmp_path):
    callback = Recording()
    out = broken_off(unbroken[1], tmp_path / "run", 3)
    run(None, out, resume=True, callback=callback)
    assert callback.told[0] == ("start", 3, 2, [1, 2])
    assert [(n, grid) for n, _, grid in callback.of("evaluation")] == [
        (3, (out / "samples" / "round-0003.png").resolve())
    ]


METHODS = ["on_start", "on_client", "on_round", "on_evaluation", "on_end"]


@pytest.mark.parametrize("method", METHODS)
def test_a_callback_that_raises_ends_the_run_with_its_name_round_and_the_original_once(method, tmp_path):
    def fail(self, argument):
        raise OSError("no such table")

    broken = type("Table", (fedray.Callback,), {method: fail, "__module__": "mine"})()
    watching = Recording()
    with pytest.raises(RunFailed) as caught:
        run(garments(tmp_path), tmp_path / "run", callback=[watching, broken])
    when = {"on_start": "", "on_client": " in round 1", "on_end": " in round 2"}.get(method, r" in round \d")
    assert re.fullmatch(
        rf"callback mine:Table{when}, while {method}: OSError: no such table", str(caught.value)
    )
    facts = json.loads((tmp_path / "run" / "error.json").read_text())
    assert facts["error"] == "OSError"
    assert facts["stage"] == f"{method} of mine:Table"
    assert facts["traceback"].count("OSError: no such table") == 1
    assert [status for status, _ in watching.of("end")] == [["failed", "done"][method == "on_end"]]


def test_what_a_callback_raises_at_the_end_of_a_failed_run_hides_no_reason(tmp_path):
    class Broken(fedray.Callback):
        def on_end(self, end):
            raise ValueError("and I, too")

    class Notes(fedray.Callback):
        notes = []

        def on_note(self, text):
            self.notes.append(text)

    changes = {"training.local_steps": 3, "training.optimizer.learning_rate": 1e30}
    with pytest.raises(RunFailed, match="no client of round 1 trained"):
        run(garments(tmp_path, changes), tmp_path / "run", callback=[Broken(), Notes()])
    assert any("while on_end: ValueError: and I, too" in note for note in Notes.notes)


def test_a_run_that_is_refused_before_it_starts_ends_nothing(tmp_path):
    callback = Recording()
    CallbackList([callback]).on_broken_end(fedray.RunEnd(tmp_path, "failed"))
    assert callback.told == []


def test_a_users_callback_is_found_beside_the_scenario_and_its_failure_is_exit_code_1(tmp_path, fedray):
    folder = tmp_path / "mine"
    file = garments(folder, {"runtime": {"executor": "serial", "report_to": ["my_table:Losses"]}})
    (folder / "my_table.py").write_text(
        "import fedray\n\nclass Losses(fedray.Callback):\n    def on_round(self, report):\n"
        "        with open('losses.csv', 'a') as f:\n"
        "            print(report.round_number, report.metrics['loss'], sep=',', file=f)\n"
    )
    assert fedray("run", file, "--out", "run", "--quiet")[0] == 0
    lines = (tmp_path / "losses.csv").read_text().splitlines()
    expected = [f"{row['round']},{row['loss']}" for row in rows(tmp_path / "run" / "metrics.jsonl")]
    assert lines == expected
    (tmp_path / "losses.csv").unlink()
    (tmp_path / "losses.csv").mkdir()
    code, out, err = fedray("run", file, "--out", "again", "--quiet")
    assert (code, out) == (1, "")
    assert err.startswith("the run failed: callback my_table:Losses in round 1, while on_round: IsADirectory")
    assert "Traceback" not in err


BAD = {
    "nowhere:Mine": ("", "nowhere:Mine, whose module is not there"),
    "bad_table:Mine": ("", "bad_table:Mine, but bad_table has no Mine"),
    "bad_syntax:Mine": ("def (:\n", "bad_syntax.py:1: SyntaxError: "),
    "bad_import:Mine": ("import not_there_at_all\n", "bad_import.py:1: ModuleNotFoundError: "),
    "bad_line:Mine": ("\n\n1 / 0\n", "bad_line.py:3: ZeroDivisionError: division by zero"),
    "bad_kind:Mine": ("class Mine:\n    pass\n", "bad_kind:Mine, which is no fedray.Callback but a class of"),
    "tensorbord": ("", "'tensorbord', expected tensorboard (did you mean it?)"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_callback_that_cannot_be_had_is_refused_by_check_with_file_and_line(name, tmp_path, fedray):
    text, expected = BAD[name]
    if ":" in name and name != "nowhere:Mine":
        (tmp_path / f"{name.split(':')[0]}.py").write_text(text)
    file = garments(tmp_path, {"runtime": {"executor": "serial", "report_to": [name]}})
    code, out, err = fedray("check", file)
    assert (code, out) == (2, "")
    assert re.match(rf"{file}:\d+: runtime.report_to", err)
    assert expected in err
    assert "Traceback" not in err


def test_nothing_is_imported_from_a_run_folder(tmp_path, fedray):
    """A stranger's run folder may name a module, and hold it."""
    file = garments(tmp_path / "mine", {"runtime": {"executor": "serial", "report_to": ["stranger:Mine"]}})
    (tmp_path / "mine" / "stranger.py").write_text(
        "import pathlib, fedray\nclass Mine(fedray.Callback): pass\npathlib.Path('imported').touch()\n"
    )
    assert fedray("run", file, "--out", "run", "--quiet")[0] == 0
    (tmp_path / "imported").unlink()
    (tmp_path / "run" / "result.json").unlink()
    shutil.move(tmp_path / "mine" / "stranger.py", tmp_path / "run")
    del sys.modules["stranger"]
    code, _, err = fedray("run", "--resume", "run")
    assert code == 2
    assert "stranger:Mine, whose module is not there" in err
    assert not (tmp_path / "imported").exists()


def test_the_trackers_are_those_that_accelerate_knows():
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    assert set(TRACKERS) == set(LOGGER_TYPE_TO_CLASS)


def test_every_tracker_gets_arguments_that_accelerates_class_takes(tmp_path):
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    from fedray.callbacks.trackers import options

    for name, kind in LOGGER_TYPE_TO_CLASS.items():
        assert kind(**options(name, tmp_path)) is not None
    assert options("dvclive", tmp_path)["save_dvc_exp"] is False  # it would commit to the user's repository


@pytest.mark.parametrize("name", [n for n in TRACKERS if n != "tensorboard"])
def test_a_tracker_that_is_not_installed_is_refused_with_what_to_install(name, tmp_path, fedray, monkeypatch):
    monkeypatch.setattr("fedray.callbacks.reporting.find_spec", lambda name: None)
    file = tiny(tmp_path, {"runtime": {"executor": "serial", "report_to": [name]}})
    code, _, err = fedray("check", file)
    assert code == 2
    assert (
        f"runtime.report_to.0: got {name}, which is not installed, expected pip install {TRACKERS[name]}"
        in err
    )


@pytest.fixture
def mlflow(monkeypatch):
    module = pytest.importorskip("mlflow", reason="MLflow is a dependency of the tests: uv sync")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return module


def test_mlflow_has_parameters_a_curve_a_metric_and_the_grids_in_the_run_folder(mlflow, tmp_path, unbroken):
    changes = {"training.rounds": 2, "runtime": {"executor": "serial", "report_to": ["mlflow"]}}
    for name in ("one", "two"):  # in one process
        run(tiny(tmp_path, changes, f"{name}.yaml"), tmp_path / name)
    for name in ("one", "two"):
        client = mlflow.MlflowClient((tmp_path / name / "mlruns").as_uri())
        (experiment,) = [e for e in client.search_experiments() if e.name == "fedray"]
        (tracked,) = client.search_runs([experiment.experiment_id])
        assert tracked.info.run_name == name
        assert tracked.info.status == "FINISHED"
        assert tracked.data.params["training.optimizer.learning_rate"] == "0.0003"
        for key in ("loss", "bytes_sidelink", "sim_time_s"):
            history = [(m.step, m.value) for m in client.get_metric_history(tracked.info.run_id, key)]
            assert history == [(row["round"], row[key]) for row in rows(tmp_path / name / "metrics.jsonl")]
        grids = {file.path for file in client.list_artifacts(tracked.info.run_id, "samples")}
        assert grids == {"samples/round-0000.png", "samples/round-0002.png"}
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_mlflow_goes_where_its_environment_variable_says(mlflow, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "elsewhere").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run(
        garments(tmp_path, {"runtime": {"executor": "serial", "report_to": ["mlflow"]}}),
        tmp_path / "run",
    )
    assert (tmp_path / "elsewhere").is_dir()
    assert not (tmp_path / "run" / "mlruns").exists()


CLIENT_KEYS = {
    "round",
    "client",
    "samples",
    "steps",
    "loss",
    "bytes_uplink",
    "bytes_downlink",
    "bytes_sidelink",
    "sim_time_s",
    "energy_j",
    "outcome",
}


@pytest.mark.parametrize(
    "topology",
    [
        {"kind": "parallel"},
        {"kind": "parallel", "reduce": "allreduce"},
        {"kind": "relay", "chains": 2},
        {"kind": "split", "cut": "conv1", "tail": "loss"},
    ],
    ids=lambda topology: "-".join(map(str, topology.values())),
)
def test_clients_parquet_has_a_row_a_client_and_round_that_adds_up_to_the_rounds_bytes(topology, tmp_path):
    run(garments(tmp_path, {"topology": topology, "training.local_steps": 2}), tmp_path / "run")
    table = pyarrow.parquet.read_table(tmp_path / "run" / "clients.parquet").to_pylist()
    assert all(set(row) == CLIENT_KEYS for row in table)
    assert [(row["round"], row["client"]) for row in table] == [(t, c) for t in (1, 2) for c in range(5)]
    assert {(row["outcome"], row["steps"]) for row in table} == {("done", 2)}
    before = dict.fromkeys(("bytes_uplink", "bytes_downlink", "bytes_sidelink"), 0)
    for metrics in rows(tmp_path / "run" / "metrics.jsonl"):
        of_round = [row for row in table if row["round"] == metrics["round"]]
        assert sum(row["samples"] for row in of_round) == metrics["samples"]
        for key in before:
            assert sum(row[key] for row in of_round) == metrics[key] - before[key], key
            before[key] = metrics[key]
        assert all(row["sim_time_s"] > 0 and row["energy_j"] > 0 for row in of_round)


def test_clients_that_miss_a_round_have_rows_that_say_why(tmp_path):
    slow = {"kind": "fixed", "rate_bps": [20e6, 20e6, 20e6, 20e6, 1e4], "latency_s": 0.02}
    file = garments(
        tmp_path,
        {"network.uplink": slow, "network.deadline_s": 5.0, "training.optimizer.learning_rate": 0.05},
    )
    run(file, tmp_path / "run")
    table = pyarrow.parquet.read_table(tmp_path / "run" / "clients.parquet").to_pylist()
    late = [row for row in table if row["client"] == 4]
    assert late[0]["outcome"] == "late"
    assert (late[0]["samples"], late[0]["steps"], late[0]["loss"]) == (0, 0, None)
    assert late[0]["bytes_uplink"] > 0
    assert {row["outcome"] for row in table if row["client"] != 4} == {"done"}


def test_a_client_whose_data_fail_has_a_row_that_says_so(tmp_path, monkeypatch):
    from fedray.executors import DataFailure
    from fedray.executors.local_training import LocalTraining

    update = LocalTraining.run

    def fail(self, round_number, client, *arguments):
        if client == 3:
            raise DataFailure("reading", "an image that cannot be read", client)
        return update(self, round_number, client, *arguments)

    monkeypatch.setattr(LocalTraining, "run", fail)
    run(garments(tmp_path), tmp_path / "run")
    table = pyarrow.parquet.read_table(tmp_path / "run" / "clients.parquet").to_pylist()
    assert {row["client"]: row["outcome"] for row in table} == dict.fromkeys(range(5), "done") | {3: "failed"}


def test_a_run_that_is_broken_off_and_resumed_has_each_clients_round_once(tmp_path):
    file = garments(tmp_path, {"training.rounds": 3})
    run(file, tmp_path / "whole")
    out = shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    (out / "result.json").unlink()
    (out / "clients.parquet").unlink()
    shutil.rmtree(out / "checkpoints" / "round-0003")
    text = (out / "clients.jsonl").read_text()
    (out / "clients.jsonl").write_text(text[:-20])  # it died in mid-write
    run(None, out, resume=True)
    tables = [pyarrow.parquet.read_table(tmp_path / name / "clients.parquet") for name in ("whole", "broken")]
    assert tables[0].equals(tables[1])
    assert (out / "clients.jsonl").read_text() == (tmp_path / "whole" / "clients.jsonl").read_text()


def test_a_checkpoint_whose_clients_lines_are_lost_is_damaged(tmp_path, capfd):
    file = garments(tmp_path)
    run(file, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    text = (tmp_path / "run" / "clients.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "clients.jsonl").write_text("".join(text[:-1]))
    run(None, tmp_path / "run", resume=True)
    assert "which is damaged: clients.jsonl has 9 of its 10 lines" in capfd.readouterr().err
    assert len(rows(tmp_path / "run" / "clients.jsonl")) == 10


def test_the_example_of_a_callback_is_true():
    import doctest

    import fedray.callbacks

    result = doctest.testmod(fedray.callbacks)
    assert result.attempted
    assert not result.failed
