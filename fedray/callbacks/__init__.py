"""What is called while a run goes on: the terminal, trackers, monitors, and a user's own callbacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fedray.scenario.runtime import CallbackSection
from fedray.scenario.scenario import Scenario


@dataclass(frozen=True)
class RunStart:
    """A run is about to train its first round, or its next one where it is resumed.

    Attributes:
        run: the run folder.
        scenario: what is run.
        executor: where it runs, in words.
        rounds: how many there are in all.
        done: rounds that were done before; 0 for a new run.
        history: their metrics, the lines of metrics.jsonl.
    """

    run: Path
    scenario: Scenario
    executor: str
    rounds: int
    done: int
    history: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ClientReport:
    """A client has ended its local update. Work and losses, never times.

    Attributes:
        round_number: from 1.
        client: its number, from 0.
        clients: how many train in this round.
        samples_held: how many samples it has.
        samples: how many it trained on in this round, repeats counted.
        steps: of its optimizer.
        loss: mean over these samples; NaN where it failed.
        failure: what was wrong with its data or its loss; None where nothing was.
        stage: in which that happened.
        rejected: clients whose models the receivers of a relay have rejected, since the report before.
    """

    round_number: int
    client: int
    clients: int
    samples_held: int
    samples: int
    steps: int
    loss: float
    failure: str | None = None
    stage: str | None = None
    rejected: tuple[int, ...] = ()


@dataclass(frozen=True)
class RoundReport:
    """A round has been recorded. Where it was evaluated, that has ended, too.

    Attributes:
        round_number: from 1.
        rounds: how many there are in all.
        metrics: the line of metrics.jsonl; None where there is no number.
    """

    round_number: int
    rounds: int
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class EvaluationReport:
    """The global model has been evaluated; or the base model, as round 0.

    Attributes:
        round_number: after which it was; 0: before the first.
        metrics: by name, each beginning with `eval_`.
        samples: the grid of images that it made, a PNG file; None where it made none.
    """

    round_number: int
    metrics: Mapping[str, float | None]
    samples: Path | None


@dataclass(frozen=True)
class RunEnd:
    """A run has ended.

    Attributes:
        run: the run folder.
        status: done, failed or interrupted.
        result: the object of result.json, where it is done.
        error: what stopped it, where it failed.
    """

    run: Path
    status: str
    result: Mapping[str, Any] | None = None
    error: str | None = None


class Callback:
    """Called as a run goes on, in the process that drives it. Override what you need; what a method returns
    is ignored, and an exception in one ends the run.

    >>> class BestLoss(Callback):
    ...     best = float("inf")
    ...
    ...     def on_round(self, report: RoundReport) -> None:
    ...         self.best = min(self.best, report.metrics["loss"])
    >>> callback = BestLoss()
    >>> for number, loss in enumerate([0.5, 0.25, 0.375], start=1):
    ...     callback.on_round(RoundReport(number, 3, {"round": number, "loss": loss}))
    >>> callback.best
    0.25

    Args:
        section: where a scenario names it in `runtime.report_to`, with its options.
    """

    Section: ClassVar[type[CallbackSection]] = CallbackSection

    def __init__(self, section: Any = None) -> None:
        self.section = section

    def on_start(self, start: RunStart) -> None:
        """Once, before the first round."""

    def on_client(self, report: ClientReport) -> None:
        """After each client's local update, in the order in which they end."""

    def on_round(self, report: RoundReport) -> None:
        """After each round, in the order of the rounds. Rounds may train behind an evaluation: those reports
        come once it has ended."""

    def on_evaluation(self, report: EvaluationReport) -> None:
        """After each evaluation, before its round's `on_round`."""

    def on_end(self, end: RunEnd) -> None:
        """Once, however the run ends, if `on_start` was called."""

    def on_note(self, text: str) -> None:
        """Something that a person should know; at any time."""
