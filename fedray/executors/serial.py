"""One process, no Ray: for debugging and notebooks. The same bits."""

from collections.abc import Generator, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedray.aggregation.accumulators import Accumulator
from fedray.executors import (
    ClientTestsHandle,
    DataFailure,
    EvaluationHandle,
    Job,
    TrainReport,
    attribute_error,
    chains,
    client_weights,
    companion_round,
    last_validators,
    secure_for,
)
from fedray.executors.client_tests import GlobalModel
from fedray.executors.client_worker import ClientWorker
from fedray.executors.companion import Companion
from fedray.executors.evaluator import EvaluatorWork
from fedray.executors.node_models import mix
from fedray.executors.server import ServerWork, reported
from fedray.executors.spill import ClientStates, StateArrays
from fedray.executors.split import ask, failed
from fedray.executors.split.client import SplitClients
from fedray.executors.split.server import SplitServer
from fedray.executors.versions import Aged, Versions, by_start, held_files
from fedray.lazy import resolve
from fedray.planning.gangs import gangs
from fedray.planning.shared import Shared
from fedray.planning.workload import Workload, measure
from fedray.runs.state import Saved
from fedray.scenario.kinds import implementation
from fedray.schedule import Schedule
from fedray.transport.buffer import Layout


class SerialExecutor:
    def __init__(self, job: Job) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.job = job
        self.device = device
        self.server = ServerWork(job)
        self.evaluator = EvaluatorWork(job, device)
        self.clients: ClientWorker | SplitClients
        if job.scenario.topology.splits_model:
            self.clients = SplitClients(job, device)
            self.split = SplitServer(job, device)
            self.initial, self.layout, self.initial_state = self.split.initial()
        else:
            self.clients = ClientWorker(job, device)
            self.initial, self.layout, self.initial_state = self.clients.initial()

    def describe(self) -> str:
        return f"serial, on {self.device.type}"

    def workload(self) -> Workload:
        return measure(self.job.scenario, self.job.folder, self.job.dataset)

    def survey(self) -> tuple[list[int], dict[str, Any]]:
        raise AssertionError("scenarios with sites are refused in one process")

    def begin(self, shared: Shared) -> None:
        self.shared = shared
        self.buffer = self.initial
        self.state: StateArrays = self.initial_state
        self.can_train = len(shared.eligible(self.job.scenario))
        self.client_states = ClientStates()
        self.changed: set[int] = set()
        self.versions = Versions(self.initial)

    def restore(self, folder: Path, saved: Saved) -> None:
        self.buffer, self.state = self.server.restore(self.layout, folder, saved)
        for client, name in saved.clients.items():
            self.client_states[client] = self.server.client_state(folder, name, saved.files[name])
        for held, number, name in held_files(saved):
            getattr(self.versions, held)[number] = self.server.version(folder, name, saved.files[name])
        # written anew: the checkpoint before the next one may be a damaged one
        self.changed = set(self.client_states)

    def run_round(self, schedule: Schedule) -> Iterator[TrainReport]:
        if isinstance(self.clients, SplitClients):
            yield from self._run_split_round(schedule, self.clients)
            return
        companion = companion_round(schedule, self.job.scenario, self.shared)
        extra = companion.client_samples
        if companion.prepare is not None:
            extra = self.companion.prepare(companion.prepare, self.state)
        trained = None
        if companion.train is not None:
            trained = self.companion.train(schedule.round, companion.train, self.buffer, self.state)
        secure = secure_for(self.job.scenario, schedule)
        reports: list[TrainReport] = []
        training = self._train_clients(schedule, self.clients, extra, secure)
        partials = yield from collecting(training, reports)
        if schedule.models is not None:
            yield self._mix(schedule, partials)
            return
        now = (self.layout, self.buffer, self.state, schedule.round, self.can_train)
        added = self.server.contributions(*now, partials)
        report = reported(trained and trained[1], schedule.round, partials, added)
        self.versions.keep(schedule, self.buffer)
        if partials or self.job.scenario.steps_without_updates:
            self._aggregate(schedule.round, partials, secure, schedule)
        if companion.choose is not None:
            self.state = self.companion.choose(companion.choose, self.state, reports)
        if trained is not None:
            ended = (trained[0], report or trained[1])
            mixed = self.companion.mix(self.layout, schedule.round, self.buffer, self.state, ended)
            self.buffer, self.state, report = mixed
        if report is not None:
            yield report

    def _train_clients(
        self, schedule: Schedule, clients: ClientWorker, extra: Any, secure: Any
    ) -> Generator[TrainReport, None, list[Accumulator]]:
        """Every client's local update; what is accumulated of those side by side, and of each relay."""
        weight = sum(client_weights(self.job.scenario, schedule, self.shared.samples).values())
        weights = schedule.weights  # None: by the samples that each has used
        partials = []
        parallel: Accumulator | None = None
        in_gangs = self.job.scenario.runtime.gang > 1
        samples = self.shared.samples.__getitem__
        side_by_side = gangs(self.job.scenario, schedule.clients, samples) if in_gangs else chains(schedule)
        section = self.job.scenario.topology.asynchronous
        for chain in side_by_side:
            if len(chain) > 1 and not in_gangs:
                partials.append((yield from self._relay(schedule, clients, chain, weight)))
                continue
            states = [self.client_states.get(client) for client in chain]
            server = self.state if self.job.scenario.shows_server_state else {}
            ((start, _),) = by_start(schedule, chain)
            base = self.versions.base(schedule, start, self.buffer)
            aged = None
            if section is not None:
                aged = Aged(start.staleness, self.buffer if implementation(section).needs_drift else None)
            parallel, reports, new_states = clients.train_all(
                base, server, weight, schedule.round, chain, states, parallel, extra, secure, weights, aged,
                None if schedule.models is None else schedule.models.node_of,
            )  # fmt: skip
            self._keep(chain, new_states)
            yield from reports
        return [*partials, parallel] if parallel is not None else partials

    def _relay(
        self, schedule: Schedule, clients: ClientWorker, chain: Sequence[int], weight: int
    ) -> Generator[TrainReport, None, Accumulator]:
        """One chain's local updates, each from where the one before it ended. Where receivers validate what
        they get, the last report comes once that is done."""
        train = clients.validate_and_train if schedule.validates else clients.train
        held: Any = self.buffer
        reports: list[TrainReport] = []
        for client in chain:
            yield from reports[-1:]
            state = self.client_states.get(client)
            handed_on, report, new_state = train(schedule.round, client, held, state)
            held = handed_on.copy()  # the next local update writes over the worker's own
            self._keep([client], [new_state])
            reports.append(report)
        if schedule.validates:
            validator = last_validators(schedule).get(chain[-1])
            state = None if validator is None else self.client_states.get(validator)
            held, reports[-1] = clients.validate(schedule.round, validator, held, reports[-1], state)
        yield reports[-1]
        return clients.add(self.buffer, self.state, weight, held, reports)

    def _keep(self, clients: Sequence[int], states: Sequence[StateArrays | None]) -> None:
        if self.job.scenario.keeps_client_state:
            for client, state in zip(clients, states, strict=True):
                self.client_states[client] = state or {}
                self.changed.add(client)

    def _weight(self, client: int) -> int:
        return self.job.scenario.weight(client, self.shared.samples[client])

    def _aggregate(
        self,
        round_number: int,
        partials: Sequence[Accumulator],
        secure: Any = None,
        schedule: Schedule | None = None,
    ) -> None:
        self.buffer, self.state = self.server.aggregate(
            self.layout, self.buffer, self.state, round_number, self.can_train, partials, secure,
            None if schedule is None else schedule.tier,
            None if schedule is None else schedule.receive_snr,
        )  # fmt: skip

    def _mix(self, schedule: Schedule, partials: Sequence[Accumulator]) -> TrainReport:
        """The end of a round of several models, and what is reported of it."""
        mixing = schedule.models
        assert mixing is not None
        with attribute_error(schedule.round, "aggregating", None):
            buffers = [self.versions.node(node) for node in mixing.kept] or [self.buffer]
            after = mix(
                self.job.scenario, self.layout, self.state, schedule.round, self.can_train, mixing, buffers,
                partials,
            )  # fmt: skip
        self.buffer = after.buffer
        self.state = after.state
        self.versions.nodes = dict(zip(mixing.kept, after.buffers, strict=True))
        return after.report(schedule.round)

    def _run_split_round(self, schedule: Schedule, clients: SplitClients) -> Iterator[TrainReport]:
        """The server's part is as it was until all local updates have ended: a client that fails is left out,
        and the rest is done again."""
        client = partial(_call, clients)
        server = partial(_call, self.split)
        while schedule.clients:
            try:
                states = self.client_states
                done = ask(schedule, self.buffer, self.state, states, 0, lambda _: client, server)
                weights = [self._weight(c) for c in done.ends]
                accumulated = self.split.finish(0, list(done.ends), weights, list(done.ends.values()))
            except DataFailure as e:
                report = failed(schedule, e, self.shared.samples)
                yield report
                schedule = schedule.without(report.client)
                continue
            yield from done.reports.values()
            self._keep(list(done.states), list(done.states.values()))
            self._aggregate(schedule.round, [accumulated])
            return

    @cached_property
    def companion(self) -> Companion:
        section = self.job.scenario.companion
        assert section is not None
        companion: Companion = resolve(section.implementation)(self.job, self.device)
        return companion

    def evaluate(self, grid: Path, base: bool = False) -> EvaluationHandle:
        model = (self.initial, self.initial_state) if base else (self.buffer, self.state)
        metrics = self.evaluator.evaluate(*model, grid) if self.job.scenario.has_evaluation else {}
        return EvaluationHandle(lambda: True, lambda: metrics)

    def test_clients(self, round_number: int) -> ClientTestsHandle:
        model = (self.buffer, self.state) if round_number else (self.initial, self.initial_state)
        states = self.client_states if round_number else {}
        scenario = self.job.scenario
        tested = scenario.tested_clients
        own = self.versions.own(tested) if scenario.topology.keeps_client_models else {}
        rows = self.clients.test_clients(GlobalModel(round_number, *model, own), tested, states)
        return ClientTestsHandle(lambda: True, lambda: rows)

    def audit(self, clients: Sequence[int], labels: np.ndarray, grid: Path) -> dict[str, Any]:
        assert isinstance(self.clients, ClientWorker)
        audited = [self.clients.audit(client, self.buffer) for client in clients]
        return self.companion.audit(self.buffer, self.state, labels, grid, audited)

    def checkpoint(self, folder: Path, before: Path | None) -> Saved:
        changed = sorted(self.changed)
        unchanged = sorted(self.client_states.keys() - self.changed)
        states = [self.client_states[c] for c in changed]
        self.changed = set()
        held = self.versions.files()
        return self.server.checkpoint(
            self.layout, self.buffer, self.state, folder, before, unchanged, changed,
            [*held], *states, *held.values(),
        )  # fmt: skip

    def global_buffer(self) -> tuple[np.ndarray, Layout]:
        return self.buffer, self.layout

    def export(self, folder: Path) -> None:
        worker = self.evaluator if isinstance(self.clients, SplitClients) else self.clients
        worker.export(self.buffer, self.state, folder)

    def close(self) -> None:
        pass


def collecting(
    training: Generator[TrainReport, None, list[Accumulator]], reports: list[TrainReport]
) -> Generator[TrainReport, None, list[Accumulator]]:
    """The same reports and result, with the reports in a list too.

    Args:
        training: gives reports, and what they accumulate.
        reports: to which they are added.
    """
    while True:
        try:
            reports.append(next(training))
        except StopIteration as e:
            partials: list[Accumulator] = e.value
            return partials
        yield reports[-1]


def _call(worker: Any, method: str, *arguments: Any) -> Any:
    return getattr(worker, method)(*arguments)
