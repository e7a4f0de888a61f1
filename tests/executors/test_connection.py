"""The Ray a run joins answers within a time; one of our own is closed to others."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from fedray.executors.ray import connection
from fedray.planning.placement import Node, refuse_crowded
from fedray.scenario import Refused, ScenarioError
from tests.helpers import garments, job_of

ON_RAY = {"runtime": {"executor": "ray"}}


@contextlib.contextmanager
def listening(answer=b""):
    """The port of somebody who takes connections and says the same to all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    taken.append(server.accept()[0])
                    taken[-1].sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        for one in taken:
            one.close()


def refused(address):
    with pytest.raises(ScenarioError) as caught:
        connection.refuse_silent(address)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(
    "address",
    ["head", "127.0.0.1", "head:port", "http://head:8265", "ray://head:10001", ":::", "head:70000", "a b:1"],
)
def test_an_address_of_another_form_is_refused_with_the_forms_there_are(address):
    assert (
        refused(address)
        == f"RAY_ADDRESS: got {address!r}, no address, expected HOST:PORT of a head node, auto, or local"
    )


def test_a_port_where_nobody_listens_is_refused_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "nobody answers there" in refused(f"127.0.0.1:{port}")


def test_auto_where_no_ray_runs_is_refused(monkeypatch):
    def nothing(*_):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr("ray._private.services.get_ray_address_from_environment", nothing)
    assert (
        refused("auto")
        == "RAY_ADDRESS: got 'auto', no Ray that runs on this machine, expected a Ray that is up (ray start"
        " --head), or local"
    )


def test_a_port_that_is_silent_is_given_up_after_a_time(monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_S", 0.3)
    with listening() as port:
        assert "nobody answers there (timed out)" in refused(f"127.0.0.1:{port}")


def test_a_web_server_is_no_head_node():
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert "what answers there is no head node of Ray" in refused(f"127.0.0.1:{port}")


def test_a_head_node_answers(cluster):
    connection.refuse_silent(cluster.get_runtime_context().gcs_address)


def test_a_run_on_a_ray_that_does_not_answer_ends_with_exit_code_2_and_leaves_no_folder(
    fedray, monkeypatch, tmp_path
):
    file = garments(tmp_path, ON_RAY)
    for address in ("nowhere", "127.0.0.1:1"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        code, _, err = fedray("run", file, "--out", tmp_path / "run")
        assert code == 2
        assert err.startswith(f"RAY_ADDRESS: got '{address}'")
        assert not (tmp_path / "run").exists()


OWN = """
import json, os, psutil, ray
from fedray.executors.ray.connection import connect

def listening():
    # where this process and those that it started listen
    own = psutil.Process()
    sockets = [c for p in (own, *own.children(recursive=True)) for c in p.net_connections("inet")]
    return {c.laddr.ip for c in sockets if c.status == psutil.CONN_LISTEN}

connection = connect()
ray.get(ray.remote(lambda: 1).remote())
new = listening()
held = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
address = ray.get_runtime_context().gcs_address
from ray._raylet import AuthenticationMode, get_authentication_mode
asks = get_authentication_mode() == AuthenticationMode.TOKEN
connection.end()
again = ray._private.ray_constants.ENABLE_RAY_CLUSTER
left = sorted(name for name in os.environ if name.startswith("RAY_AUTH"))
told = {"again": again, "left": left, "local": connection.local}
print(json.dumps(told | {"new": sorted(new), "held": held, "address": address, "asks": asks}))
"""


def test_a_ray_of_our_own_listens_on_loopback_alone_and_asks_for_a_token_nobody_else_has(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_A")} | {
        "HOME": str(tmp_path)
    }
    done = subprocess.run(
        [sys.executable, "-c", OWN], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    loopback = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert told["new"]
    assert set(told["new"]) <= loopback
    assert told["address"].startswith("127.0.0.1:")
    assert told["local"]
    assert told["held"]["RAY_AUTH_MODE"] == "token"
    assert len(told["held"]["RAY_AUTH_TOKEN"]) == 64
    assert told["asks"]
    assert told["left"] == []
    assert told["again"]
    assert not (tmp_path / ".ray").exists()


@pytest.mark.parametrize(
    ("runtime", "gpus", "expected"),
    [
        ({"gpus_per_actor": 2}, 0, "auto, which does without"),
        ({"gpus_per_actor": 2, "actors": 1}, 1, "at most 0.5, auto"),
        ({"gpus_per_actor": 1, "actors": 1}, 1, "at most 0.5, auto"),  # the evaluator has as much
        ({"gpus_per_actor": 0.5, "actors": 2}, 1, "at most 0.3333, auto"),
        ({"gpus_per_actor": 0.5, "actors": 1}, 1, None),
        ({"gpus_per_actor": 1, "actors": 3}, 4, None),
        ({"gpus_per_actor": 2, "actors": 1}, 4, None),
        ({"gpus_per_actor": "auto"}, 0, None),
        ({"gpus_per_actor": 0}, 0, None),
    ],
)
def test_more_gpus_than_a_ray_of_our_own_has_are_refused_with_what_fits(runtime, gpus, expected, tmp_path):
    scenario = job_of(garments(tmp_path, {"runtime": ON_RAY["runtime"] | runtime}))[1].scenario
    if expected is None:
        refuse_crowded(scenario, [Node(4.0, gpus)])
        return
    with pytest.raises(
        Refused, match=r"runtime\.gpus_per_actor: got .* for \d client actors, an evaluator"
    ) as caught:
        refuse_crowded(scenario, [Node(4.0, gpus)])
    assert caught.value.expected == f"{expected}, or RAY_ADDRESS of a cluster that has them"


def test_a_plan_says_that_actors_want_more_gpus_than_this_machine_has_unless_a_cluster_is_named(
    fedray, monkeypatch, tmp_path
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    file = garments(tmp_path, {"runtime": {"executor": "ray", "gpus_per_actor": 64}})
    code, _, err = fedray("plan", file)
    assert (code, "runtime.gpus_per_actor: got 64 for" in err) == (2, True)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert fedray("plan", file)[0] == 0
