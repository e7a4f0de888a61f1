"""A run: open it; each round schedule, clock, execute, record, checkpoint; write the result."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fedray.check import readable
from fedray.data.census import census
from fedray.executors import EvaluationHandle, Executor, Job, TrainReport, open_executor
from fedray.failures import RunFailed as RunFailed
from fedray.failures import failure, judge_failure, record, refuse_round_of_failures
from fedray.files import write_whole
from fedray.network.clock import time_round
from fedray.network.ledger import Event, Ledger
from fedray.network.radio import Radio
from fedray.planning.plan import feasible, foreseen, settled
from fedray.planning.round import Shared, schedule_round, shared
from fedray.planning.workload import Workload
from fedray.randomness import SERVER
from fedray.runs import fingerprint, reader
from fedray.runs.citations import bibtex
from fedray.runs.environment import command, environment
from fedray.runs.folder import RunFolder, State, unwritable
from fedray.runs.lock import locked
from fedray.runs.tensorboard import TensorBoard
from fedray.scenario import Loaded, Refused, Scenario, ScenarioError
from fedray.scenario.radio import RadioLink
from fedray.scenario.topology import Relay, Split

# rounds that may train behind an evaluation; they are recorded and checkpointed once it has ended
LOOK_AHEAD = 5


class Watcher:
    """Whoever shows a run's progress; this one looks on."""

    def started(self, where: str, rounds: int, done: int) -> None: ...

    def turn(self, report: TrainReport, turns: int) -> None: ...

    def round(self, metrics: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...


def run(loaded: Loaded, run: RunFolder, watcher: Watcher, resume: bool = False) -> dict[str, Any]:
    """Runs a scenario in its folder, or goes on from the newest whole checkpoint, and gives result.json's
    object.

    Raises:
        ScenarioError: for what only the data or the model show to be wrong, before anything trains; for a run
            that another process works on, or that is to go on with another scenario or other data.
        RunFailed: afterwards; error.json says how.
    """
    run = RunFolder(run.path.resolve())  # actors may have another working directory
    if resume:
        reader.refuse_written_links(run.path)
    with locked(run.path, watcher.note):
        try:
            return _run(loaded, run, watcher, resume)
        except Refused as e:
            raise loaded.error([e]) from None
        except ScenarioError:
            raise
        except Exception as e:
            if isinstance(e, OSError) and not run.training and str(e.filename).startswith(str(run.path)):
                raise unwritable(run.path, e) from None
            raise record(run, failure(e)) from e


def _run(loaded: Loaded, run: RunFolder, watcher: Watcher, resume: bool) -> dict[str, Any]:
    scenario, known = loaded.scenario, None
    run.belongs = fingerprint.of_scenario(scenario, loaded.folder)
    executor: Executor | None = None
    job = Job(scenario, loaded.folder.resolve(), run.path)
    try:
        if not scenario.sites:
            samples, held = readable(loaded, job.dataset)
            run.belongs["data"] = fingerprint.of_data(samples, held)
            known = shared(scenario, samples, held)
            if len(samples.label_names) > 1 and scenario.data.partition.kind != "folder":
                run.write("partition.json", asdict(census(samples, held)))
            loaded = replace(
                loaded, scenario=(scenario := settled(scenario, loaded.folder, known, job.dataset))
            )
        executor = open_executor(replace(job, scenario=scenario), watcher.note)
        if known is None:
            counts, run.belongs["data"] = executor.survey()
            known = Shared(counts)
        return _rounds(loaded, run, watcher, executor, known, resume)
    finally:
        if executor is not None:
            executor.close()


def _rounds(
    loaded: Loaded, run: RunFolder, watcher: Watcher, executor: Executor, known: Shared, resume: bool
) -> dict[str, Any]:
    scenario = loaded.scenario
    training, radio = (
        scenario.training,
        Radio(scenario.network, scenario.population.clients, scenario.seed, loaded.folder),
    )
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
    restored = _restore(loaded, run, watcher, executor) if resume else None
    if restored is not None:
        first, ledger, wall, failures = (
            restored.round + 1,
            restored.ledger,
            restored.wall_time_s,
            restored.failures,
        )
    else:
        _describe(scenario, run, workload)
    board = TensorBoard(run) if "tensorboard" in scenario.runtime.report_to else None
    clock = time.monotonic() - wall
    baseline: EvaluationHandle | None = None

    def look_at_base() -> EvaluationHandle | None:
        """Once, behind the first round: the evaluator's start shall not hold it up."""
        if baseline is not None or run.read("baseline.json") is not None:
            return baseline
        return executor.evaluate(run.path / "samples" / "round-0000.png", base=True)

    watcher.started(executor.describe(), training.rounds, first - 1)
    for note in workload.notes:
        watcher.note(note)
    sha256 = "" if restored else run.checkpoint(0, executor.checkpoint, ledger, wall, failures)
    run.training = True
    saved = first - 1  # the last checkpoint's round
    # rounds behind an evaluation that still goes on
    waiting: list[tuple[list[Event], dict[str, Any], EvaluationHandle | None]] = []
    for t in range(first, training.rounds + 1):
        asked = schedule_round(scenario, radio, t, known, work, ledger)
        events = time_round(asked, work, radio, ledger.sim_time_s)
        # nobody trains what would be late or lost
        schedule = asked.prune({event.id: event.outcome for event in events})
        if isinstance(scenario.topology, Split):
            # the server serves in the clock's order
            schedule = schedule.sorted({event.id: event.t0_s for event in events})
        arrived: dict[int, TrainReport] = {}
        for report in executor.run_round(schedule) if len(schedule.steps) > 1 else ():
            failures += report.failure is not None
            if report.client != SERVER:
                watcher.turn(report, len(schedule.clients))
            judge_failure(report, scenario.runtime.failures.data, failures, scenario.runtime.failures.budget)
            arrived[report.client] = report
        reports = [arrived[client] for client in schedule.clients]  # whoever was faster
        own = arrived.get(SERVER)
        refuse_round_of_failures(reports or ([own] if own else []))
        missed = len(asked.clients) + asked.unreached - len(schedule.clients)
        baseline = look_at_base()
        ledger = ledger.add(events)
        last = t == training.rounds
        due = last or (scenario.evaluation.every and t % scenario.evaluation.every == 0)
        look = executor.evaluate(run.path / "samples" / f"round-{t:04d}.png") if due else None
        weight = scenario.aggregation.weight
        waiting.append(
            (events, metrics_of(t, reports, ledger, time.monotonic() - clock, weight, own, missed), look)
        )
        if not last and len(waiting) < LOOK_AHEAD and any(look and not look.done() for *_, look in waiting):
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
            saved, sha256 = (
                t,
                run.checkpoint(t, executor.checkpoint, ledger, time.monotonic() - clock, failures),
            )
        if baseline and baseline.done():
            run.write("baseline.json", _found(baseline))
            baseline = None

    if baseline := look_at_base():
        run.write("baseline.json", _found(baseline))
    if scenario.companion is not None:
        run.write("augmentation.json", _companion(scenario, radio, run, executor, known))
    executor.export(run.path / "model")
    sha256 = sha256 or next(
        state.saved.weights_sha256 for _, state in run.states() if not isinstance(state, str)
    )
    result = {
        "status": "done",
        "rounds": training.rounds,
        "weights_sha256": sha256,
        "final": (run.rows() or [{}])[-1],
    }
    result |= {"baseline": run.read("baseline.json"), "artifacts": run.artifacts()}
    run.write_parquet()
    run.write("result.json", result)
    return result


def _found(look: EvaluationHandle) -> dict[str, float | None]:
    """What a look found; JSON has no name for what is not a number."""
    return {name: value if math.isfinite(value) else None for name, value in look.result().items()}


def _companion(
    scenario: Scenario, radio: Radio, run: RunFolder, executor: Executor, known: Shared
) -> dict[str, Any]:
    """How good the data of the last round's clients and of the companion are, and how far each client's mix
    of labels is from the population's."""
    planner, rounds = scenario.companion_planner(), scenario.training.rounds
    schedule = schedule_round(scenario, radio, rounds, known)
    here = planner.audited(schedule, known)
    # where none trained
    eligible = [int(c) for c in known.eligible(scenario)][: scenario.population.clients_per_round]
    found = executor.audit(schedule.clients or eligible, here, run.path / "samples" / "pictures.png")
    return {**found, **planner.distances(known, here, run.rows())}


def _describe(scenario: Scenario, run: RunFolder, workload: Workload) -> None:
    """What is known of a run before it trains: where it runs, what crosses a cut, what to cite."""
    run.write("env.json", environment() | command())
    if workload.cut is not None:
        batch = scenario.training.batch_size
        facts = asdict(workload.cut) | {
            "bytes": {c: sizes[batch] for c, sizes in workload.cut.bytes.items()},
            "batch": batch,
        }
        run.write("split.json", facts)
    write_whole(run.path / "CITATION.bib", bibtex(scenario))


def _restore(loaded: Loaded, run: RunFolder, watcher: Watcher, executor: Executor) -> State | None:
    """The newest whole checkpoint; damaged ones are named and passed over. None where the run has had none
    yet.

    Raises:
        ScenarioError: where all are damaged, or of another scenario or other data.
    """
    damaged = 0
    for folder, state in run.states():
        if isinstance(state, str):
            fault: str | None = state
        elif _other(run, state, watcher):
            damaged = 0
            break
        elif (fault := _fault(run, executor, folder, state)) is None:
            run.cut_back(state)
            run.keep_scenario(loaded)
            watcher.note(f"going on from {folder.name}")
            return state
        damaged += 1
        watcher.note(f"refused checkpoint {folder.name}, which is damaged: {fault}")
    if damaged:
        got = f"{damaged} damaged checkpoint{'s' * (damaged > 1)}"
        raise ScenarioError([f"--resume {run.path}: got {got}, expected a whole one in {run.checkpoints}"])
    run.cut_back(None)
    run.keep_scenario(loaded)
    watcher.note("nothing has been trained yet: the run begins with round 1")
    return None


def _fault(run: RunFolder, executor: Executor, folder: Path, state: State) -> str | None:
    """Restores a checkpoint, or says what is wrong with it."""
    if (lost := run.lost_lines(state)) is not None:
        return lost
    try:
        executor.restore(folder, state.saved)
    except ValueError as e:
        return str(e)
    return None


def _other(run: RunFolder, state: State, watcher: Watcher) -> bool:
    """Whether a checkpoint is of another scenario or other data, and nothing has been trained. Other code,
    with which bits may differ, is said.

    Raises:
        ScenarioError: where something has, naming what is other than it was.
    """
    if not state.belongs:
        watcher.note(
            "this checkpoint does not say what it belongs to: whether scenario and data are as before is not"
            " known"
        )
        return False
    others = [
        line
        for part in ("scenario", "data")
        for line in fingerprint.differences(state.belongs, run.belongs, part)
    ]
    if others and state.round:
        raise ScenarioError([f"--resume {run.path}: {line}" for line in others])
    for line in fingerprint.differences(state.belongs, run.belongs, "code"):
        watcher.note(f"other code than before, with which bits may differ: {line}")
    return bool(others)


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
        augmented = {
            "augmented_loss": None if own.failure else own.loss,
            "pictures": own.samples,
            "kappa_2": own.kappa_2,
        }
    trained = sum(r.trained for r in good)
    loss = (
        sum(weight(r.samples) * r.loss for r in good) / sum(weight(r.samples) for r in good)
        if good
        else math.nan
    )
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


def finished(run: RunFolder, rounds: int = 0) -> dict[str, Any] | None:
    """result.json of a run that is done, with so many rounds at least, and still has what it recorded of
    them."""
    try:
        result: dict[str, Any] | None = run.read("result.json")
        if result is None or result.get("status") != "done" or "variants" in result:
            return result if result is not None and result.get("status") == "done" else None
        recorded = [row["round"] for row in run.rows()]
    except ScenarioError:
        return None
    return result if recorded == list(range(1, result["rounds"] + 1)) and result["rounds"] >= rounds else None
