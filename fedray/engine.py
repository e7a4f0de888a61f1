"""A run: open it; each round schedule, clock, execute, record, checkpoint; write the result."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from fedray.augmentation.audit import audited
from fedray.callbacks import Callback, ClientReport, EvaluationReport, RoundReport, RunEnd, RunStart
from fedray.callbacks.dispatch import CallbackList
from fedray.callbacks.reporting import reporters
from fedray.checks import readable
from fedray.data.census import MOST_CLIENTS, census
from fedray.executors import (
    EvaluationHandle,
    Executor,
    Job,
    TrainReport,
    attribute_error,
    monitors,
    open_executor,
)
from fedray.failures import RunFailed as RunFailed
from fedray.failures import failed_round, failure, judge_failure, record, refuse_round_of_failures
from fedray.network.radio import Radio
from fedray.pending import PendingRound, evaluate_base
from fedray.planning.contributions import paid_by_contributions
from fedray.planning.data_quality import errors_of_rounds
from fedray.planning.feasible import feasible
from fedray.planning.plan import refuse_out_of_reach, settle
from fedray.planning.rounds import rounds_of
from fedray.planning.shared import Shared, shared
from fedray.privacy.accounting import epsilon, facts, refuse_other_noise, with_noise
from fedray.randomness import SERVER
from fedray.resume import restore
from fedray.runs import fingerprint, reader
from fedray.runs.folder import RunFolder, unwritable
from fedray.runs.lock import locked
from fedray.runs.recorder import Recorder, client_rows, finite, losses_of, rejections, round_metrics
from fedray.scenario import Loaded, Refused, ScenarioError
from fedray.schedule import Schedule
from fedray.signed_rounds import SignedRounds
from fedray.stopping import Watch

# rounds that may train behind an evaluation; they are recorded and checkpointed once it has ended
LOOK_AHEAD = 5


def run(
    loaded: Loaded, folder: RunFolder, callbacks: Sequence[Callback] = (), resume: bool = False
) -> dict[str, Any]:
    """Runs a scenario in its folder, or goes on from the newest whole checkpoint, and gives result.json's
    object.

    Args:
        loaded: the scenario.
        folder: the run folder; it exists already.
        callbacks: called as the run goes on, beside those that `runtime.report_to` names.
        resume: go on with the run that the folder holds.

    Raises:
        ScenarioError: for what only the data or the model show to be wrong, before anything trains; for a run
            that another process works on, or that is to go on with another scenario or other data.
        RunFailed: afterwards; error.json says how.
    """
    folder = RunFolder(folder.path.resolve())  # actors may have another working directory
    if resume:
        reader.refuse_written_links(folder.path)
    try:
        reporting = reporters(loaded)
    except Refused as e:
        raise loaded.error([e]) from None
    listeners = CallbackList([*callbacks, *reporting, *monitors(loaded.scenario)], printing=callbacks)
    with locked(folder.path, listeners.on_note):
        try:
            result = Run(loaded, folder, listeners, resume).execute()
            listeners.on_end(RunEnd(folder.path, "done", result))
            return result
        except Refused as e:
            listeners.on_broken_end(RunEnd(folder.path, "failed", error=str(e)))
            raise loaded.error([e]) from None
        except ScenarioError as e:
            listeners.on_broken_end(RunEnd(folder.path, "failed", error=str(e)))
            raise
        except Exception as e:
            if (
                isinstance(e, OSError)
                and not folder.training
                and str(e.filename).startswith(str(folder.path))
            ):
                raise unwritable(folder.path, e) from None
            failed = record(folder, failure(e))
            listeners.on_broken_end(RunEnd(folder.path, "failed", error=str(failed)))
            raise failed from e
        except KeyboardInterrupt:
            listeners.on_broken_end(RunEnd(folder.path, "interrupted"))
            raise


class Run:
    """One run of a scenario: open, restore, train each round, flush what was evaluated, finish."""

    executor: Executor
    known: Shared
    radio: Radio
    signed: SignedRounds

    def __init__(self, loaded: Loaded, folder: RunFolder, listeners: CallbackList, resume: bool) -> None:
        self.loaded = loaded
        self.scenario = loaded.scenario
        self.folder = folder
        self.recorder = Recorder(folder)
        self.listeners = listeners
        self.resume = resume
        self.opened: Executor | None = None  # to be closed
        self.restored = False
        self.first_round = 1
        self.ledger = self.recorder.earlier_costs()
        self.failures = 0
        self.wall_time_s = 0.0  # of this run before this process began
        self.saved_round = 0  # the last checkpoint's
        self.weights_sha256 = ""  # the last checkpoint's; empty: none was written by this process
        self.pending: list[PendingRound] = []
        self.baseline: EvaluationHandle | None = None  # of the base model, until it is written
        self.watch = Watch(self.scenario.evaluation, folder)

    def execute(self) -> dict[str, Any]:
        """Gives result.json's object."""
        try:
            self.open()
            self.restore()
            self.start()
            for round_number in range(self.first_round, self.scenario.training.rounds + 1):
                if self.watch.stop is not None:
                    break
                self.train_round(round_number)
                self.flush(round_number)
            return self.finish()
        finally:
            if self.opened is not None:
                self.opened.close()

    def open(self) -> None:
        """Looks at the data, starts the executor, and refuses what cannot be done."""
        loaded = self.loaded
        scenario = self.scenario
        self.folder.belongs = fingerprint.of_scenario(scenario, loaded.folder)
        known: Shared | None = None
        job = Job(scenario, loaded.folder.resolve(), self.folder.path)
        if not scenario.sites:
            samples, held = readable(loaded, job.dataset)
            self.folder.belongs["data"] = fingerprint.of_data(samples, held)
            known = shared(scenario, samples, held)
            few = scenario.population.clients <= MOST_CLIENTS
            if few and len(samples.label_names) > 1 and not scenario.data.partition.by_folder:
                self.folder.write("partition.json", asdict(census(samples, held)))
            scenario, known = settle(scenario, loaded.folder, known, job.dataset)
        self.scenario = scenario = with_noise(scenario, [] if known is None else known.samples)
        self.loaded = loaded = replace(loaded, scenario=scenario)
        job = replace(job, scenario=scenario)
        self.executor = self.opened = open_executor(job, self.listeners.on_note)
        if known is None:
            counts, self.folder.belongs["data"] = self.executor.survey()
            known = Shared(counts)
        self.known = known
        self.radio = Radio(scenario.network, scenario.population.clients, scenario.seed, loaded.folder)
        self.workload = self.executor.workload()
        self.work = self.workload.of(scenario, known.samples)
        feasible(scenario, self.radio, self.workload, known)
        refuse_out_of_reach(scenario, self.radio, self.work, known)
        self.rounds = rounds_of(scenario, self.radio, self.work, known, self.recorder.earlier_costs())

    def restore(self) -> None:
        """Goes on from the newest whole checkpoint, or describes a new run."""
        self.executor.begin(self.known)
        self.watch.open()
        state = None
        if self.resume:
            state = restore(self.loaded, self.folder, self.executor, self.listeners.on_note)
        if state is None:
            self.recorder.circumstances(self.scenario, self.loaded.folder, self.workload.cut)
            if self.scenario.privacy is not None:
                self.folder.write("privacy.json", facts(self.scenario, self.known.samples))
            return
        refuse_other_noise(self.scenario, self.folder.read("privacy.json"))
        self.restored = True
        self.watch.resume(state.round)
        self.first_round = state.round + 1
        self.ledger = state.ledger
        self.known.errors.update(errors_of_rounds(self.folder.client_rows()))
        self.failures = state.failures
        self.wall_time_s = state.wall_time_s

    def start(self) -> None:
        """Tells that it starts, and writes a new run's first checkpoint."""
        self.began = time.monotonic() - self.wall_time_s
        self.saved_round = self.first_round - 1
        rounds = self.scenario.training.rounds
        where = self.executor.describe()
        begun = RunStart(self.folder.path, self.scenario, where, rounds, self.saved_round, self.folder.rows())
        self.listeners.on_start(begun)
        for note in self.workload.notes:
            self.listeners.on_note(note)
        can_train = len(self.known.eligible(self.scenario))
        self.signed = SignedRounds(self.loaded, self.folder.path, self.executor, can_train)
        if self.restored:
            self.signed.resume(self.saved_round)
        else:
            self.signed.begin()
            self.checkpoint(0)
        if self.watch.waits:  # what is not measured at all is said before anything trains
            self.start_baseline()
            self.flush_baseline()
        self.folder.training = True

    def train_round(self, round_number: int) -> None:
        """One round: its schedule, what that costs, who trains, and the evaluation of what came of it."""
        scenario = self.scenario
        with attribute_error(round_number, "writing its schedule", None):
            selected = self.rounds.schedule(round_number, self.ledger)
        with attribute_error(round_number, "simulating it", None):
            events = self.rounds.events(selected, self.ledger)
        for note in failed_round(round_number, events):
            self.listeners.on_note(note)
        # nobody trains what would be late or lost
        schedule = selected.prune({event.id: event.outcome for event in events})
        if scenario.topology.serves_in_clock_order:
            schedule = schedule.sorted({event.id: event.t0_s for event in events})
        reports, server = self.train_clients(schedule)
        self.start_baseline()
        selected = paid_by_contributions(scenario, selected, server.contributions if server else None)
        self.ledger = self.ledger.add(events, selected)
        clients = [*selected.clients, *selected.unreached]
        in_order = [reports[client] for client in schedule.clients]  # whichever was faster
        self.known.add_losses(losses_of(in_order))
        metrics = round_metrics(
            round_number,
            in_order,
            self.ledger,
            self.elapsed_s(),
            scenario.aggregation.weight,
            missed=len(clients) - len(schedule.clients),
            staleness=[schedule.staleness[client] for client in schedule.clients if schedule.staleness],
            receive_snr=schedule.receive_snr,
        )
        metrics |= {} if server is None else server.metrics
        metrics |= scenario.training.scheduled(round_number)
        if scenario.privacy is not None:
            metrics["epsilon"] = epsilon(scenario, self.known.samples, round_number)
        if scenario.topology.relay_defence is not None:
            metrics |= rejections(in_order, scenario.attackers_in(round_number))
        due = scenario.is_evaluated(round_number)
        evaluation = self.executor.evaluate(self.recorder.grid(round_number)) if due else None
        tests = self.executor.test_clients(round_number) if due and scenario.tested_clients else None
        ages = selected.staleness
        rows = client_rows(round_number, clients, reports, events, selected.payments, ages)
        self.pending.append(PendingRound(round_number, events, metrics, rows, evaluation, tests))

    def train_clients(self, schedule: Schedule) -> tuple[dict[int, ClientReport], TrainReport | None]:
        """What each client of a round reports, and the server, where it trains an augmented model.

        Raises:
            RunFailed: for more failures than the scenario allows, or where nobody trained.
        """
        failing = self.scenario.runtime.failures
        arrived: dict[int, TrainReport] = {}
        reports: dict[int, ClientReport] = {}
        steps = len(schedule.steps) > 1 or self.scenario.steps_without_updates or schedule.versions_in_use
        for report in self.executor.run_round(schedule) if steps else ():
            self.failures += report.failure is not None
            arrived[report.client] = report
            if report.client != SERVER:
                reports[report.client] = report.public(len(schedule.clients))
                self.listeners.on_client(reports[report.client])
            judge_failure(report, failing.data, self.failures, failing.budget)
        own = arrived.get(SERVER)
        in_order = [arrived[client] for client in schedule.clients]
        refuse_round_of_failures(in_order or ([own] if own else []))
        self.signed.add_round(schedule.round, in_order)
        return reports, own

    def start_baseline(self) -> None:
        """Evaluates the base model, once, behind the first round: the evaluator's start shall not hold it
        up."""
        if self.baseline is None and not self.recorder.has_baseline:
            self.baseline = evaluate_base(self.executor, self.scenario, self.recorder.grid(0))

    def flush(self, round_number: int) -> None:
        """Records the rounds whose evaluations have ended, and writes a checkpoint where one is due."""
        last = round_number == self.scenario.training.rounds
        running = any(pending.is_running for pending in self.pending)
        if running and not last and not self.watch.waits and len(self.pending) < LOOK_AHEAD:
            return
        for pending in self.pending:
            self.record(pending)
        self.pending.clear()
        due = round_number - self.saved_round >= self.scenario.runtime.checkpoint_every
        if self.watch.decides(round_number) or last or due:
            self.checkpoint(round_number)
            self.watch.keep(round_number)
        if self.baseline is not None and self.baseline.done():
            self.flush_baseline()

    def record(self, pending: PendingRound) -> None:
        """Writes a round down, and tells the callbacks."""
        number = pending.round_number
        metrics = pending.metrics
        evaluated, tested = pending.evaluated()
        metrics |= evaluated or {}
        self.recorder.round(pending.events, metrics, pending.clients, tested)
        if evaluated is not None:
            self.listeners.on_evaluation(EvaluationReport(number, evaluated, self.recorder.made(number)))
        self.listeners.on_round(RoundReport(number, self.scenario.training.rounds, metrics))

    def flush_baseline(self) -> None:
        """Records the base model's evaluation, once it has ended."""
        if self.baseline is None:
            return
        metrics = finite(self.baseline.result())
        self.watch.refuse_unmeasured(metrics)
        self.recorder.baseline(metrics)
        self.listeners.on_evaluation(EvaluationReport(0, metrics, self.recorder.made(0)))
        self.baseline = None

    def checkpoint(self, round_number: int) -> None:
        self.weights_sha256 = self.folder.checkpoint(
            round_number, self.executor.checkpoint, self.ledger, self.elapsed_s(), self.failures,
            self.signed.seal,
        )  # fmt: skip
        self.saved_round = round_number

    def finish(self) -> dict[str, Any]:
        """Exports the model, and writes the result."""
        self.start_baseline()
        self.flush_baseline()
        if self.scenario.companion is not None:
            judged = audited(self.scenario, self.radio, self.known, self.executor, self.folder, self.ledger)
            self.folder.write("augmentation.json", judged)
        last = self.recorder.last_round
        sha256 = self.weights_sha256 or self.folder.newest_sha256()
        decided = self.watch.decided(self.executor, self.listeners.on_note)
        self.executor.export(self.folder.path / "model")
        if self.scenario.privacy is not None:
            self.folder.write("privacy.json", facts(self.scenario, self.known.samples, pld=True))
        return self.recorder.result(last, sha256, decided)

    def elapsed_s(self) -> float:
        """Wall-clock seconds of this run, also of the processes that it ran in before."""
        return time.monotonic() - self.began
