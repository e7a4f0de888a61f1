import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from fedray.network.ledger import Ledger
from fedray.runs.folder import KEEP, RunFolder
from fedray.runs.state import Saved
from fedray.scenario import ScenarioError
from tests.helpers import garments, rows, run, timeless

RUNS = {  # in which clients have states, and not all take part
    "a server with a state": {"kind": "fedadam", "transforms": [{"kind": "top_k", "fraction": 0.1}]},
    "a server that sends more": {
        "kind": "scaffold",
        "transforms": [{"kind": "quantize", "bits": 8, "error_feedback": True}],
    },
}


@pytest.fixture(scope="module", params=RUNS.values(), ids=RUNS)
def whole(request, tmp_path_factory):
    """The folder of a whole run of three rounds."""
    folder = tmp_path_factory.mktemp("whole")
    changes = {"aggregation": request.param, "population.per_round": 3, "training.rounds": 3}
    run(garments(folder, changes), folder / "run")
    return folder / "run"


def assert_same_run(got, expected):
    results = [json.loads((folder / "result.json").read_text()) for folder in (got, expected)]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    assert results[0]["baseline"] == results[1]["baseline"]
    assert results[0]["artifacts"] == results[1]["artifacts"]
    assert timeless(rows(got / "metrics.jsonl")) == timeless(rows(expected / "metrics.jsonl"))
    assert (got / "timeline.jsonl").read_text() == (expected / "timeline.jsonl").read_text()
    assert saved(got) == saved(expected)
    for name in results[0]["artifacts"]:
        assert (got / name).read_bytes() == (expected / name).read_bytes(), name


def saved(folder):
    """What a run's last checkpoint holds."""
    newest, state = next(RunFolder(folder).states())
    assert {p.name for p in newest.iterdir()} == {"state.json", "weights.safetensors", *state.saved.files}
    return state.round, state.saved


def test_a_killed_run_resumes_to_the_bits_metrics_and_timeline_of_an_unbroken_one(unbroken, tmp_path):
    file, whole = unbroken
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "fedray", "run", file, "--out", out, "--quiet"], env=os.environ
    )
    metrics = out / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "result.json").exists()

    run(file, out, resume=True)
    assert_same_run(out, whole)


