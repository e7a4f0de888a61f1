"""Who carries a schedule out: Ray actors, or this process."""

import math
import os
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from fedray.callbacks import Callback
from fedray.data import Dataset
from fedray.executors.companion import CompanionRound
from fedray.executors.reports import TrainReport as TrainReport
from fedray.executors.round_samples import UsedSamples
from fedray.planning.placement import ray_address
from fedray.planning.shared import Shared
from fedray.planning.workload import Workload
from fedray.randomness import SERVER
from fedray.runs.state import Saved
from fedray.scenario import Refused, plugins
from fedray.scenario.kinds import user_kinds
from fedray.scenario.modules import UserModule
from fedray.scenario.scenario import Scenario
from fedray.schedule import Schedule
from fedray.steps import Send, Train, Validate
from fedray.transport.buffer import Layout

# Before anybody imports Ray: its hook for `uv run` would build every worker an environment of its own; ours
# is already there.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@dataclass(frozen=True)
class Job:
    """What every worker must know."""

    scenario: Scenario
    folder: Path  # where relative paths start
    run: Path | None = None  # the run folder, on the driver's node; none: nothing is kept
    # the scenario's data, which each process opens once; none: not open yet
    dataset: Dataset = field(default=None, compare=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        own = Dataset.of(self.scenario, self.folder)
        if self.dataset is None or not self.dataset.is_of(own):
            object.__setattr__(self, "dataset", own)

    def __reduce__(self) -> tuple[Any, ...]:
        """With the source of a user's own kinds, which a worker on another node may not have."""
        contents = pickle.dumps((self.scenario, self.folder, self.run))
        return _unpickled_job, (plugins.modules_of(user_kinds(self.scenario)), contents)


def _unpickled_job(modules: list[UserModule], contents: bytes) -> Job:
    plugins.install(modules)
    return Job(*pickle.loads(contents))


def client_label(client: int | None) -> str:
    """A client for a person; the server trains, too, as a client of its own number."""
    return "the server" if client in (None, SERVER) else f"client {client}"


class StepFailed(RuntimeError):
    """A step that went wrong through no fault of its data: a message and, for error.json, facts. Both travel
    between processes, which the original exception may not."""

    def __init__(self, message: str, facts: dict[str, Any]) -> None:
        super().__init__(message, facts)
        self.facts = facts

    def __str__(self) -> str:
        return str(self.args[0])

    @classmethod
    def of(
        cls, error: BaseException, round_number: int | None, stage: str, client: int | None, traceback: str
    ) -> Self:
        """What, where, and the original exception, once, with the last line of a user's that it passed.

        Args:
            error: the original.
            round_number: from 1; None: before the first.
            stage: what was being done.
            client: whose; None: the server's.
            traceback: of the original, as text.
        """
        when = f" in round {round_number}" if round_number is not None else ""
        kind = type(error).__name__
        facts = {
            "error": kind,
            "round": round_number,
            "client": client,
            "stage": stage,
            "traceback": traceback,
        }
        message = f"{kind}: {str(error).strip() or 'no message'}{plugins.at_users_line(error)}"
        return cls(f"{client_label(client)}{when}, while {stage}: {message}", facts)


class DataFailure(Exception):
    """A client's own failure: its data or its loss, not the machine it runs on."""

    def __init__(self, stage: str, message: str, client: int | None = None) -> None:
        super().__init__(stage, message, client)
        self.stage = stage
        self.client = client

    def __str__(self) -> str:
        return str(self.args[1])


def refuse_infinite(loss: float, step: int, client: int) -> None:
    """Of a turn's step, counted from 0."""
    if not math.isfinite(loss):
        message = (
            f"the loss of step {step + 1} is {loss}, expected a finite number (a smaller learning rate?)"
        )
        raise DataFailure("training", message, client)


class ServerRestarted(RuntimeError):
    """The server, or a host that a round needs, was started anew or is gone: the round is repeated."""


@contextmanager
def attribute_error(
    round_number: int | None, stage: str, client: int | None, other_than: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Whatever goes wrong in here, but for data and what a scenario cannot have, ends the round, and says
    where it happened.

    Args:
        round_number: from 1; None: of no round.
        stage: what is done, after `while`.
        client: whose; None: the server's.
        other_than: what is said without that.
    """
    as_they_are: tuple[type[Exception], ...] = (StepFailed, DataFailure, ServerRestarted, Refused)
    as_they_are += other_than
    try:
        yield
    except as_they_are:
        raise
    except Exception as e:
        raise StepFailed.of(e, round_number, stage, client, traceback.format_exc()) from e


@dataclass(frozen=True)
class EvaluationHandle:
    """An evaluation that may still be running, while rounds are trained."""

    done: Callable[[], bool]
    result: Callable[[], dict[str, float]]  # the metrics; waits for them


@dataclass(frozen=True)
class ClientTestsHandle:
    """Tests on clients' own distributions that may still be running."""

    done: Callable[[], bool]
    result: Callable[[], list[dict[str, Any]]]  # a row a client, by their numbers; waits for them


class Executor(Protocol):
    """Holds the global buffer, and what the rounds do to it."""

    def describe(self) -> str: ...

    def workload(self) -> Workload: ...

    def survey(self) -> tuple[list[int], dict[str, Any]]:
        """How many samples each client holds, where `data.sites` lets only the sites' hosts look; and what
        each site's data are (see fedray.runs.fingerprint)."""

    def begin(self, shared: Shared) -> None:
        """The global buffer before the first round, where clients have told the server this."""

    def restore(self, folder: Path, saved: Saved) -> None:
        """What a checkpoint holds. Raises ValueError where a file is not what it was."""

    def run_round(self, schedule: Schedule) -> Iterator[TrainReport]:
        """One round; a report as each client ends its turn, and the server's where it trains itself. The
        global buffer is the new one once all are taken."""

    def evaluate(self, grid: Path, base: bool = False) -> EvaluationHandle:
        """Looks at the global buffer as it is now, or at the base model's."""

    def test_clients(self, round_number: int) -> ClientTestsHandle:
        """Tests clients' own models and the global one on clients' own distributions, as they are after a
        round; the base model for round 0."""

    def checkpoint(self, folder: Path, before: Path | None) -> Saved:
        """Writes the global buffer, the server's state and the clients' into a folder; what has not changed
        since the checkpoint `before` is linked."""

    def global_buffer(self) -> tuple[np.ndarray, Layout]:
        """The global buffer as it is now, only to be read, and its layout."""

    def export(self, folder: Path) -> None: ...

    def audit(self, clients: Sequence[int], labels: np.ndarray, grid: Path) -> dict[str, Any]:
        """How good these clients' data and the server's pictures of these labels are for the global model; a
        sheet of the pictures is written to `grid`."""

    def close(self) -> None: ...


def companion_round(schedule: Schedule, scenario: Scenario, shared: Shared) -> CompanionRound:
    """What the server does beside a round's clients."""
    if used := schedule.used:
        return CompanionRound(UsedSamples(used))
    planner = scenario.companion_planner()
    companion: CompanionRound = (
        CompanionRound() if planner is None else planner.companion_round(schedule, shared)
    )
    return companion


def client_weights(scenario: Scenario, schedule: Schedule, samples: Sequence[int]) -> dict[int, int]:
    """What each client of a round weighs, who holds so many samples."""
    if schedule.weights is not None:
        return {client: schedule.weights[client] for client in schedule.clients}
    return {client: scenario.weight(client, samples[client]) for client in schedule.clients}


def secure_for(scenario: Scenario, schedule: Schedule) -> Any:
    """The round's secure aggregation (a secure.round.SecureRound), by an optional library; None: without."""
    if scenario.secure_aggregation is None:
        return None
    from fedray.executors.secure import secure_round

    return secure_round(scenario, schedule)


def chains(schedule: Schedule) -> list[list[int]]:
    """The clients through whose hands each copy of the global buffer goes, from the server to where it is
    added up: one a chain in a parallel round, all in a row in a relay."""
    result: list[list[int]] = []
    clients = set(schedule.clients)
    chain_of: dict[str, list[int]] = {}  # by the id of the step that holds the buffer
    for step in schedule:
        if isinstance(step, Send):
            if step.after and step.after[0] in chain_of:
                chain_of[step.id] = chain_of[step.after[0]]
        elif isinstance(step, Validate):
            chain_of[step.id] = chain_of[step.after[0]]
        elif isinstance(step, Train) and step.client in clients:
            chain = chain_of.get(step.after[0]) if step.after else None
            if chain is None:
                result.append(chain := [])
            chain.append(step.client)
            chain_of[step.id] = chain
    return result


def last_validators(schedule: Schedule) -> dict[int, int]:
    """By the last client of a relay's chain, the one that validates what it made, where one does."""
    trained_on = {step.after[0] for step in schedule if isinstance(step, Train)}
    trains_last = {step.id: step.sender for step in schedule if isinstance(step, Send)}
    return {
        trains_last[step.after[0]]: step.client
        for step in schedule
        if isinstance(step, Validate) and step.id not in trained_on
    }


def refuse_silent_ray(scenario: Scenario) -> None:
    """That the Ray which the environment names answers, before anything else is done.

    Raises:
        ScenarioError: where nobody does within a time, or the address has another form.
    """
    if scenario.runtime.executor == "ray" and (address := ray_address()) != "local":
        from fedray.executors.ray.connection import refuse_silent

        refuse_silent(address)


def monitors(scenario: Scenario) -> list[Callback]:
    """What shows a run's metrics where its executor is monitored."""
    if scenario.runtime.executor == "ray":
        from fedray.executors.ray.gauges import Gauges

        return [Gauges()]
    return []


def open_executor(job: Job, note: Callable[[str], None] = print) -> Executor:
    """The executor that `runtime.executor` names; `note` shows a person what it does about lost actors and
    nodes."""
    if job.scenario.runtime.executor == "ray":
        from fedray.executors.ray.executor import RayExecutor

        return RayExecutor(job, note)
    from fedray.executors.serial import SerialExecutor

    return SerialExecutor(job)
