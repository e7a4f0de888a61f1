"""The actor that aggregates and keeps checkpoints. Thin: all it does is in server.py, node_models.py and the
companion's server."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from fedray.executors import Job, TrainReport, attribute_error
from fedray.executors.ray.actors import Actor, or_failure, this_device
from fedray.executors.ray.turns import Turns
from fedray.lazy import resolve
from fedray.runs.state import Saved
from fedray.steps import Pass


class ServerHost(Actor):
    """An actor that aggregates and keeps checkpoints."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.turns = Turns()

    def make(self) -> Any:
        from fedray.executors.server import ServerWork

        return ServerWork(self.job)

    def ready(self) -> bool:
        return self.work is not None

    @cached_property
    def companion(self) -> Any:
        assert self.work is not None  # sets what torch reads
        section = self.job.scenario.companion
        assert section is not None
        return resolve(section.implementation)(self.job, this_device())

    @cached_property
    def split(self) -> Any:
        from fedray.executors.split.server import SplitServer

        assert self.work is not None
        return SplitServer(self.job, this_device())

    def initial(self) -> tuple[Any, Any, Any]:
        with self.turns.changed:  # a resumed run may begin beside it, and there is one split
            return self.split.initial()

    def begin(self, attempt: int, round_number: int, buffer: Any, state: Any) -> None:
        with self.turns.begun(attempt):
            self.split.begin(attempt, round_number, buffer, state)

    def abandon(self) -> None:
        """Nobody wants this attempt's answers any more."""
        with self.turns.begun(-1):
            pass

    def go(self, number: int, attempt: int, round_number: int, step: Pass, arrived: Any) -> Any:
        with self.turns.taken(attempt, number):
            return or_failure(lambda: self.split.go(attempt, round_number, step, arrived), [arrived])

    def finish(
        self,
        layout: Any,
        buffer: Any,
        state: Any,
        round_number: int,
        can_train: int,
        attempt: int,
        clients: Sequence[int],
        weights: Sequence[int],
        *ends: Any,
    ) -> tuple[Any, Any, None]:
        total = self.split.finish(attempt, clients, weights, ends)
        return *self.work.aggregate(layout, buffer, state, round_number, can_train, [total]), None

    def audit(self, buffer: Any, state: Any, labels: Any, grid: Path, *parts: Any) -> Any:
        audited = [client for part in parts for client in part]
        return self.companion.audit(buffer, state, labels, grid, audited)

    def prepare(self, task: Any, state: Any) -> Any:
        return self.companion.prepare(task, state)

    def choose(self, task: Any, state: Any, *parts: list[TrainReport]) -> Any:
        return self.companion.choose(task, state, [report for part in parts for report in part])

    def train_companion(
        self, round_number: int, task: Any, buffer: Any, state: Any
    ) -> tuple[Any, TrainReport]:
        return self.companion.train(round_number, task, buffer, state)

    def aggregate(
        self, layout: Any, buffer: Any, state: Any, round_number: int, can_train: int, augmented: Any,
        report: Any, *sums: Any, secure: Any = None, tier: Any = None, receive_snr: Any = None,
    ) -> tuple[Any, ...]:  # fmt: skip
        """The new buffer and state, and the server's own report with what its augmented model weighed, if it
        trained one.

        Args:
            layout: of what travels.
            buffer: the global one.
            state: the server's.
            round_number: from 1.
            can_train: clients that can train at all.
            augmented: the numbers of the companion's model, where it trained one.
            report: the companion's.
            secure: the round's secure aggregation, or None.
            tier: whose step it is; None: clients are in no tiers.
            receive_snr: of updates that add up on the air, or None.
        """
        from fedray.executors.server import reported

        trained = report is not None
        added = self.work.contributions(layout, buffer, state, round_number, can_train, sums)
        report = reported(report, round_number, sums, added)
        if sums or self.work.job.scenario.steps_without_updates:
            buffer, state = self.work.aggregate(
                layout, buffer, state, round_number, can_train, sums, secure, tier, receive_snr
            )
        if trained:
            ended = (augmented, report)
            buffer, state, report = self.companion.mix(layout, round_number, buffer, state, ended)
        return buffer, state, report

    def mix(
        self, layout: Any, state: Any, round_number: int, can_train: int, mixing: Any, *arrays: Any
    ) -> tuple[Any, ...]:
        """The mean of the nodes' models after a round, what is kept beside them, the server's report, and
        every node's model.

        Args:
            layout: of what travels.
            state: what is kept.
            round_number: from 1.
            can_train: clients that can train at all.
            mixing: what becomes of the models.
            arrays: of each node that keeps one its model, or the server's, then what each host has
                accumulated.
        """
        from fedray.executors.node_models import mix

        assert self.work is not None  # sets what torch reads
        n = len(mixing.kept) or 1
        with attribute_error(round_number, "aggregating", None):
            after = mix(
                self.job.scenario, layout, state, round_number, can_train, mixing, arrays[:n], arrays[n:]
            )
        return after.buffer, after.state, after.report(round_number), *after.buffers

    def restore(self, layout: Any, folder: Path, saved: Saved) -> tuple[Any, Any, bool]:
        return *self.work.restore(layout, folder, saved), True

    def keep(self, *states: Any) -> Any:
        return states if len(states) > 1 else states[0]

    def client_state(self, folder: Path, name: str, sha256: str) -> Any:
        return self.work.client_state(folder, name, sha256)

    def version(self, folder: Path, name: str, sha256: str) -> Any:
        return self.work.version(folder, name, sha256)

    def checkpoint(self, *arguments: Any) -> Saved:
        return self.work.checkpoint(*arguments)
