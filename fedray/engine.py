"""A run: open it; each round schedule, clock, execute, record, checkpoint; write the result."""

import math
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from fedray.augmentation import labels
from fedray.check import readable
from fedray.data import form
from fedray.data.partition import census
from fedray.executors import Executor, Job, Look, StepFailed, TrainReport, open_executor, to_paint, who
from fedray.network.clock import Event, Ledger, time_round
from fedray.network.radio import Radio
from fedray.plan import feasible, foreseen, settled
from fedray.randomness import SERVER
from fedray.rounds import Shared, schedule_round, shared
from fedray.runs.citations import bibtex
from fedray.runs.environment import command, environment
from fedray.runs.folder import RunFolder
from fedray.runs.tensorboard import TensorBoard
from fedray.scenario import Loaded, Refused, Scenario, ScenarioError
from fedray.scenario.network import RadioLink
from fedray.scenario.topology import Relay, Split

LOOK_AHEAD = 5  # rounds that may train behind an evaluation; they are recorded and checkpointed once it has ended


class RunFailed(RuntimeError):
    """The run cannot go on. `facts` go into error.json; `advice` is what a person may try."""

    def __init__(self, message: str, advice: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.advice, self.facts = advice, facts


class Watcher:
    """Whoever shows a run's progress; this one looks on."""

    def started(self, where: str, rounds: int, done: int) -> None: ...

    def turn(self, report: TrainReport, turns: int) -> None: ...

    def round(self, metrics: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...


def run(loaded: Loaded, run: RunFolder, watcher: Watcher, resume: bool = False) -> dict[str, Any]:
    """Runs a scenario in its folder, or goes on from the newest whole checkpoint, and gives result.json's object.

    Raises:
        ScenarioError: for what only the data or the model show to be wrong, before anything trains.
        RunFailed: afterwards; error.json says how.
    """
    scenario = loaded.scenario
    run = RunFolder(run.path.resolve())  # actors may have another working directory
    executor: Executor | None = None
    try:
        known: Shared | None = None
        if not scenario.sites:
            samples, held = readable(loaded)
            known = shared(scenario, samples, held)
            if len(samples.label_names) > 1 and scenario.data.partition.kind != "folder":
                run.write("partition.json", asdict(census(samples, held)))
            loaded = replace(loaded, scenario=(scenario := settled(scenario, loaded.folder, known)))
        executor = open_executor(Job(scenario, loaded.folder.resolve(), run.path), watcher.note)
        return _rounds(loaded, run, watcher, executor, known or Shared(executor.survey()), resume)
    except Refused as e:
        raise loaded.error([e]) from None
    except ScenarioError:
        raise
    except Exception as e:
        failed = _failure(e)
        run.write("error.json", {**failed.facts, "message": str(failed), "next": failed.advice})
        raise failed from e
    finally:
        if executor is not None:
            executor.close()


def _rounds(loaded: Loaded, run: RunFolder, watcher: Watcher, executor: Executor, known: Shared, resume: bool) -> dict[str, Any]:
    scenario = loaded.scenario
    training, radio = scenario.training, Radio(scenario.network, scenario.population.clients, scenario.seed, loaded.folder)
    workload = executor.workload()
    work = workload.of(scenario, known.samples)
    feasible(scenario, radio, workload, known)
    if isinstance(scenario.topology, Relay) and isinstance(
        scenario.network.sidelink, RadioLink
    ):  # who would be out of reach in a later round
        for _ in foreseen(scenario, radio, work, known):
            pass
    first, ledger, wall, failures = 1, Ledger(), 0.0, 0
    executor.begin(known)
    if resume:
        first, ledger, wall, failures = _restore(run, watcher, executor)
    else:
        run.write("env.json", environment() | command())
        if workload.cut is not None:
            batch = training.batch_size
            facts = asdict(workload.cut) | {"bytes": {c: sizes[batch] for c, sizes in workload.cut.bytes.items()}, "batch": batch}
            run.write("split.json", facts)
        (run.path / "CITATION.bib").write_text(bibtex(scenario))
    board = TensorBoard(run) if "tensorboard" in scenario.runtime.report_to else None
    clock = time.monotonic() - wall
    baseline: Look | None = None

    def look_at_base() -> Look | None:
        """Once, behind the first round: the evaluator's start shall not hold it up."""
        if baseline is not None or run.read("baseline.json") is not None:
            return baseline
        return executor.evaluate(run.path / "samples" / "round-0000.png", base=True)

    watcher.started(executor.describe(), training.rounds, first - 1)
    if workload.picture_size and (size := scenario.model.resolution or form(scenario.data, loaded.folder).size) != workload.picture_size:
        watcher.note(f"generated pictures of {workload.picture_size} pixels a side are resized to the classifier's {size}")
    sha256 = "" if resume else run.checkpoint(0, executor.checkpoint, ledger, wall, failures)
    saved = first - 1  # the last checkpoint's round
    waiting: list[tuple[list[Event], dict[str, Any], Look | None]] = []  # rounds behind an evaluation that still goes on
    for t in range(first, training.rounds + 1):
        asked = schedule_round(scenario, radio, t, known, work, ledger)
        events = time_round(asked, work, radio, ledger.sim_time_s)
        schedule = asked.carried({event.id: event.outcome for event in events})  # nobody trains what would be late or lost
        if isinstance(scenario.topology, Split):
            schedule = schedule.sorted({event.id: event.t0_s for event in events})  # the server serves in the clock's order
        arrived: dict[int, TrainReport] = {}
        for report in executor.carry_out(schedule) if len(schedule.steps) > 1 else ():
            failures += report.failure is not None
            if report.client != SERVER:
                watcher.turn(report, len(schedule.clients))
            _judge_failure(report, scenario.runtime.failures.data, failures, scenario.runtime.failures.budget)
            arrived[report.client] = report
        reports = [arrived[client] for client in schedule.clients]  # whoever was faster
        own = arrived.get(SERVER)
        _refuse_round_of_failures(reports or ([own] if own else []))
        missed = len(asked.clients) + asked.unreached - len(schedule.clients)
        baseline = look_at_base()
        ledger = ledger.add(events)
        last = t == training.rounds
        due = last or (scenario.evaluation.every and t % scenario.evaluation.every == 0)
        look = executor.evaluate(run.path / "samples" / f"round-{t:04d}.png") if due else None
        weight = scenario.aggregation.weight
        waiting.append((events, metrics_of(t, reports, ledger, time.monotonic() - clock, weight, own, missed), look))
        if not last and len(waiting) < LOOK_AHEAD and any(look and not look.ready() for *_, look in waiting):
            continue
        for events, metrics, look in waiting:
            metrics |= _found(look) if look else {}
            run.append(events, metrics)
            watcher.round(metrics)
            executor.publish(run.path.name, metrics)
            if board:
                board.round(metrics)
        waiting.clear()
        if last or t - saved >= scenario.runtime.checkpoint_every:
            saved, sha256 = t, run.checkpoint(t, executor.checkpoint, ledger, time.monotonic() - clock, failures)
        if baseline and baseline.ready():
            run.write("baseline.json", _found(baseline))
            baseline = None

    if baseline := look_at_base():
        run.write("baseline.json", _found(baseline))
    if scenario.augmentation is not None:
        run.write("augmentation.json", _augmentation(scenario, radio, run, executor, known))
    executor.export(run.path / "model")
    sha256 = sha256 or next(state.saved.weights_sha256 for _, state in run.states() if not isinstance(state, str))
    result = {"status": "done", "rounds": training.rounds, "weights_sha256": sha256, "final": (run.rows() or [{}])[-1]}
    result |= {"baseline": run.read("baseline.json"), "artifacts": run.artifacts()}
    run.write_parquet()
    run.write("result.json", result)
    return result


def _found(look: Look) -> dict[str, float | None]:
    """What a look found; JSON has no name for what is not a number."""
    return {name: value if math.isfinite(value) else None for name, value in look.metrics().items()}


def _augmentation(scenario: Scenario, radio: Radio, run: RunFolder, executor: Executor, known: Shared) -> dict[str, Any]:
    """How good the data of the last round's clients and the pictures are, and how far each client's mix of labels is from
    the population's, alone and with the pictures it is weighed or trained beside."""
    section, rounds, counts = scenario.augmentation, scenario.training.rounds, known.counts
    assert section is not None
    assert counts is not None
    schedule = schedule_round(scenario, radio, rounds, known)
    here = to_paint(schedule, scenario, known).get(SERVER, np.zeros(0, int))
    eligible = [int(c) for c in known.eligible(scenario)][: scenario.population.a_round]  # where none trained
    found = executor.audit(schedule.clients or eligible, here, run.path / "samples" / "pictures.png")
    kappa_2 = next((row["kappa_2"] for row in reversed(run.rows()) if row.get("kappa_2") is not None), 0.0)
    distances = labels.distances(section, counts, here, kappa_2)
    return {**found, **distances}


def _failure(e: Exception) -> RunFailed:
    """Whatever happened, with the round, client and stage where they are known, and what to try."""
    if isinstance(e, RunFailed):
        return e
    facts: dict[str, Any] = e.facts if isinstance(e, StepFailed) else {"error": type(e).__name__, "traceback": traceback.format_exc()}
    message = str(e) if isinstance(e, StepFailed) else f"{type(e).__name__}: {e}"
    if "OutOfMemory" in facts["error"] or "out of memory" in message:
        return RunFailed(message, "a smaller training.batch_size, training.gradient_checkpointing, fewer runtime.actors", **facts)
    if facts["error"] in ("ActorDiedError", "ActorUnavailableError", "NodeDiedError"):
        return RunFailed(message, "the log of the process that died, in Ray's session folder (/tmp/ray/session_latest/logs)", **facts)
    return RunFailed(message, "the traceback in error.json", **facts)


def _restore(run: RunFolder, watcher: Watcher, executor: Executor) -> tuple[int, Ledger, float, int]:
    """The newest whole checkpoint; damaged ones are named and passed over."""
    found = 0
    for folder, state in run.states():
        found += 1
        if not isinstance(state, str):
            try:
                executor.restore(folder, state.saved)
                run.cut_back(state)
                watcher.note(f"going on from {folder.name}")
                return state.round + 1, state.ledger, state.wall_time_s, state.failures
            except ValueError as e:
                state = str(e)
        watcher.note(f"refused checkpoint {folder.name}, which is damaged: {state}")
    got = f"{found} damaged checkpoint{'s' * (found > 1)}" if found else "no checkpoint"
    raise ScenarioError([f"--resume {run.path}: got {got}, expected a whole one in {run.checkpoints}"])


def _judge_failure(report: TrainReport, policy: str, failures: int, budget: int) -> None:
    message = f"{who(report.client)} in round {report.round}, while {report.stage}: {report.failure}"
    if report.failure is not None and policy == "abort":
        advice = "mend its data or the training, or leave such clients out: runtime: {failures: {data: drop}}"
        raise RunFailed(message, advice, **_facts(report))
    if report.failure is not None and failures > budget:
        message += f" (failure {failures}, beyond runtime.failures.budget of {budget})"
        raise RunFailed(message, "mend what makes so many clients fail, or raise runtime.failures.budget", **_facts(report))


def _refuse_round_of_failures(reports: list[TrainReport]) -> None:
    """What fails everywhere is no client's fault."""
    if reports and all(r.failure for r in reports):
        first = reports[0]
        message = f"no client of round {first.round} trained; the first: {who(first.client)}, while {first.stage}: {first.failure}"
        raise RunFailed(message, "mend the training (a smaller learning rate?) or the data", **_facts(first))


def _facts(report: TrainReport) -> dict[str, Any]:
    """What error.json says of a client's own failure."""
    return {"error": "DataFailure", "round": report.round, "client": report.client, "stage": report.stage, "traceback": None}


def metrics_of(
    round_: int, reports: list[TrainReport], ledger: Ledger, wall_time_s: float, weight: Callable[[int], int],
    own: TrainReport | None = None, missed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """A line of metrics.jsonl. Bytes, simulated time and energy are cumulative.

    Args:
        weight: what a client of so many samples weighs in the objective, and so in the round's loss.
        own: the server's report, where it trained an augmented model.
        missed: clients that were asked, and whose network kept them out.
    """
    good = [r for r in reports if r.failure is None]
    augmented: dict[str, Any] = {}
    if own is not None:
        augmented = {"augmented_loss": None if own.failure else own.loss, "pictures": own.samples, "kappa_2": own.kappa_2}
    trained = sum(r.trained for r in good)
    loss = sum(weight(r.samples) * r.loss for r in good) / sum(weight(r.samples) for r in good) if good else math.nan
    return {
        "round": round_,
        "loss": None if math.isnan(loss) else loss,
        "clients": len(good),
        "failed": len(reports) - len(good),
        "missed": missed,
        "samples": trained,
        "bytes_uplink": ledger.bytes_uplink,
        "bytes_downlink": ledger.bytes_downlink,
        "bytes_sidelink": ledger.bytes_sidelink,
        "sim_time_s": ledger.sim_time_s,
        "energy_j": ledger.energy_j,
        "wall_time_s": round(wall_time_s, 3),
        **augmented,
    }


def finished(run: RunFolder) -> dict[str, Any] | None:
    """result.json of a run that is done."""
    try:
        result: dict[str, Any] | None = run.read("result.json")
    except ScenarioError:
        return None
    return result if isinstance(result, dict) and result.get("status") == "done" else None
