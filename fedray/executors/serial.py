"""One process, no Ray: for debugging and notebooks. The same bits."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedray.executors import DataFailure, EvaluationHandle, Job, TrainReport, chains, to_paint
from fedray.executors.augment import AugmentWork
from fedray.executors.local_training import ClientWork
from fedray.executors.server import EvaluatorWork, ServerWork
from fedray.executors.spill import ClientStates, Kept
from fedray.executors.split import ask, failed
from fedray.executors.split.client import SplitClients
from fedray.executors.split.server import SplitServer
from fedray.planning.round import Shared
from fedray.planning.workload import Workload, measure
from fedray.randomness import SERVER
from fedray.runs.folder import Saved
from fedray.scenario.topology import Split
from fedray.schedule import Schedule


class SerialExecutor:
    def __init__(self, job: Job) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.job, self.device = job, device
        self.server, self.evaluator = ServerWork(job), EvaluatorWork(job, device)
        self.clients: ClientWork | SplitClients
        if isinstance(job.scenario.topology, Split):
            self.clients, self.split = SplitClients(job, device), SplitServer(job, device)
            self.initial, self.layout, self.initial_state = self.split.initial()
        else:
            self.clients = ClientWork(job, device)
            self.initial, self.layout, self.initial_state = self.clients.initial()

    def describe(self) -> str:
        return f"serial, on {self.device.type}"

    def workload(self) -> Workload:
        return measure(self.job.scenario, self.job.folder)

    def survey(self) -> tuple[list[int], dict[str, Any]]:
        raise AssertionError("scenarios with sites are refused in one process")

    def begin(self, shared: Shared) -> None:
        self.shared, self.buffer = shared, self.initial
        self.state: Kept = self.initial_state
        self.can_train = len(shared.eligible(self.job.scenario))
        self.client_states = ClientStates()
        self.changed: set[int] = set()

    def restore(self, folder: Path, saved: Saved) -> None:
        self.buffer, self.state = self.server.restore(self.layout, folder, saved)
        for client, name in saved.clients.items():
            self.client_states[client] = self.server.client_state(folder, name, saved.files[name])
        # written anew: the checkpoint before the next one may be a damaged one
        self.changed = set(self.client_states)

    def run_round(self, schedule: Schedule) -> Iterator[TrainReport]:
        if isinstance(self.clients, SplitClients):
            yield from self._run_split_round(schedule, self.clients)
            return
        scenario, base = self.job.scenario, self.buffer
        weight = sum(scenario.aggregation.weight(self.shared.samples[c]) for c in schedule.clients)
        sums, together, labels = [], None, to_paint(schedule, scenario, self.shared)
        here = labels.pop(SERVER, None)
        augmented = (
            self.augment.train(schedule.round, here, base, self.state)
            if here is not None and SERVER in schedule.pictures
            else None
        )
        generated = labels or (self.augment.paint(here) if here is not None and augmented is None else None)
        for chain in chains(schedule):
            if len(chain) == 1:
                (client,) = chain
                old = self.client_states.get(client)
                server = self.state if scenario.adds_to_master else {}
                arguments = (weight, schedule.round, chain, [old], together, generated)
                together, reports, (new,) = self.clients.train_all(base, server, *arguments)
                if scenario.aggregation.keeps_state:
                    self.client_states[client] = new or {}
                    self.changed.add(client)
                yield from reports
                continue
            buffer, theirs = base, []
            for client in chain:
                new_buffer, report = self.clients.train(schedule.round, client, buffer)
                buffer = new_buffer.copy()  # the next turn writes over the worker's own
                theirs.append(report)
                yield report
            sums.append(self.clients.add(base, self.state, weight, buffer, theirs))
        sums += [together] if together else []
        if sums:
            self.buffer, self.state = self.server.aggregate(
                self.layout, base, self.state, schedule.round, self.can_train, sums
            )
        if augmented is not None:
            self.buffer, self.state, kappa = self.augment.mix(
                self.layout, schedule.round, self.buffer, self.state, *augmented
            )
            yield replace(augmented[1], kappa_2=kappa)

    def _run_split_round(self, schedule: Schedule, clients: SplitClients) -> Iterator[TrainReport]:
        """The server's part is as it was until all turns have ended: a client that fails is left out, and the
        rest is done again."""
        while schedule.clients:
            try:
                done = ask(
                    schedule,
                    self.buffer,
                    self.state,
                    0,
                    lambda _: partial(_call, clients),
                    partial(_call, self.split),
                )
                weights = [self.job.scenario.aggregation.weight(self.shared.samples[c]) for c in done.ends]
                total = self.split.finish(0, list(done.ends), weights, list(done.ends.values()))
            except DataFailure as e:
                yield (report := failed(schedule, e, self.shared.samples))
                schedule = schedule.without(report.client)
                continue
            yield from done.reports.values()
            round, n = schedule.round, self.can_train
            self.buffer, self.state = self.server.aggregate(
                self.layout, self.buffer, self.state, round, n, [total]
            )
            return

    @cached_property
    def augment(self) -> AugmentWork:
        return AugmentWork(self.job, self.device)

    def evaluate(self, grid: Path, base: bool = False) -> EvaluationHandle:
        model = (self.initial, self.initial_state) if base else (self.buffer, self.state)
        metrics = self.evaluator.evaluate(*model, grid) if self.job.scenario.has_evaluation else {}
        return EvaluationHandle(lambda: True, lambda: metrics)

    def audit(self, clients: Sequence[int], labels: np.ndarray, grid: Path) -> dict[str, Any]:
        assert isinstance(self.clients, ClientWork)
        return self.augment.audit(
            self.buffer, labels, grid, [self.clients.audit(client, self.buffer) for client in clients]
        )

    def checkpoint(self, folder: Path, before: Path | None) -> Saved:
        changed, unchanged = sorted(self.changed), sorted(self.client_states.keys() - self.changed)
        states = [self.client_states[c] for c in changed]
        self.changed = set()
        return self.server.checkpoint(
            self.layout, self.buffer, self.state, folder, before, unchanged, changed, *states
        )

    def export(self, folder: Path) -> None:
        worker = self.evaluator if isinstance(self.clients, SplitClients) else self.clients
        worker.export(self.buffer, self.state, folder)

    def close(self) -> None:
        pass


def _call(worker: Any, method: str, *arguments: Any) -> Any:
    return getattr(worker, method)(*arguments)
