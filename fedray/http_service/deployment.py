"""The HTTP service on Ray Serve: one process that answers requests, and processes that make images."""

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ray import serve as ray_serve
from ray.serve.context import _get_global_client
from ray.serve.schema import LoggingConfig

from fedray.errors import UserError, reason
from fedray.executors.ray.connection import Connection, cluster_nodes, connect
from fedray.http_service.requests import GeneratedImage, ImageRequest, Limits, Refusal, ServedRun
from fedray.http_service.service import HttpService
from fedray.scenario import ScenarioError

DRAINED_S = 0.1  # between two looks at whether a process that ends has answered all
CONNECTIONS = 10_000  # of the process that answers; what is too much it refuses itself
SIGNALS = (signal.SIGINT, signal.SIGTERM)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoint:
    """Where a service listens, and what its processes get.

    Attributes:
        host: whose address it listens on.
        port: of HTTP.
        route: what its paths begin with.
        replicas: processes that make images.
        gpus: of each of them; None: one where the cluster has some.
        token_digest: of the token that requests have to show; None: none.
    """

    host: str
    port: int
    route: str
    replicas: int
    gpus: float | None
    token_digest: bytes | None


class ModelProcess:
    """Makes images, one after another."""

    def __init__(self, runs: Sequence[ServedRun]) -> None:
        os.environ["OMP_NUM_THREADS"] = str(runs[0].threads)  # which torch reads when it is imported
        import ray
        import torch

        from fedray.http_service.sampler import Sampler

        # which a process without one would still see
        on_gpu = bool(ray.get_gpu_ids()) and torch.cuda.is_available()
        self.refused: str | None = None
        try:
            self.sampler = Sampler(runs, torch.device("cuda" if on_gpu else "cpu"))
        except UserError as e:  # an error here would have Serve try again
            self.refused = str(e)
        except Exception as e:
            log.exception("no model")
            self.refused = f"model: got {type(e).__name__}: {reason(e)}, expected a model that loads"

    def problem(self) -> str | None:
        """Why there is no model; None where there is one."""
        return self.refused

    def sample(self, request: ImageRequest) -> GeneratedImage | Refusal:
        return self.sampler.sample(request)


class HttpProcess:
    """Answers requests with the images of model processes.

    Args:
        runs: the first is the default.
        limits: what the service takes on.
        endpoint: of the service.
        models: Ray Serve's handle of the model processes.
    """

    def __init__(self, runs: Sequence[ServedRun], limits: Limits, endpoint: Endpoint, models: Any) -> None:
        self.models = models
        self.service = HttpService(runs, self._sample, limits, endpoint.replicas, endpoint.token_digest)

    async def __call__(self, request: Any) -> Any:
        return await self.service.respond(request)

    async def _sample(self, request: ImageRequest) -> GeneratedImage | Refusal:
        try:
            image: GeneratedImage | Refusal = await self.models.sample.remote(request)
            return image
        except Exception:  # whatever the model, or Ray, makes of a request
            log.exception("no image of %s", request.adapter)
            return Refusal(500, "model: got an error, expected an image; the service's log has it")


