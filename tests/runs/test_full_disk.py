"""A run folder in which nothing can be written any more: one line says which and why, and nothing is lost."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedray import files
from fedray.engine import RunFailed
from fedray.runs.folder import RunFolder
from tests.helpers import garments, rows, run, timeless

ROUNDS = {"training.rounds": 3}
FULL = os.strerror(errno.ENOSPC)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    file = garments(folder, ROUNDS)
    run(file, folder / "run")
    return file, folder / "run"


def parts(out):
    return [p for p in out.rglob("*") if p.name.endswith(".part")]


@pytest.fixture
def full(monkeypatch):
    """From the n-th time on that a file of this name is written, its disk is full."""

    def fill(name, time):
        seen, opened, bare = [], Path.open, os.open

        def written(file):
            if name in file.name:
                seen.append(file)
                if len(seen) >= time:
                    raise OSError(errno.ENOSPC, FULL, None)

        def opening(self, mode="r", *arguments, **options):
            if mode[0] in "wa":
                written(self)
            return opened(self, mode, *arguments, **options)

        def opening_bare(file, flags, *arguments, **options):  # as the lock is, by which no link is followed
            if flags & os.O_CREAT:
                written(Path(file))
            return bare(file, flags, *arguments, **options)

        monkeypatch.setattr(Path, "open", opening)
        monkeypatch.setattr(os, "open", opening_bare)
        return monkeypatch.undo

    return fill


@pytest.mark.parametrize(
    ("name", "time"),
    [("weights.safetensors", 3), ("state.json", 2), ("metrics.jsonl", 3), ("timeline.jsonl", 3)],
)
def test_a_disk_that_fills_up_ends_a_run_with_path_and_reason_and_room_brings_it_to_the_same_bits(
    name, time, full, whole, tmp_path
):
    file, expected = whole
    out = tmp_path / "run"
    empty = full(name, time)
    with pytest.raises(RunFailed, match=rf"^{tmp_path}\S*{name}: {FULL}$") as caught:
        run(file, out)
    assert "the run goes on" in caught.value.advice
    assert not parts(out)
    assert json.loads((out / "error.json").read_text())["message"] == str(caught.value)
    empty()
    run(None, out, resume=True)
    results = [
        json.loads((folder / "result.json").read_text())["weights_sha256"] for folder in (out, expected)
    ]
    assert results[0] == results[1]
    assert timeless(rows(out / "metrics.jsonl")) == timeless(rows(expected / "metrics.jsonl"))
    assert not parts(out)


def test_a_failure_is_told_though_its_facts_cannot_be_written(full, tmp_path):
    full("error.json", 1)
    changes = {"training.local_steps": 3, "training.optimizer.learning_rate": 1e30}
    with pytest.raises(
        RunFailed, match=rf"no client of round 1 trained.*\(error\.json could not be written: {FULL}\)$"
    ):
        run(garments(tmp_path, changes), tmp_path / "run")


@pytest.mark.parametrize(
    "name", ["scenario.yaml", "scenario.resolved.yaml", "run.log", ".lock", "partition.json", "env.json"]
)
def test_a_folder_that_cannot_be_written_is_refused_before_anything_trains(
    name, full, tmp_path, fedray, monkeypatch
):
    file = garments(tmp_path, ROUNDS)
    out = tmp_path / "run"
    if name == "run.log":  # logging opens it by itself
        import logging

        def refuse(self):
            raise OSError(errno.ENOSPC, FULL, self.baseFilename)

        monkeypatch.setattr(logging.FileHandler, "_open", refuse)
    full(name, 1)
    code, _, err = fedray("run", file, "--out", out)
    assert code == 2
    assert [line for line in err.splitlines() if "Traceback" in line] == []
    assert err.splitlines()[-1].startswith(str(out))
    assert f"got {FULL}, expected" in err
    assert not out.exists()


def test_a_sweep_whose_own_result_cannot_be_written_keeps_what_its_variants_did(full, tmp_path, fedray):
    file = garments(tmp_path, {"sweep": {"variants": {"a": {}}}, "runtime": {"executor": "serial"}})
    out = tmp_path / "all"
    empty = full("result.json", 1)
    code, _, err = fedray("run", file, "--out", out)
    assert code == 1
    assert f"the run failed: {out / 'result.json'}: {FULL}" in err
    empty()
    assert fedray("run", "--resume", out)[0] == 0
    assert json.loads((out / "result.json").read_text())["variants"]["a"]["status"] == "done"


def test_a_limit_of_the_system_ends_a_run_in_one_line(whole, tmp_path):
    """A real one: no file may grow beyond 300 kB."""
    file, _ = whole
    out = tmp_path / "run"

    def limit():
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    command = [sys.executable, "-m", "fedray", "run", file, "--out", out, "--quiet"]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2  # the checkpoint before the first round: nothing has trained
    place = out / "checkpoints" / ".round-0000.part" / "weights.safetensors"
    assert (
        done.stderr.splitlines()[-1]
        == f"{place}: got {os.strerror(errno.EFBIG)}, expected a place that can be written"
    )
    assert not parts(tmp_path)


def test_what_is_written_whole_leaves_nothing_of_a_failure(tmp_path):
    (tmp_path / "a").write_text("before")

    def fail(part):
        part.write_text("half")
        raise OSError(errno.ENOSPC, FULL)

    with pytest.raises(OSError, match=r"\[Errno 28\] .*/a'"), files.whole(tmp_path / "a") as part:
        fail(part)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "before"}


def test_a_checkpoint_that_cannot_be_written_leaves_the_ones_before(whole, tmp_path):
    _, done = whole
    out = shutil.copytree(done, tmp_path / "run")
    before = sorted(p.name for p in (out / "checkpoints").iterdir())
    folder = RunFolder(out)

    def write(part, _):
        (part / "weights.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, FULL)

    with pytest.raises(OSError, match=FULL):
        folder.checkpoint(4, write, None, 0.0, 0)
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == before
