"""What a run leaves beside metrics.jsonl, and what it says when it breaks."""

import json
import shutil

import pyarrow.parquet
import pytest

from fedray.engine import RunFailed
from fedray.learners.classifier import Classifier
from fedray.runs.folder import RunFolder
from tests.helpers import garments, rows, run, tiny
from tests.report.made import made_up


def test_metrics_parquet_holds_the_rows_of_metrics_jsonl(unbroken):
    table = pyarrow.parquet.read_table(unbroken[1] / "metrics.parquet").to_pylist()
    written = rows(unbroken[1] / "metrics.jsonl")
    assert [{k: v for k, v in row.items() if v is not None} for row in table] == written


def test_a_table_of_rows_has_pyarrows_own_types_and_null_where_a_row_has_nothing(tmp_path):
    run = made_up(tmp_path / "run", [1, 0.1 + 0.2, 1e-300])
    written = rows(run / "metrics.jsonl")
    written[1] |= {"eval_late": 3, "eval_nothing": None}
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    keys = dict.fromkeys(key for row in written for key in row)
    expected = pyarrow.table({key: [row.get(key) for row in written] for key in keys})
    assert RunFolder(run).table("metrics.jsonl").equals(expected)
    (run / "metrics.jsonl").write_text("")
    assert RunFolder(run).table("metrics.jsonl").num_rows == 0


def test_tensorboard_shows_every_metric_and_grid_once_also_after_a_resume(unbroken, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    file = garments(tmp_path, {"runtime": {"executor": "serial", "report_to": ["tensorboard"]}})
    run(file, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "samples").mkdir(exist_ok=True)
    shutil.copy(unbroken[1] / "samples" / "round-0003.png", tmp_path / "run" / "samples" / "round-0002.png")
    run(file, tmp_path / "run", resume=True)
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    written = rows(tmp_path / "run" / "metrics.jsonl")
    for name in ("loss", "bytes_uplink", "sim_time_s", "energy_j"):
        assert [(e.step, e.value) for e in board.Scalars(name)] == [
            (r["round"], pytest.approx(r[name])) for r in written
        ]
    assert [e.step for e in board.Images("samples")] == [2]


def test_tensorboard_that_is_not_installed_is_refused_with_what_to_install(tmp_path, fedray, monkeypatch):
    monkeypatch.setattr("fedray.callbacks.reporting.find_spec", lambda name: None)
    file = tiny(tmp_path, {"runtime": {"executor": "serial", "report_to": ["tensorboard"]}})
    code, _, err = fedray("check", file)
    assert code == 2
    assert (
        "runtime.report_to.0: got tensorboard, which is not installed, expected pip install"
        " 'fedray[tensorboard]'" in err
    )


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (RuntimeError("wires crossed"), "the traceback"),
        (MemoryError("out of memory"), "a smaller training.batch_size"),
    ],
)
def test_an_error_nobody_foresaw_names_client_round_stage_the_original_and_what_to_try(
    tmp_path, monkeypatch, error, advice
):
    def break_down(*_):
        raise error

    monkeypatch.setattr(Classifier, "flops_per_sample", 1.0)  # nothing but training asks for a loss
    monkeypatch.setattr(Classifier, "loss", break_down)
    with pytest.raises(RunFailed):
        run(garments(tmp_path), tmp_path / "run")
    told = json.loads((tmp_path / "run" / "error.json").read_text())
    name = type(error).__name__
    assert told["error"] == name
    assert (told["round"], told["stage"]) == (1, "training")
    assert told["message"] == f"client {told['client']} in round 1, while training: {name}: {error}"
    assert told["traceback"].count(f"{name}: {error}") == 1
    assert advice in told["next"]


def test_what_others_print_goes_to_run_log(fedray, tmp_path, monkeypatch):
    from fedray.executors.serial import SerialExecutor

    begin = SerialExecutor.begin

    def noisy(self, samples):
        print("a library has something to say")
        begin(self, samples)

    monkeypatch.setattr(SerialExecutor, "begin", noisy)
    code, out, err = fedray("run", garments(tmp_path), "--out", "run")
    assert code == 0
    assert "library" not in out + err
    assert "WARNING output: a library has something to say" in (tmp_path / "run" / "run.log").read_text()


def test_a_run_knows_the_command_that_began_it(fedray, tmp_path):
    file = garments(tmp_path, {"training.rounds": 1}, "my own.yaml")
    assert fedray("run", file, "--out", "run", "--quiet")[0] == 0
    told = json.loads((tmp_path / "run" / "env.json").read_text())["command"]
    assert told == f"fedray run '{file}' --out run --quiet"
