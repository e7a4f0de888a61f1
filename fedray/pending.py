"""A round that has been trained, and whose evaluations may still be running."""

from pathlib import Path
from typing import Any, NamedTuple

from fedray.evaluation.client_tests import spread
from fedray.executors import ClientTestsHandle, EvaluationHandle, Executor
from fedray.network.ledger import Event
from fedray.runs.recorder import finite
from fedray.scenario.scenario import Scenario


class PendingRound(NamedTuple):
    """A round that has been trained, and is recorded once the evaluations before and of it have ended."""

    round_number: int
    events: list[Event]
    metrics: dict[str, Any]
    clients: list[dict[str, Any]]
    evaluation: EvaluationHandle | None  # of the global model
    tests: ClientTestsHandle | None = None  # on clients' own distributions

    @property
    def is_running(self) -> bool:
        handles = (self.evaluation, self.tests)
        return any(handle is not None and not handle.done() for handle in handles)

    def evaluated(self) -> tuple[dict[str, float | None] | None, list[dict[str, Any]]]:
        """The metrics of its evaluations, once they have ended; None where there was none. And the rows of
        the clients' tests."""
        if self.evaluation is None:
            return None, []
        metrics = self.evaluation.result()
        rows = self.tests.result() if self.tests is not None else []
        tested = [{"round": self.round_number, **finite(row)} for row in rows]
        return finite(metrics | spread(rows)), tested


def evaluate_base(executor: Executor, scenario: Scenario, grid: Path) -> EvaluationHandle:
    """Looks at the base model, also on what is held out of clients' samples.

    Args:
        executor: has it.
        scenario: whose.
        grid: where what it makes is written.
    """
    evaluation = executor.evaluate(grid, base=True)
    if scenario.data.holdout is None:
        return evaluation
    tests = executor.test_clients(0)

    def result() -> dict[str, float]:
        return evaluation.result() | spread(tests.result())

    return EvaluationHandle(lambda: evaluation.done() and tests.done(), result)
