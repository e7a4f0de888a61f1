"""Clients and server as Ray actors. The driver wires references and never holds a buffer. The actors are in
actors.py and server_host.py."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fedray.executors import (
    ClientTestsHandle,
    DataFailure,
    EvaluationHandle,
    Job,
    ServerRestarted,
    StepFailed,
    TrainReport,
)
from fedray.executors.ray.client_tests import SubmittedTests
from fedray.executors.ray.connection import cluster_nodes, connect
from fedray.executors.ray.driver import Driver
from fedray.executors.ray.evaluator_host import EvaluatorHost
from fedray.executors.ray.server_host import ServerHost
from fedray.executors.ray.wiring import SubmittedRound, submit, submit_split
from fedray.executors.split import failed
from fedray.executors.versions import Versions, held_files
from fedray.planning.placement import Node, pack, refuse_crowded
from fedray.planning.shared import Shared
from fedray.planning.workload import Workload
from fedray.runs.state import Saved
from fedray.scenario.base import Refused
from fedray.scenario.scenario import Scenario
from fedray.schedule import Schedule

PROGRESS_INTERVAL_S = 2.0  # about how often a person should hear of clients that are done
SERVER_CPUS = 0.0  # server and evaluator wait while clients work, or fill what they leave


@dataclass
class Progress:
    """How far an attempt at a round has come."""

    stage: str = "training"
    client: int | None = None  # whose result is waited for


class RayExecutor(Driver):
    """A round that loses a host is done again by those there are."""

    def __init__(self, job: Job, note: Callable[[str], None] = print) -> None:
        self.connection = connect()
        nodes = cluster_nodes()
        if self.connection.local:
            refuse_crowded(job.scenario, nodes)
        _refuse_missing_sites(job.scenario, nodes)
        self.packing = pack(job.scenario, nodes)
        self.job = job
        self.here = ray.get_runtime_context().get_node_id()
        self.group: str | None = None  # in which the hosts reduce among themselves
        gpus = next(node["Resources"].get("GPU", 0) for node in ray.nodes() if node["NodeID"] == self.here)
        self.beside_hosts: list[Any] = []  # the other actors
        self.evaluator_gpus = self.packing.evaluator_gpus if gpus else 0
        # Before the hosts, which take all the room there is. Without a GPU it needs none, and where nothing
        # is evaluated it starts once a model is to be written, if no host can do that.
        if gpus or job.scenario.has_evaluation:
            assert self.evaluator is not None
        super().__init__(job, note, self.packing.places)
        self.splits = job.scenario.topology.splits_model
        calls = job.scenario.topology.server_calls(job.scenario.population.clients_selected)
        self.server = self._actor_on_driver(ServerHost, self.packing.server_gpus if gpus else 0, calls)
        self.attempt = 0
        first = self.server if self.splits else self.hosts[0].actor
        self.initial, self.layout, self.initial_state = first.initial.options(num_returns=3).remote()

    @cached_property
    def evaluator(self) -> Any:
        return self._actor_on_driver(EvaluatorHost, self.evaluator_gpus)

    def _actor_on_driver(self, kind: type, num_gpus: float, at_once: int = 0) -> Any:
        """An actor on the driver's own node, where the run folder is. It keeps nothing, so Ray may restart
        it.

        Args:
            kind: of actor.
            num_gpus: that it holds.
            at_once: calls that may wait there, each in a thread of its own; 0: one after another.
        """
        retries = self.job.scenario.runtime.failures.retries
        options: dict[str, Any] = {
            "max_restarts": retries,
            "max_task_retries": retries,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(self.here, soft=False),
        }
        if at_once:
            options["max_concurrency"] = at_once
        actor: Any = ray.remote(kind).options(num_cpus=SERVER_CPUS, num_gpus=num_gpus, **options)
        self.beside_hosts.append(actor.remote(self.job))
        return self.beside_hosts[-1]

    def describe(self) -> str:
        n = len(self.hosts)
        nodes = len({ray.get(host.ready) for host in self.hosts})
        gpus = " or ".join(f"{g:g}" for g in sorted({host.place.gpus for host in self.hosts}) if g)
        where = f" on {nodes} nodes" if nodes > 1 else ""
        return f"Ray, {n} client actor{'s' * (n > 1)}{where}{f' of {gpus} GPU' if gpus else ''} and a server"

    def workload(self) -> Workload:
        counted = self.hosts[-1].actor.workload.remote()
        self.wait_for_room()
        self.server.ready.remote()  # it imports while the work is counted, not while the hosts import
        workload: Any = ray.get(counted)
        return workload

    def survey(self) -> tuple[list[int], dict[str, Any]]:
        first = {host.place.site: host for host in reversed(self.hosts)}
        surveyed = ray.get([host.actor.survey.remote() for host in first.values()])
        samples = {client: n for counts, _, _ in surveyed for client, n in counts.items()}
        for refused in (r for _, bad, _ in surveyed for r in bad):
            raise refused
        data = {
            f"{name} at {site}": value
            for site, (_, _, facts) in zip(first, surveyed, strict=True)
            for name, value in facts.items()
        }
        return [samples[client] for client in range(len(samples))], data

    def begin(self, shared: Shared) -> None:
        self.shared = shared
        self.buffer = self.initial
        self.parts = 8  # in which a host is asked for its clients, until it is known how long a round takes
        self.state: Any = self.initial_state
        self.can_train = len(shared.eligible(self.job.scenario))
        # references; Ray spills to disk what its memory does not hold
        self.client_states: dict[int, Any] = {}
        self.changed: set[int] = set()  # since the last checkpoint
        self.versions = Versions(self.initial)

    def restore(self, folder: Path, saved: Saved) -> None:
        buffer, state, whole = self.server.restore.options(num_returns=3).remote(self.layout, folder, saved)
        ray.get(whole)
        self.buffer = buffer
        self.state = state
        for client, name in saved.clients.items():
            self.client_states[client] = self.server.client_state.remote(folder, name, saved.files[name])
        for held, number, name in held_files(saved):
            buffer = self.server.version.remote(folder, name, saved.files[name])
            getattr(self.versions, held)[number] = buffer
        # Written anew: the checkpoint before the next one may be a damaged one.
        self.changed = set(self.client_states)

    def run_round(self, schedule: Schedule) -> Iterator[TrainReport]:
        start = time.monotonic()
        reported = set[int]()
        attempts = 0
        while len(schedule.steps) > 1 or self.job.scenario.steps_without_updates:
            progress = Progress()
            try:
                submitted = submit_split(self, schedule) if self.splits else submit(self, schedule)
                for report in self._results(submitted, progress):
                    if report.client not in reported:
                        reported.add(report.client)
                        yield report
                self.versions.keep(schedule, self.buffer)
                self._accept(submitted, time.monotonic() - start)
                return
            except RayError as e:
                cause = self._cause_to_bear(e, schedule.round, progress, attempts)
            if isinstance(cause, DataFailure):  # of a split round: nothing has changed before its end
                report = failed(schedule, cause, self.shared.samples)
                yield report
                schedule = schedule.without(report.client)
                reported = set()
                continue
            name = type(cause).__name__
            again = "it is done again, by the actors there are"
            self.note(f"round {schedule.round}: {name} while {progress.stage}; {again}")
            # Who waits for a member of a group that is gone may wait for long: all begin anew.
            self.heal(all_anew=self.group is not None)
            self.group = None
            attempts += 1
        self.versions.keep(schedule, self.buffer)  # nobody sent anything

    def _results(self, submitted: SubmittedRound, progress: Progress) -> Iterator[TrainReport]:
        """Reports as they come, in the schedule's order; then waits for the round's end."""
        pending = {reports: client for client, reports in submitted.reports}
        came: dict[Any, list[TrainReport]] = {}
        for _, reports in submitted.reports:
            # In a split the others may wait for one that fails: any is heard of at once.
            while reports not in came:
                (ready,) = ray.wait([*pending], num_returns=1)[0] if self.splits else (reports,)
                progress.client = pending.pop(ready)
                came[ready] = ray.get(ready)
            yield from came[reports]
        progress.stage = "aggregating"
        progress.client = None
        waiting = submitted.reduced
        while waiting:  # one that dies leaves the others waiting: whichever fails first is heard of
            (ready,), waiting = ray.wait(waiting, num_returns=1)
            ray.get(ready)
        own = ray.get(submitted.own_report)
        if own is not None:
            yield own

    def _cause_to_bear(
        self, error: RayError, round_number: int, progress: Progress, attempts: int
    ) -> BaseException:
        """Why an attempt failed, where the round can be done again, or without a client.

        Args:
            error: of Ray.
            round_number: from 1.
            progress: how far the attempt had come.
            attempts: that were made before it.

        Raises:
            StepFailed: where it cannot.
        """
        cause = _cause(error)
        if self.splits:
            self.server.abandon.remote()
        if isinstance(cause, StepFailed):
            raise cause from None
        if isinstance(cause, DataFailure):
            return cause
        last = attempts == self.job.scenario.runtime.failures.retries
        if last or not isinstance(cause, RayError | ServerRestarted):
            raise StepFailed.of(cause, round_number, progress.stage, progress.client, str(error)) from None
        return cause

    def _accept(self, submitted: SubmittedRound, seconds: float) -> None:
        """A round that took so long has ended well."""
        self.parts = max(1, int(seconds / PROGRESS_INTERVAL_S))
        self.buffer = submitted.buffer
        self.state = submitted.state
        self.versions.nodes |= submitted.nodes
        self.client_states |= submitted.client_states
        self.changed |= submitted.client_states.keys()

    def evaluate(self, grid: Path, base: bool = False) -> EvaluationHandle:
        if not self.job.scenario.has_evaluation:
            return EvaluationHandle(lambda: True, dict)
        model = (self.initial, self.initial_state) if base else (self.buffer, self.state)
        metrics: Any = self.evaluator.evaluate.remote(*model, grid)

        def done() -> bool:
            return bool(ray.wait([metrics], timeout=0)[0])

        return EvaluationHandle(done, lambda: self._get(metrics, "evaluating"))

    def test_clients(self, round_number: int) -> ClientTestsHandle:
        tests = SubmittedTests(self, round_number)
        return ClientTestsHandle(tests.done, tests.result)

    def audit(self, clients: Sequence[int], labels: Any, grid: Path) -> dict[str, Any]:
        shares = self.share_out(clients, self.shared.samples)
        parts = [self.hosts[i].actor.audit.remote(self.buffer, some) for i, some in shares]
        audited = self.server.audit.remote(self.buffer, self.state, labels, grid, *parts)
        report: dict[str, Any] = self._get(audited, "judging the data")
        return report

    def checkpoint(self, folder: Path, before: Path | None) -> Saved:
        changed = sorted(self.changed)
        unchanged = sorted(self.client_states.keys() - self.changed)
        states = [self.client_states[c] for c in changed]
        held = self.versions.files()
        written = self.server.checkpoint.remote(
            self.layout, self.buffer, self.state, folder, before, unchanged, changed, [*held],
            *states, *held.values(),
        )  # fmt: skip
        saved: Saved = self._get(written, "writing a checkpoint")
        self.changed = set()
        return saved

    def global_buffer(self) -> tuple[Any, Any]:
        """From the store of the driver's node, where the server has put it: without a copy."""
        return self._get(self.buffer, "reading the weights"), self._get(self.layout, "reading the weights")

    def export(self, folder: Path) -> None:
        """By a client actor on the driver's node, where the run folder is and the whole model resident, or
        else the evaluator."""
        whole = [] if self.splits else self.hosts
        here = [host.actor for host in whole if ray.get(host.ready) == self.here]
        exporter = here[0] if here else self.evaluator
        self._get(exporter.export.remote(self.buffer, self.state, folder), "writing the result")

    def _get(self, ref: Any, stage: str) -> Any:
        try:
            return ray.get(ref)
        except RayError as e:
            cause = _cause(e)
            if isinstance(cause, StepFailed):
                raise cause from None
            raise StepFailed.of(cause, None, stage, None, str(e)) from None

    def close(self) -> None:
        for actor in (*(host.actor for host in self.hosts), *self.beside_hosts):
            ray.kill(actor)
        self.connection.end()


def _refuse_missing_sites(scenario: Scenario, nodes: Sequence[Node]) -> None:
    for site in scenario.sites:
        if not any(node.site == site for node in nodes):
            got = f"no node of the cluster with the label site={site}"
            raise Refused(f"data.sites.{site}", got, f"one (ray start ... --labels site={site})")


def _cause(e: BaseException) -> BaseException:
    """What really happened: a task's failure wraps its cause, also the loss of an actor it waited for."""
    while isinstance(e, RayTaskError) and isinstance(e.cause, BaseException):
        e = e.cause
    return e
