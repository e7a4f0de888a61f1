"""The ledger of a run that goes on; nothing where its scenario has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedray.executors import Executor, TrainReport
from fedray.ledger.records import digest, run_id
from fedray.scenario import Loaded, ScenarioError

if TYPE_CHECKING:
    from fedray.ledger.log import GlobalModel, SignedLedger


class SignedRounds:
    """Gives the ledger what a round has made.

    Args:
        loaded: the scenario.
        run: the run folder.
        executor: that holds the global buffer.
        can_train: how many clients can train at all.
    """

    def __init__(self, loaded: Loaded, run: Path, executor: Executor, can_train: int) -> None:
        self.loaded = loaded
        self.run = run
        self.executor = executor
        self.can_train = can_train
        self.ledger = self._ledger()

    def begin(self) -> None:
        """Of a new run."""
        if self.ledger is not None:
            self.ledger.begin(self._model())

    def resume(self, done: int) -> None:
        """Goes on from the signed head of the last round that is done.

        Raises:
            ScenarioError: naming what has changed in the ledger or in the weights that it goes on from.
        """
        if self.ledger is None:
            return
        from fedray.ledger.chain import chain

        audit = chain(self.run, run_id(self.loaded.scenario))
        if audit.problems:
            raise ScenarioError(audit.problems)
        head = next((head for head in audit.heads if head.round == done), None)
        if head is not None and self._model().buffer != head.buffer:
            got = f"other weights than the head of round {done} in the ledger names"
            raise ScenarioError([f"--resume {self.run}: got {got}, expected {head.buffer[:12]}..."])
        self.ledger.go_back(done, audit.entries)

    def add_round(self, number: int, reports: Sequence[TrainReport]) -> None:
        """A round that has ended, with the reports of its clients in their order."""
        if self.ledger is None:
            return
        leaves = {report.client: report.leaf for report in reports if report.leaf is not None}
        updates = {report.client: report.update for report in reports if report.update is not None}
        self.ledger.add_round(number, leaves, updates, self._model())

    @property
    def seal(self) -> Callable[[Path], None] | None:
        """What signs the files of a checkpoint."""
        return None if self.ledger is None else self.ledger.seal

    def _ledger(self) -> SignedLedger | None:
        if self.loaded.scenario.ledger is None:
            return None
        from fedray.ledger.log import SignedLedger

        return SignedLedger(self.run, self.loaded.scenario, self.loaded.folder)

    def _model(self) -> GlobalModel:
        """The global model as it is now."""
        from fedray.executors.server import weights_sha256
        from fedray.ledger.log import GlobalModel

        buffer, layout = self.executor.global_buffer()
        weights = weights_sha256(self.loaded.scenario, layout, buffer)
        return GlobalModel(digest(buffer.data), weights, self.can_train)
