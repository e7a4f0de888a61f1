"""One process at a time works on a run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from fedray.runs import lock
from fedray.scenario import ScenarioError
from tests.helpers import garments

HOLD = """
import sys, time
from pathlib import Path
from fedray.runs.lock import locked
with locked(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that works on the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_told_who_works_on_a_run(holder, tmp_path):
    with pytest.raises(ScenarioError) as caught, lock.locked(tmp_path, print):
        pass
    expected = f"{tmp_path}: got a run that process {holder.pid} on {socket.gethostname()!r} (since "
    assert str(caught.value).startswith(expected)


def test_a_lock_ends_with_its_process_however_that_ends(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / lock.LOCK).exists()
    with lock.locked(tmp_path, print):
        assert json.loads((tmp_path / lock.LOCK).read_text())["process"] == os.getpid()
    assert not (tmp_path / lock.LOCK).exists()


def test_the_second_waits_for_the_name_of_who_has_only_just_begun(holder, tmp_path, monkeypatch):
    written = (tmp_path / lock.LOCK).read_text()
    (tmp_path / lock.LOCK).write_text("")
    monkeypatch.setattr(lock.time, "sleep", lambda _: (tmp_path / lock.LOCK).write_text(written))
    with pytest.raises(ScenarioError, match=f"process {holder.pid} on"), lock.locked(tmp_path, print):
        pass


def test_a_folder_may_be_worked_on_again_and_again(tmp_path):
    for _ in range(3):
        with lock.locked(tmp_path, print):
            pass


def test_where_files_cannot_be_locked_that_is_said(tmp_path, monkeypatch):
    def without(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", without)
    notes = []
    with lock.locked(tmp_path, notes.append):
        pass
    (note,) = notes
    assert "make sure that no other process works on it" in note


def test_two_resumes_of_one_run_at_once_are_one_and_an_error(tmp_path, fedray):
    file = garments(tmp_path, {"training.rounds": 400})
    out = tmp_path / "run"
    first = subprocess.Popen([sys.executable, "-m", "fedray", "run", file, "--out", out, "--quiet"])
    try:
        while not (out / "checkpoints" / "round-0000").exists():
            assert first.poll() is None
            time.sleep(0.05)
        code, _, err = fedray("run", "--resume", out)
        assert code == 2
        assert err.splitlines()[-1].startswith(f"{out}: got a run that process {first.pid} on ")
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()


def test_a_lock_that_came_with_a_run_folder_as_a_link_or_a_pipe_is_refused_and_nothing_is_written_through_it(
    tmp_path,
):
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    outside.write_text("kept")
    expected = f"{run / lock.LOCK}: got a link, or something else that is no file, expected a run's own lock"
    for put in (
        lambda f: f.symlink_to(outside),
        lambda f: f.symlink_to(tmp_path / "new"),
        os.mkfifo,
        os.mkdir,
    ):
        put(run / lock.LOCK)
        with pytest.raises(ScenarioError) as caught, lock.locked(run, print):
            pass
        assert str(caught.value) == expected
        (run / lock.LOCK).rmdir() if (run / lock.LOCK).is_dir() else (run / lock.LOCK).unlink()
    assert outside.read_text() == "kept"
    assert not (tmp_path / "new").exists()
