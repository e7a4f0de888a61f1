"""`ray job submit`, as docs/tutorials/cluster.md says it, on a head that asks for a token."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.helpers import ARTISTS
from tests.plugins.users import users_folder

BIN = Path(sys.executable).parent


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def head():
    """A head of one node with its own home and token; its address and the environment of who knows the
    token."""
    pytest.importorskip(
        "ray.dashboard.head",
        reason="ray job submit needs ray[default]: uv sync, or pip install 'fedray[cluster]'",
    )
    home = Path(tempfile.mkdtemp(prefix="fr-"))  # a short path: Ray's sockets lie below it
    known = os.environ | {"HOME": str(home), "RAY_AUTH_MODE": "token", "PATH": f"{BIN}:{os.environ['PATH']}"}
    subprocess.run([BIN / "ray", "get-auth-token", "--generate"], env=known, check=True, capture_output=True)
    dashboard = free_port()
    ports = [
        f"--{name}={free_port()}" for name in ("port", "dashboard-agent-listen-port", "metrics-export-port")
    ]  # the tests' Ray has the others
    options = [
        *ports,
        f"--dashboard-port={dashboard}",
        f"--temp-dir={home / 'ray'}",
        "--num-cpus=2",
        "--block",
    ]
    with (home / "head.log").open("w") as log:
        process = subprocess.Popen(
            [BIN / "ray", "start", "--head", *options], env=known, stdout=log, stderr=log
        )
    try:
        for _ in range(600):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", dashboard)) == 0:
                    break
            assert process.poll() is None, (home / "head.log").read_text()
            time.sleep(0.1)
        time.sleep(3)  # the node's agent is a little later than the dashboard
        yield f"http://127.0.0.1:{dashboard}", known
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(home, ignore_errors=True)


def submit(folder, address, environment, *command):
    """From the folder with the scenario."""
    line = [BIN / "ray", "job", "submit", "--address", address, "--working-dir", ".", "--", *command]
    return subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_submitted_job_runs_a_scenario_with_a_users_rule_beside_it_to_its_end(head, tmp_path):
    address, known = head
    rule = {"kind": "my_kinds:TrimmedMean", "trim": 1}
    changes = ARTISTS | {"runtime": {"executor": "ray"}, "aggregation": rule}
    file = users_folder(tmp_path / "mine", changes)
    done = submit(
        file.parent,
        address,
        known,
        "fedray",
        "run",
        file.name,
        "--set",
        "runtime.actors=1",
        "--out",
        str(tmp_path / "run"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "round 2/2" in done.stdout
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "done"


def test_who_does_not_know_the_token_submits_nothing(head, tmp_path):
    address, known = head
    stranger = submit(tmp_path, address, known | {"HOME": str(tmp_path)}, "fedray", "list")
    assert stranger.returncode != 0
    assert "token" in (stranger.stdout + stranger.stderr).lower()
