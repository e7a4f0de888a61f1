"""One process, no Ray: for debugging and notebooks. The same bits."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fedray.executors import Job, Look, StepFailed, TrainReport, flow
from fedray.executors.work import ClientWork, EvaluatorWork, ServerWork
from fedray.schedule import Schedule
from fedray.workload import Workload, measure


class SerialExecutor:
    def __init__(self, job: Job) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.job, self.device = job, device
        self.clients, self.server, self.evaluator = ClientWork(job, device), ServerWork(job), EvaluatorWork(job, device)
        buffer, self.layout = self.clients.initial()
        self.initial = buffer.copy()

    def describe(self) -> str:
        return f"serial, on {self.device.type}"

    def workload(self) -> Workload:
        return measure(self.job.scenario, self.job.folder)

    def survey(self) -> list[int]:
        raise AssertionError("scenarios with sites are refused in one process")

    def begin(self) -> None:
        self.buffer = self.initial

    def restore(self, file: Path, sha256: str) -> None:
        self.buffer = self.server.restore(self.layout, file, sha256)

    def carry_out(self, schedule: Schedule) -> Iterator[TrainReport]:
        reports: list[TrainReport] = []

        def train(client, buffer):
            try:
                new, report = self.clients.train(schedule.round, client, buffer)
            except Exception as e:
                raise StepFailed(e, schedule.round, "training", client, traceback.format_exc()) from e
            reports.append(report)
            return new.copy(), report  # the next turn writes over the worker's own buffer

        self.buffer = flow(schedule, self.buffer, train, lambda arrived: self.server.aggregate(self.layout, self.buffer, arrived))
        yield from reports

    def evaluate(self, grid: Path, base: bool = False) -> Look:
        looks = self.job.scenario.evaluation.looks
        metrics = self.evaluator.evaluate(self.initial if base else self.buffer, grid) if looks else {}
        return Look(lambda: True, lambda: metrics)

    def checkpoint(self, file: Path) -> str:
        return self.server.checkpoint(self.layout, self.buffer, file)

    def export(self, folder: Path) -> None:
        self.clients.export(self.buffer, folder)

    def publish(self, run: str, metrics: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass
