"""Calls every callback of a run, and says which one failed."""

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any

from fedray.callbacks import Callback, ClientReport, EvaluationReport, RoundReport, RunEnd, RunStart


class CallbackFailed(RuntimeError):
    """A callback raised: its name, the round, the method and the original exception, once. `facts` go into
    error.json."""

    def __init__(self, message: str, facts: dict[str, Any]) -> None:
        super().__init__(message)
        self.facts = facts


class CallbackList:
    """The callbacks of a run, each called in turn.

    Args:
        callbacks: all of them.
        printing: those of them that were passed from Python: their caller sees what they print. What others
            print goes to run.log.
    """

    def __init__(self, callbacks: Sequence[Callback], printing: Sequence[Callback] = ()) -> None:
        self.callbacks = list(callbacks)
        self.printing = list(printing)
        self.started = False
        self.round_number: int | None = None  # of the latest call

    def on_start(self, start: RunStart) -> None:
        self.started = True
        self._call("on_start", lambda callback: callback.on_start(start))

    def on_client(self, report: ClientReport) -> None:
        self.round_number = report.round_number
        self._call("on_client", lambda callback: callback.on_client(report))

    def on_round(self, report: RoundReport) -> None:
        self.round_number = report.round_number
        self._call("on_round", lambda callback: callback.on_round(report))

    def on_evaluation(self, report: EvaluationReport) -> None:
        self.round_number = report.round_number
        self._call("on_evaluation", lambda callback: callback.on_evaluation(report))

    def on_note(self, text: str) -> None:
        self._call("on_note", lambda callback: callback.on_note(text))

    def on_end(self, end: RunEnd) -> None:
        """Of a run that is done. Every callback is called; the first failure is raised."""
        if failures := self._end(end):
            raise failures[0]

    def on_broken_end(self, end: RunEnd) -> None:
        """Of a run that failed. What callbacks raise now is a note: it must not hide why the run ended."""
        for failed in self._end(end):
            with suppress(CallbackFailed):
                self.on_note(str(failed))

    def _end(self, end: RunEnd) -> list[CallbackFailed]:
        failures: list[CallbackFailed] = []
        for callback in self.callbacks if self.started else ():
            try:
                with self._output(callback):
                    callback.on_end(end)
            except Exception as e:
                failures.append(self._failed(callback, "on_end", e))
        self.started = False
        return failures

    def _call(self, method: str, call: Callable[[Callback], None]) -> None:
        for callback in self.callbacks:
            try:
                with self._output(callback):
                    call(callback)
            except Exception as e:
                raise self._failed(callback, method, e) from e

    @contextmanager
    def _output(self, callback: Callback) -> Iterator[None]:
        """Where a callback prints: run.log, if standard output and error lead there now, or beyond it."""
        if not any(callback is one for one in self.printing):
            yield
            return
        out = getattr(sys.stdout, "outside", sys.stdout)
        err = getattr(sys.stderr, "outside", sys.stderr)
        with redirect_stdout(out), redirect_stderr(err):
            yield

    def _failed(self, callback: Callback, method: str, error: Exception) -> CallbackFailed:
        kind = type(error).__name__
        name = f"{type(callback).__module__}:{type(callback).__qualname__}"
        when = "" if self.round_number is None else f" in round {self.round_number}"
        facts = {
            "error": kind,
            "round": self.round_number,
            "client": None,
            "stage": f"{method} of {name}",
            "traceback": "".join(traceback.format_exception(error)),
        }
        message = f"callback {name}{when}, while {method}: {kind}: {str(error).strip() or 'no message'}"
        return CallbackFailed(message, facts)
