"""Who carries a schedule out: Ray actors, or this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fedray.scenario.scenario import Scenario
from fedray.schedule import Schedule, Send, Train
from fedray.workload import Workload


@dataclass(frozen=True)
class Job:
    """What every worker must know."""

    scenario: Scenario
    folder: Path  # where relative paths start


class StepFailed(RuntimeError):
    """A step that went wrong through no fault of its data: what, where, and the original exception, once."""

    def __init__(self, error: BaseException, round: int | None, stage: str, client: int | None, traceback: str) -> None:
        where = f"client {client}" if client is not None else "the server"
        when = f" in round {round}" if round is not None else ""
        super().__init__(f"{where}{when}, while {stage}: {type(error).__name__}: {str(error).strip() or 'no message'}")
        self.facts: dict[str, Any] = {
            "error": type(error).__name__,
            "round": round,
            "client": client,
            "stage": stage,
            "traceback": traceback,
        }


@dataclass(frozen=True)
class TrainReport:
    """What a client says of its turn. Work and losses, never times."""

    round: int
    client: int
    samples: int  # it holds
    trained: int  # samples it went through
    loss: float  # mean over its steps
    failure: str | None = None
    stage: str | None = None


@dataclass(frozen=True)
class Look:
    """An evaluation that may still be going on, while rounds do."""

    ready: Callable[[], bool]
    metrics: Callable[[], dict[str, float]]  # waits for them


class Executor(Protocol):
    """Holds the global buffer, and what the rounds do to it."""

    def describe(self) -> str: ...

    def workload(self) -> Workload: ...

    def survey(self) -> list[int]:
        """How many samples each client holds, where `data.sites` lets only the sites' hosts look."""
        ...

    def begin(self) -> None:
        """The global buffer before the first round."""
        ...

    def restore(self, file: Path, sha256: str) -> None:
        """The global buffer of a checkpoint. Raises ValueError where the file is not what it was."""
        ...

    def carry_out(self, schedule: Schedule) -> Iterator[TrainReport]:
        """One round; a report as each client ends its turn. The global buffer is the new one once all are taken."""
        ...

    def evaluate(self, grid: Path, base: bool = False) -> Look:
        """Looks at the global buffer as it is now, or at the base model's."""
        ...

    def checkpoint(self, file: Path) -> str:
        """Writes the global buffer; its sha256."""
        ...

    def export(self, folder: Path) -> None: ...

    def publish(self, run: str, metrics: dict[str, Any]) -> None:
        """A round's metrics, for whatever monitors the executor."""
        ...

    def close(self) -> None: ...


def flow(schedule: Schedule, start: Any, train: Any, aggregate: Any) -> Any:
    """Lets values flow along a schedule's edges: the one reading of a schedule that every executor shares.

    `train(client, value)` gives (value, report); `aggregate([(value, reports), ...])` the round's result. A value is
    a buffer or a reference to one, and carries the reports of the turns that made it.
    """
    held: dict[str, tuple[Any, list[Any]]] = {}
    result = start
    for step in schedule:
        if isinstance(step, Send):
            held[step.id] = held[step.after[0]] if step.after else (start, [])
        elif isinstance(step, Train):
            value, reports = held[step.after[0]]
            new, report = train(step.client, value)
            held[step.id] = (new, [*reports, report])
        else:
            result = aggregate([held[i] for i in step.after])
            held[step.id] = (result, [])
    return result


def open_executor(job: Job, note: Callable[[str], None] = print) -> Executor:
    """The executor that `runtime.executor` names; `note` shows a person what it does about lost actors and nodes."""
    if job.scenario.runtime.executor == "ray":
        from fedray.executors.ray import RayExecutor

        return RayExecutor(job, note)
    from fedray.executors.serial import SerialExecutor

    return SerialExecutor(job)
