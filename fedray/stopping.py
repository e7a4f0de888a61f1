"""What the evaluations of a run say of going on, and which of its rounds was the best. Both follow from the
lines of metrics.jsonl alone: a resumed run knows what an unbroken one does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fedray.executors import Executor
from fedray.runs.best import BestCheckpoint
from fedray.runs.folder import RunFolder
from fedray.scenario import Refused
from fedray.scenario.evaluation import Evaluation
from fedray.scenario.stopping import EarlyStopping, Watched

Rows = Sequence[Mapping[str, Any]]


class BestRound(NamedTuple):
    """The first of the rounds with the best value of a metric."""

    round: int
    metric: str
    value: float


def best_round(section: Watched, rows: Rows) -> BestRound | None:
    """None where nothing has been measured yet."""
    best: BestRound | None = None
    for number, value in _measured(section, rows):
        if best is None or section.sign * value > section.sign * best.value:
            best = BestRound(number, section.metric, value)
    return best


class Stop(NamedTuple):
    """Why a run ended before its last round.

    Attributes:
        round: after which.
        metric: that was looked at.
        patience: evaluations in a row that were not better.
        best: the value that they had to be better than.
        best_round: whose value that was.
    """

    round: int
    metric: str
    patience: int
    best: float | None
    best_round: int | None

    def __str__(self) -> str:
        than = "" if self.best is None else f" better than {self.best:.4g} (round {self.best_round})"
        return f"ends after round {self.round}: {self.patience} evaluations without {self.metric}{than}"


def stop(section: EarlyStopping, rows: Rows) -> Stop | None:
    """Whether the run ends with the last of these rounds. Where a person has let it go on after one that
    ended it, patience begins anew.

    Args:
        section: what the scenario says.
        rows: lines of metrics.jsonl, from the first round.
    """
    best: tuple[int, float] | None = None
    waited = 0
    for row in rows:
        if not _is_evaluated(row):
            continue
        value = row.get(section.metric)
        if value is not None and (best is None or section.sign * (value - best[1]) > section.min_delta):
            best = row["round"], value
            waited = 0
            continue
        waited += 1
        if waited < section.patience:
            continue
        if row is rows[-1]:
            number, least = best or (None, None)
            return Stop(row["round"], section.metric, section.patience, least, number)
        waited = 0
    return None


def _is_evaluated(row: Mapping[str, Any]) -> bool:
    return any(name.startswith("eval_") for name in row)


def _measured(section: Watched, rows: Rows) -> Iterator[tuple[int, float]]:
    """Each round with a value of the metric."""
    for row in rows:
        if (value := row.get(section.metric)) is not None:
            yield row["round"], value


class Watch:
    """What a run asks about its evaluations: whether it ends, and which round's model it keeps and exports.

    Args:
        section: the scenario's `evaluation`.
        folder: the run folder.
    """

    def __init__(self, section: Evaluation, folder: RunFolder) -> None:
        self.section = section
        self.folder = folder
        self.checkpoint = BestCheckpoint(folder)
        self.stop: Stop | None = None

    @property
    def waits(self) -> bool:
        """Whether a round begins only once the evaluations of those before it have ended."""
        return bool(self.section.watched)

    def open(self) -> None:
        """Before a run goes on: one that has ended goes on only where a person says so."""
        self._ended = self.folder.read("result.json") is not None

    def resume(self, round_number: int) -> None:
        """Goes on after a round, whose lines are the last ones."""
        self.decides(round_number)
        if self._ended:
            self.stop = None
        if (best := self._best()) is not None and best.round == round_number:
            self.keep(round_number)  # where it was broken off between checkpoint and copy

    def refuse_unmeasured(self, metrics: Mapping[str, Any]) -> None:
        """That what is to decide is measured.

        Args:
            metrics: of one evaluation of the global model.

        Raises:
            Refused: naming what is measured.
        """
        for key, watched in self.section.watched.items():
            of_clients = watched.metric.startswith("eval_clients") and self.section.clients is not None
            if watched.metric not in metrics and not of_clients:
                names = ", ".join(sorted(metrics)) or "none, as nothing is measured"
                raise Refused(f"evaluation.{key}.metric", watched.metric, f"one of {names}")

    def decides(self, round_number: int) -> bool:
        """Whether a round that has been recorded is the last, or the best so far: its checkpoint is due."""
        if not self.waits:
            return False
        if self.section.early_stopping is not None:
            self.stop = stop(self.section.early_stopping, self.folder.rows())
        best = self._best()
        return self.stop is not None or (best is not None and best.round == round_number)

    def keep(self, round_number: int) -> None:
        """Keeps the checkpoint of a round that is the best so far."""
        best = self._best()
        if best is not None and best.round == round_number:
            self.checkpoint.keep(round_number)

    def decided(self, executor: Executor, note: Callable[[str], None]) -> dict[str, Any]:
        """At a run's end: what was decided, for result.json. The executor has the best model then.

        Args:
            executor: with the last round's model.
            note: shows a person a text.
        """
        result: dict[str, Any] = {}
        if self.stop is not None:
            result["stopped"] = self.stop._asdict()
            note(str(self.stop))
        best = self._best()
        if best is None:
            return result
        state = self.checkpoint.state()
        if isinstance(state, str) or state.round != best.round:
            note(f"checkpoints/best is not round {best.round}'s: model/ is that of the last round")
            return result
        executor.restore(self.checkpoint.path, state.saved)
        note(f"model/ is that of round {best.round}, with {best.metric} {best.value:.4g}")
        return result | {"best": best._asdict() | {"weights_sha256": state.saved.weights_sha256}}

    def _best(self) -> BestRound | None:
        section = self.section.best
        return None if section is None else best_round(section, self.folder.rows())
