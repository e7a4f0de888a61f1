"""What stops a run, and what may not: a failure of a client's data beside one of the machines it runs on."""

import traceback
from collections.abc import Iterable, Iterator
from typing import Any

from fedray.callbacks.dispatch import CallbackFailed
from fedray.executors import StepFailed, TrainReport, client_label
from fedray.network.ledger import Event
from fedray.runs.folder import RunFolder
from fedray.scenario import plugins
from fedray.steps import SERVER_NODE


class RunFailed(RuntimeError):
    """The run cannot go on. `facts` go into error.json; `advice` is what a person may try."""

    def __init__(self, message: str, advice: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.advice = advice
        self.facts = facts


def failure(e: Exception) -> RunFailed:
    """Whatever happened, with the round, client and stage where they are known, and what to try."""
    if isinstance(e, RunFailed):
        return e
    if isinstance(e, StepFailed | CallbackFailed):
        facts = e.facts
        message = str(e)
    else:
        facts = {"error": type(e).__name__, "traceback": traceback.format_exc()}
        message = f"{type(e).__name__}: {e}{plugins.at_users_line(e)}"
    if isinstance(e, OSError) and e.filename:
        message = f"{e.filename}: {e.strerror}"
        return RunFailed(
            message,
            "room, or the right to write, there; then the run goes on from its newest checkpoint",
            **facts,
        )
    if "OutOfMemory" in facts["error"] or "out of memory" in message:
        return RunFailed(
            message,
            "a smaller training.batch_size, training.gradient_checkpointing, fewer runtime.actors",
            **facts,
        )
    if facts["error"] in ("ActorDiedError", "ActorUnavailableError", "NodeDiedError"):
        return RunFailed(
            message,
            "the log of the process that died, in Ray's session folder (/tmp/ray/session_latest/logs)",
            **facts,
        )
    return RunFailed(message, "the traceback in error.json", **facts)


def failed_round(round_number: int, events: Iterable[Event]) -> Iterator[str]:
    """What a person should know of a round without a result: too few clients came through.

    Args:
        round_number: from 1.
        events: of the round, as the clock has them.
    """
    own = (e for e in events if e.event == "aggregate" and e.node == SERVER_NODE)
    if any(e.outcome == "failed" for e in own):  # and not a client's, which has dropped out
        yield (
            f"round {round_number}: fewer clients came through than secure_aggregation.threshold: nothing is"
            " unmasked, and the model stays as it was"
        )


def judge_failure(report: TrainReport, policy: str, failures: int, budget: int) -> None:
    """Whether a run goes on after a client's report.

    Args:
        report: of a client that may have failed.
        policy: `abort` or `drop`, of runtime.failures.data.
        failures: in this run so far, this one too.
        budget: how many may be.

    Raises:
        RunFailed: where it does not.
    """
    message = f"{client_label(report.client)} in round {report.round}, while {report.stage}: {report.failure}"
    if report.failure is not None and policy == "abort":
        advice = "mend its data or the training, or leave such clients out: runtime: {failures: {data: drop}}"
        raise RunFailed(message, advice, **_facts(report))
    if report.failure is not None and failures > budget:
        message += f" (failure {failures}, beyond runtime.failures.budget of {budget})"
        raise RunFailed(
            message,
            "mend what makes so many clients fail, or raise runtime.failures.budget",
            **_facts(report),
        )


def refuse_round_of_failures(reports: list[TrainReport]) -> None:
    """What fails everywhere is no client's fault."""
    if reports and all(r.failure for r in reports):
        first = reports[0]
        message = (
            f"no client of round {first.round} trained; the first: {client_label(first.client)}, while"
            f" {first.stage}: {first.failure}"
        )
        raise RunFailed(message, "mend the training (a smaller learning rate?) or the data", **_facts(first))


def _facts(report: TrainReport) -> dict[str, Any]:
    """What error.json says of a client's own failure."""
    return {
        "error": "DataFailure",
        "round": report.round,
        "client": report.client,
        "stage": report.stage,
        "traceback": None,
    }


def record(run: RunFolder, failed: RunFailed) -> RunFailed:
    """The failure with its facts in error.json; where that cannot be written, it says so."""
    try:
        run.write("error.json", {**failed.facts, "message": str(failed), "next": failed.advice})
    except OSError as e:
        return RunFailed(
            f"{failed} (error.json could not be written: {e.strerror or e})", failed.advice, **failed.facts
        )
    return failed