def serve(
    runs: Sequence[ServedRun], limits: Limits, endpoint: Endpoint, on_start: Callable[[str], None]
) -> None:
    """Answers requests until the process is interrupted or terminated, and takes its own application away
    then. Of a Ray that was there before, everything else stays as it is.

    Args:
        runs: as `read_runs` gives them.
        limits: what the service takes on.
        endpoint: where it listens.
        on_start: called with the service's address once it answers.

    Raises:
        ScenarioError: where it cannot listen there, or a model cannot be loaded.
    """
    application = Application(f"fedray-{secrets.token_hex(4)}", connect())
    with _terminated_as_interrupted():  # after Ray, which has a handler of its own
        try:
            on_start(application.start(runs, limits, endpoint))
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            for number in SIGNALS:  # a second one shall not leave half of it behind
                signal.signal(number, signal.SIG_IGN)
            application.remove()


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt, too."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Application:
    """One service among the applications of Ray Serve.

    Args:
        name: that no other application has.
        connection: to a Ray of its own, or to one that was there.
    """

    def __init__(self, name: str, connection: Connection) -> None:
        self.name = name
        self.connection = connection
        self.started_serve = False

    def start(self, runs: Sequence[ServedRun], limits: Limits, endpoint: Endpoint) -> str:
        """Starts it, and Serve where that does not run; gives its address.

        Raises:
            ScenarioError: where it cannot be started.
        """
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        quiet = LoggingConfig(log_level="ERROR", enable_access_log=False)
        if (client := _running_serve()) is not None:
            _refuse_other_endpoint(client, endpoint)
        else:
            if self.connection.local:
                endpoint = replace(endpoint, port=_free_port(endpoint))
            self.started_serve = True
            options = {"host": endpoint.host, "port": endpoint.port}
            ray_serve.start(proxy_location="HeadOnly", http_options=options, logging_config=quiet)
        target = _target(runs, limits, endpoint)
        ray_serve.run(target, name=self.name, route_prefix=endpoint.route, logging_config=quiet)
        model = ray_serve.get_deployment_handle("model", self.name)
        if problem := model.problem.remote().result():
            raise ScenarioError([problem])
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        return f"http://{host}:{endpoint.port}{endpoint.route}"

    def remove(self) -> None:
        """Ends a Ray of its own; of another one, takes this application away, and Serve where that runs for
        nobody else and was started for it."""
        if not self.connection.local and _running_serve() is not None:
            ray_serve.delete(self.name)
            if self.started_serve and not ray_serve.status().applications:
                ray_serve.shutdown()
        self.connection.end()


def _target(runs: Sequence[ServedRun], limits: Limits, endpoint: Endpoint) -> Any:
    """What Serve runs.

    Raises:
        ScenarioError: for more than the cluster has.
    """
    nodes = cluster_nodes()
    gpus = endpoint.gpus
    if gpus is None:
        gpus = 1.0 if any(node.gpus for node in nodes) else 0.0
    threads = runs[0].threads
    cores = sum(node.cpus for node in nodes)
    if endpoint.replicas * threads > cores:
        got = f"{endpoint.replicas} of {threads} cores each (runtime.threads)"
        raise ScenarioError([f"--replicas: got {got}, expected at most the {cores:g} cores of this Ray"])
    if endpoint.replicas * gpus > sum(node.gpus for node in nodes):
        got = f"{endpoint.replicas} of {gpus:g} GPUs each"
        expected = f"at most the {sum(node.gpus for node in nodes)} GPUs of this Ray; see --gpus-per-replica"
        raise ScenarioError([f"--replicas: got {got}, expected {expected}"])
    resources = {"num_cpus": threads, "num_gpus": gpus}
    deployment: Any = ray_serve.deployment  # to type checkers one of its two forms alone
    models = deployment(ModelProcess, name="model").options(
        num_replicas=endpoint.replicas,
        max_ongoing_requests=1,
        ray_actor_options=resources,
        graceful_shutdown_wait_loop_s=DRAINED_S,
    )
    answering = deployment(HttpProcess, name="http").options(
        max_ongoing_requests=CONNECTIONS,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_wait_loop_s=DRAINED_S,
    )
    return answering.bind(list(runs), limits, endpoint, models.bind(list(runs)))


def _running_serve() -> Any:
    """The client of the Serve that runs on this Ray; None where none does."""
    return _get_global_client(raise_if_no_controller_running=False)


def _refuse_other_endpoint(client: Any, endpoint: Endpoint) -> None:
    """Raises ScenarioError where the Serve that runs already listens elsewhere, or has another application
    on this route."""
    there = client.http_config
    if (there.host, there.port) != (endpoint.host, endpoint.port):
        got = f"--host {endpoint.host} --port {endpoint.port}, where Ray Serve listens already"
        expected = f"its --host {there.host} --port {there.port}"
        raise ScenarioError([f"fedray serve: got {got}, expected {expected}"])
    applications = client.get_serve_details()["applications"]
    for name, application in applications.items():
        if application["route_prefix"] == endpoint.route:
            got = f"{endpoint.route}, which the application {name} has"
            raise ScenarioError([f"--route: got {got}, expected another"])


def _free_port(endpoint: Endpoint) -> int:
    """The port, or one that is free where it is 0. Raises ScenarioError where it is taken."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        with socket.socket(family) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((endpoint.host, endpoint.port))
            return int(listening.getsockname()[1])
    except OSError as e:
        got = f"{endpoint.host}:{endpoint.port}, where nothing can listen ({e.strerror or e})"
        raise ScenarioError([f"--host, --port: got {got}, expected a free port"]) from None