def broken_off(whole, folder, rounds):
    """The run as it was when it died in mid-write, `rounds` rounds done: half lines, a checkpoint half
    made."""
    out = shutil.copytree(whole, folder)
    shutil.rmtree(out / "model")
    (out / "result.json").unlink()
    keep = sorted((out / "checkpoints").iterdir())
    assert [p.name for p in keep] == ["round-0002", "round-0003"]
    for checkpoint in keep[rounds - 1 :]:
        checkpoint.rename(checkpoint.with_name(f".{checkpoint.name}.part"))
    for name in ("metrics.jsonl", "timeline.jsonl"):
        text = (out / name).read_text()
        (out / name).write_text(text[: -len(text.splitlines()[-1]) // 2])
    return out


def test_a_run_that_died_in_mid_write_goes_on_from_what_is_whole(whole, tmp_path):
    out = broken_off(whole, tmp_path / "run", rounds=2)
    run(None, out, resume=True)
    assert_same_run(out, whole)
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["round-0002", "round-0003"]


def test_a_run_that_died_after_its_last_round_only_exports(whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(out / "model")
    (out / "result.json").unlink()
    run(None, out, resume=True)
    assert_same_run(out, whole)


@pytest.mark.parametrize("damage", ["weights", "server", "client-0", "client gone", "state truncated"])
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_it_serves(damage, whole, tmp_path, capfd):
    out = shutil.copytree(whole, tmp_path / "run")
    (out / "result.json").unlink()
    newest = out / "checkpoints" / "round-0003"
    if damage == "state truncated":
        (newest / "state.json").write_text((newest / "state.json").read_text()[:50])
    elif damage == "client gone":
        (newest / "client-0.safetensors").unlink()
    else:
        file = newest / f"{damage}.safetensors"
        data = bytearray(file.read_bytes())
        data[-10] ^= 1
        file.write_bytes(data)
    run(None, out, resume=True)
    said = capfd.readouterr().err
    assert "refused checkpoint round-0003, which is damaged" in said
    assert "going on from round-0002" in said
    assert_same_run(out, whole)
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["round-0002", "round-0003"]
    # written anew, not the damaged one kept
    saved = json.loads((newest / "state.json").read_text())["saved"]["files"]
    assert all(
        hashlib.sha256((newest / name).read_bytes()).hexdigest() == expected
        for name, expected in saved.items()
    )


def test_without_a_whole_checkpoint_resume_is_an_error_and_leaves_the_run_as_it_is(whole, tmp_path, fedray):
    out = shutil.copytree(whole, tmp_path / "run")
    (out / "result.json").unlink()
    truncated, gone = sorted(out.glob("checkpoints/*/weights.safetensors"))
    truncated.write_bytes(truncated.read_bytes()[:-100])
    gone.unlink()
    code, _, stderr = fedray("run", "--resume", out, "--quiet")
    assert code == 2
    assert (
        stderr.splitlines()[-1]
        == f"--resume {out}: got 2 damaged checkpoints, expected a whole one in {out / 'checkpoints'}"
    )
    assert (out / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


def test_a_run_that_ended_before_its_first_checkpoint_begins_with_round_1(whole, tmp_path, capfd):
    out = shutil.copytree(whole, tmp_path / "run")
    (out / "result.json").unlink()
    shutil.rmtree(out / "checkpoints")
    run(None, out, resume=True)
    assert "nothing has been trained yet: the run begins with round 1" in capfd.readouterr().err
    assert_same_run(out, whole)


def test_a_finished_run_is_not_run_again(unbroken, tmp_path, fedray):
    _, whole = unbroken
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    code, stdout, _ = fedray("run", "--resume", whole)
    assert code == 0
    assert "was already done: 3 rounds" in stdout
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before


def test_resume_of_a_folder_that_is_no_run_is_refused(tmp_path, fedray):
    code, _, stderr = fedray("run", "--resume", tmp_path)
    assert code == 2
    assert stderr.startswith(f"--resume {tmp_path}: got a folder that holds no run")
    assert list(tmp_path.iterdir()) == []


def test_resume_goes_on_as_it_is_without_new_settings(tmp_path, fedray):
    for more in (["--set", "seed=1"], ["--seed", "1"], ["--out", "x"], ["quickstart"]):
        code, _, stderr = fedray("run", "--resume", tmp_path, *more)
        assert code == 2
        assert "Traceback" not in stderr


def test_a_judge_beside_the_scenario_is_found_again_by_resume(tmp_path):
    """Every relative path of a scenario is absolute in its resolved form."""
    from fedray import shipped
    from fedray.checks import check
    from tests.helpers import tiny

    for name, source in (("ink", "ink"), ("heldout", "ink-heldout")):
        shutil.copytree(shipped.HERE / source, tmp_path / "mine" / name)
    shutil.copy(shipped.HERE / "garments.safetensors", tmp_path / "mine" / "judge.safetensors")
    shutil.copytree(shipped.HERE / "tiny-sd", tmp_path / "mine" / "sd")
    changes = {
        "data.path": "ink",
        "model.base": "sd",
        "evaluation": {"reference": {"path": "heldout", "judge": "judge.safetensors"}},
    }
    loaded = check(tiny(tmp_path / "mine", changes))
    elsewhere = tmp_path / "elsewhere" / "scenario.resolved.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(loaded.resolved())
    again = check(elsewhere).scenario
    assert again.evaluation.reference.judge == str(tmp_path / "mine" / "judge.safetensors")
    assert check(elsewhere).resolved() == loaded.resolved()


@pytest.mark.parametrize("first", [0, 98, 9_998])
def test_the_last_two_checkpoints_stay_whatever_their_number(first, tmp_path):
    folder = RunFolder(tmp_path)
    folder.metrics.touch()
    folder.timeline.touch()

    found = []

    def write(part, before):
        found.append(before and before.name)
        (part / "weights.safetensors").write_bytes(b"weights")
        return Saved("0" * 64, {"server.safetensors": "1" * 64, "client-12.safetensors": "2" * 64})

    for t in range(first, first + 5):
        assert folder.checkpoint(t, write, Ledger(), 0.0, 0) == "0" * 64
    assert found == [None, *(f"round-{t:04d}" for t in range(first, first + 4))]
    assert [state.round for _, state in folder.states()] == [first + 4, first + 3]
    assert all(state.saved.clients == {12: "client-12.safetensors"} for _, state in folder.states())
    assert KEEP == 2


def test_a_folder_that_holds_a_run_is_not_written_over(unbroken, fedray):
    file, whole = unbroken
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    code, _, stderr = fedray("run", file, "--out", whole)
    assert code == 2
    assert stderr.startswith(f"--out {whole}: got a folder that already holds a run")
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before


def test_reopening_needs_a_run(tmp_path):
    with pytest.raises(ScenarioError):
        RunFolder.reopen(tmp_path / "nothing")


def test_a_run_folder_holds_what_the_contract_names(unbroken):
    file, whole = unbroken
    for name in (
        "scenario.yaml",
        "scenario.resolved.yaml",
        "metrics.jsonl",
        "timeline.jsonl",
        "result.json",
        "model/model_index.json",
        "env.json",
        "CITATION.bib",
    ):
        assert (whole / name).is_file(), name
    assert (whole / "scenario.yaml").read_text() == file.read_text()
    metrics, timeline = rows(whole / "metrics.jsonl"), rows(whole / "timeline.jsonl")
    assert [m["round"] for m in metrics] == [1, 2, 3]
    expected = {
        "round",
        "loss",
        "clients",
        "failed",
        "samples",
        "bytes_uplink",
        "bytes_downlink",
        "bytes_sidelink",
        "sim_time_s",
        "energy_j",
        "wall_time_s",
    }
    assert all(expected <= set(m) for m in metrics)
    expected = {
        "round",
        "id",
        "after",
        "event",
        "node",
        "peer",
        "flops",
        "bytes",
        "t0_s",
        "t1_s",
        "energy_j",
        "outcome",
    }
    assert all(expected <= set(step) for step in timeline)
    assert all(step["t1_s"] >= step["t0_s"] for step in timeline)
    result = json.loads((whole / "result.json").read_text())
    assert result["status"] == "done"
    assert result["rounds"] == 3
    assert len(result["weights_sha256"]) == 64
    assert result["final"] == metrics[-1]
    assert "samples/round-0000.png" in result["artifacts"]
    assert "samples/round-0003.png" in result["artifacts"]
    assert all((whole / name).is_file() for name in result["artifacts"])
    state = json.loads((whole / "checkpoints" / "round-0003" / "state.json").read_text())
    assert state["saved"] == {"weights_sha256": result["weights_sha256"], "files": {}}
    cited = (whole / "CITATION.bib").read_text()
    assert "Federated Learning-Empowered AI-Generated Content" in cited
    assert "LoRA" in cited
    assert "Min-{SNR}" not in cited
