"""The Ray a run joins, or the local one it starts: reached within a time, and closed to others."""

import logging
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray._private import ray_constants

from fedray.planning.placement import Node, ray_address
from fedray.scenario import ScenarioError

# of a Ray of our own: it would keep ten times as much about tasks that have ended, and grow with every round
OWN_RAY = {"task_events_max_num_task_in_gcs": 10_000}
ANSWER_S = 20.0  # how long a head node may take to answer
TOKEN = secrets.token_hex(32)  # one a process: Ray reads its own once
ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):(?P<port>\d{1,5})")
FORMS = "HOST:PORT of a head node, auto, or local"
# What a client of HTTP/2, which gRPC and so Ray's head speaks, says first (RFC 9113, Sec. 3.4), with empty
# settings; and the place and the type of the frame that is answered first.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
FRAME_TYPE = 3
SETTINGS = 4


class Connection(NamedTuple):
    """`ours`: to be ended with the run. `local`: started here, so that nobody will add nodes to it.
    `environment`: what it changed of this process's, as it was before."""

    ours: bool
    local: bool
    environment: Mapping[str, str | None] = {}

    def end(self) -> None:
        if self.ours:
            ray.shutdown()
        if self.local:
            _restore(self.environment)


def connect() -> Connection:
    """Joins the Ray that is there, or starts one.

    Raises:
        ScenarioError: where RAY_ADDRESS names no Ray that answers.
    """
    if ray.is_initialized():
        return Connection(ours=False, local=False)
    address = ray_address()
    # Ray's own lines go where all logging goes, into run.log.
    log = logging.getLogger("ray")
    log.handlers.clear()
    log.propagate = True
    if address == "local":
        before = _close_to_others()
        ray.init(address="local", include_dashboard=False, configure_logging=False, _system_config=OWN_RAY)
        return Connection(ours=True, local=True, environment=before)
    refuse_silent(address)
    try:
        ray.init(address=address, configure_logging=False)
    except ConnectionError as e:
        raise _refused(address, str(e).splitlines()[0], "a Ray that is up (ray start --head)") from None
    return Connection(ours=True, local=False)


def _close_to_others() -> Mapping[str, str | None]:
    """From here on a Ray that is started listens on loopback alone, and asks for a token that only its own
    processes know, whatever the defaults of its version are. What of the environment was otherwise before."""
    # Ray binds to loopback where it takes itself for one that cannot be joined, as on Windows and macOS.
    wanted = {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}
    if "RAY_AUTH_MODE" not in os.environ:
        wanted["RAY_AUTH_MODE"] = "token"
        known = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
        if not known and not (Path.home() / ".ray" / "auth_token").is_file():
            wanted["RAY_AUTH_TOKEN"] = TOKEN
    before = {name: os.environ.get(name) for name in wanted}
    os.environ |= wanted
    _read_environment()
    return before


def _restore(environment: Mapping[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _read_environment()


def _read_environment() -> None:
    """What Ray read when it was imported, again."""
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(name, sys.platform == "linux")
    raylet: Any = ray._raylet
    with suppress(AttributeError):  # of a Ray without authentication
        raylet.Config.initialize("")


def refuse_silent(address: str) -> None:
    """That whoever is at an address speaks as Ray does.

    Raises:
        ScenarioError: for an address of another form, or at which nobody answers in ANSWER_S.
    """
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        try:
            address = canonicalize_bootstrap_address("auto") or "auto"
        except ConnectionError:  # Ray's, where none has been started here
            raise _refused(
                "auto", "no Ray that runs on this machine", "a Ray that is up (ray start --head), or local"
            ) from None
    if address in ("auto", "local"):
        return
    if not (form := ADDRESS.fullmatch(address)) or not 0 < int(form["port"]) < 2**16:
        raise _refused(address, "no address", FORMS)
    if os.environ.get("RAY_USE_TLS") == "1":  # which would have to be spoken first
        return
    try:
        place = form["host"].strip("[]"), int(form["port"])
        with socket.create_connection(place, timeout=ANSWER_S) as connection:
            connection.sendall(HELLO)
            answer = b""
            while len(answer) <= FRAME_TYPE and (part := connection.recv(FRAME_TYPE + 1 - len(answer))):
                answer += part
    except OSError as e:
        raise _refused(address, f"nobody answers there ({e.strerror or e})", FORMS) from None
    if len(answer) <= FRAME_TYPE or answer[FRAME_TYPE] != SETTINGS:
        raise _refused(
            address,
            "what answers there is no head node of Ray",
            f"{FORMS} (the head's own port, such as 6379)",
        )


def _refused(address: str, got: str, expected: str) -> ScenarioError:
    return ScenarioError([f"RAY_ADDRESS: got {address!r}, {got}, expected {expected}"])


def cluster_nodes() -> list[Node]:
    """The nodes that are up."""
    up = [node for node in ray.nodes() if node["Alive"]]
    return [
        Node(
            n["Resources"].get("CPU", 0.0), int(n["Resources"].get("GPU", 0)), n.get("Labels", {}).get("site")
        )
        for n in up
    ]


@contextmanager
def shared_cluster() -> Iterator[list[Node]]:
    """A Ray that processes started here join through RAY_ADDRESS; its nodes."""
    connection = connect()
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    try:
        yield cluster_nodes()
    finally:
        if before is None:
            del os.environ["RAY_ADDRESS"]
        else:
            os.environ["RAY_ADDRESS"] = before
        connection.end()
