"""Clients and server as Ray actors: a step is an actor call, an edge an object reference.

The driver wires references and never holds a buffer. Actors are thin: all they do is in work.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from fedray.executors import Job, Look, TrainReport, flow
from fedray.packing import pack
from fedray.schedule import Schedule
from fedray.workload import Workload

# Ray's hook for `uv run` would build every worker an environment of its own; ours is already there.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray

SERVER_CPUS = 0.0  # server and evaluator wait while clients work, or fill what they leave


def _set_environment(job: Job) -> None:
    """What torch reads when it is first imported. A runtime_env would say the same, but start a process anew for it."""
    os.environ["OMP_NUM_THREADS"] = str(job.scenario.runtime.threads)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"


def _device() -> Any:
    """The GPU Ray gave this actor. An actor without one still sees every GPU, so CUDA must not be asked."""
    import torch

    return torch.device("cuda" if ray.get_gpu_ids() else "cpu")


class ClientHost:
    """An actor that runs the turns of its clients, one after another, with the model resident."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def work(self) -> Any:
        """Made by the first call, not with the actor: what goes wrong then is an answer, not a death."""
        _set_environment(self.job)
        from fedray.executors.work import ClientWork

        return ClientWork(self.job, _device())

    def ready(self) -> bool:
        return self.work is not None

    def initial(self) -> tuple[Any, Any]:
        return self.work.initial()

    def train(self, round: int, client: int, buffer: Any) -> tuple[Any, TrainReport]:
        return self.work.train(round, client, buffer)

    def workload(self) -> Workload:
        from fedray.workload import measure

        return measure(self.job.scenario, self.job.folder)

    def pid(self) -> int:
        return os.getpid()


class ServerHost:
    """An actor that aggregates and keeps checkpoints."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def work(self) -> Any:
        _set_environment(self.job)
        from fedray.executors.work import ServerWork

        return ServerWork(self.job)

    def ready(self) -> bool:
        return self.work is not None

    def aggregate(self, layout: Any, buffer: Any, turns: Sequence[int], *arrived: Any) -> tuple[Any, bool]:
        """`arrived` is flat, since Ray resolves references only at the top: for each chain its buffer, then the reports
        of its turns, of which there are `turns[chain]`."""
        chains, rest = [], list(arrived)
        for n in turns:
            chains.append((rest[0], rest[1 : n + 1]))
            rest = rest[n + 1 :]
        return self.work.aggregate(layout, buffer, chains), True

    def restore(self, layout: Any, file: Path, sha256: str) -> tuple[Any, bool]:
        return self.work.restore(layout, file, sha256), True

    def checkpoint(self, layout: Any, buffer: Any, file: Path) -> str:
        return self.work.checkpoint(layout, buffer, file)


class EvaluatorHost:
    """An actor that looks at the model while others train it."""

    def __init__(self, job: Job) -> None:
        _set_environment(job)
        from fedray.executors.work import EvaluatorWork

        self.work = EvaluatorWork(job, _device())

    def evaluate(self, buffer: Any, grid: Path) -> dict[str, float]:
        return self.work.evaluate(buffer, grid)

    def export(self, buffer: Any, folder: Path) -> None:
        self.work.export(buffer, folder)


class RayExecutor:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.own_ray = not ray.is_initialized()
        if self.own_ray:
            address = os.environ.get("RAY_ADDRESS") or ("auto" if os.environ.get("RAY_JOB_ID") else "local")
            # Ray's own lines go where all logging goes, into run.log.
            log = logging.getLogger("ray")
            log.handlers.clear()
            log.propagate = True
            dashboard = False if address == "local" else None
            ray.init(address=address, include_dashboard=dashboard, log_to_driver=False, configure_logging=False)
        total = ray.cluster_resources()
        self.packing = packing = pack(job.scenario, int(total.get("CPU", 1)), int(total.get("GPU", 0)))
        runtime = job.scenario.runtime
        self.options: dict[str, Any] = {
            "num_gpus": packing.gpus_per_actor,
            "max_restarts": runtime.failures.retries,
            "max_task_retries": runtime.failures.retries,
        }
        # The hosts first: they are what the first round waits for.
        self.hosts: list[Any] = [
            ray.remote(ClientHost).options(num_cpus=packing.cpus_per_actor, **self.options).remote(job) for _ in range(packing.actors)
        ]
        self.server: Any = ray.remote(ServerHost).options(num_cpus=SERVER_CPUS, **{**self.options, "num_gpus": 0}).remote(job)
        self.ready = [host.ready.remote() for host in self.hosts]
        self.initial, self.layout = self.hosts[0].initial.options(num_returns=2).remote()

    @cached_property
    def evaluator(self) -> Any:
        """Started when first asked, so that its imports do not hold up the first round."""
        evaluator: Any = ray.remote(EvaluatorHost).options(num_cpus=SERVER_CPUS, **self.options).remote(self.job)
        return evaluator

    def describe(self) -> str:
        p = self.packing
        gpus = f", {p.gpus_per_actor:g} GPU each" if p.gpus_per_actor else ""
        return f"Ray, {p.actors} client actor{'s' * (p.actors > 1)} and a server{gpus}"

    def workload(self) -> Workload:
        counted = self.hosts[-1].workload.remote()
        ray.get(self.ready)
        self.server.ready.remote()  # it imports while the work is counted, not while the hosts import
        workload: Any = ray.get(counted)
        return workload

    def begin(self) -> None:
        self.buffer = self.initial

    def restore(self, file: Path, sha256: str) -> None:
        buffer, whole = self.server.restore.options(num_returns=2).remote(self.layout, file, sha256)
        ray.get(whole)
        self.buffer = buffer

    def carry_out(self, schedule: Schedule) -> Iterator[TrainReport]:
        reports: list[Any] = []
        done: list[Any] = []

        def train(client: int, buffer: Any) -> tuple[Any, Any]:
            host = self.hosts[client % len(self.hosts)]
            new, report = host.train.options(num_returns=2).remote(schedule.round, client, buffer)
            reports.append(report)
            return new, report

        def aggregate(arrived: Sequence[tuple[Any, Sequence[Any]]]) -> Any:
            flat = [ref for buffer, turns in arrived for ref in (buffer, *turns)]
            turns = [len(turns) for _, turns in arrived]
            new, whole = self.server.aggregate.options(num_returns=2).remote(self.layout, self.buffer, turns, *flat)
            done.append(whole)
            return new

        new = flow(schedule, self.buffer, train, aggregate)
        for report in reports:
            yield ray.get(report)
        ray.get(done)
        self.buffer = new

    def evaluate(self, grid: Path) -> Look:
        looked: Any = self.evaluator.evaluate.remote(self.buffer, grid)
        return Look(lambda: bool(ray.wait([looked], timeout=0)[0]), lambda: ray.get(looked))

    def checkpoint(self, file: Path) -> str:
        sha256: Any = ray.get(self.server.checkpoint.remote(self.layout, self.buffer, file))
        return sha256

    def export(self, folder: Path) -> None:
        ray.get(self.evaluator.export.remote(self.buffer, folder))

    def close(self) -> None:
        for actor in (*self.hosts, self.server, *([self.evaluator] if "evaluator" in self.__dict__ else [])):
            ray.kill(actor)
        if self.own_ray:
            ray.shutdown()
