"""Writes down what a run did: its circumstances, each round, its evaluations and its result."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from fedray.callbacks import ClientReport
from fedray.files import write_whole
from fedray.network.ledger import Event, Ledger
from fedray.runs.citations import bibtex
from fedray.runs.environment import command, environment, feature_networks, users_code
from fedray.runs.folder import COLLECTION, RunFolder
from fedray.scenario.scenario import Scenario
from fedray.scenario.tune_first import GENERATOR
from fedray.schedule import Payments
from fedray.steps import node_client

NOBODY: Mapping[int, int] = {}
# What became of a client that did not train: the first of these that happened to one of its steps.
NOT_TRAINED = ("dropped", "lost", "late", "stale")


class Recorder:
    """What is written into a run folder beside its checkpoints."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def circumstances(self, scenario: Scenario, folder: Path, cut: Any | None) -> None:
        """Writes where it runs, what to cite, and what crosses a split model's cut.

        Args:
            scenario: the run's.
            folder: where its relative paths start.
            cut: see planning.workload; None: there is none.
        """
        facts = environment() | command() | users_code(scenario) | feature_networks(scenario, folder)
        self.run.write("env.json", facts)
        if cut is not None:
            batch = scenario.training.batch_size
            nbytes = {crossing: sizes[batch] for crossing, sizes in cut.bytes.items()}
            self.run.write("split.json", asdict(cut) | {"bytes": nbytes, "batch": batch})
        write_whole(self.run.path / "CITATION.bib", bibtex(scenario))

    def earlier_costs(self) -> Ledger:
        """What was spent before the first round: on a generator that was tuned first, or on samples that were
        collected."""
        if (collected := self.run.read(COLLECTION)) is not None:
            return Ledger(**collected["total"])
        own = RunFolder(self.run.path / GENERATOR)
        states = own.states() if own.checkpoints.exists() else iter(())
        state = next((state for _, state in states if not isinstance(state, str)), None)
        return Ledger() if state is None else Ledger(**state.ledger.totals())

    def round(
        self,
        events: list[Event],
        metrics: dict[str, Any],
        clients: Sequence[dict[str, Any]],
        tests: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Writes a round's lines.

        Args:
            events: of its schedule.
            metrics: its own.
            clients: a row a client.
            tests: a row a client whose own model was tested.
        """
        self.run.append(events, metrics, clients, tests)

    def baseline(self, metrics: Mapping[str, float | None]) -> None:
        """The base model's evaluation."""
        self.run.write("baseline.json", metrics)

    @property
    def has_baseline(self) -> bool:
        return self.run.read("baseline.json") is not None

    def grid(self, round_number: int) -> Path:
        """Where an evaluation writes what the model makes."""
        return self.run.path / "samples" / f"round-{round_number:04d}.png"

    def made(self, round_number: int) -> Path | None:
        grid = self.grid(round_number)
        return grid if grid.is_file() else None

    @property
    def last_round(self) -> int:
        """That has been recorded."""
        return max((row["round"] for row in self.run.rows()), default=0)

    def result(self, rounds: int, weights_sha256: str, decided: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the tables and result.json, and gives its object.

        Args:
            rounds: that were done.
            weights_sha256: of the weights after the last one.
            decided: what its evaluations have decided: why it ended early, which round was the best.
        """
        result = {
            "status": "done",
            "rounds": rounds,
            "weights_sha256": weights_sha256,
            **decided,
            "final": (self.run.rows() or [{}])[-1],
            "baseline": self.run.read("baseline.json"),
            "artifacts": self.run.artifacts(),
        }
        self.run.write_parquet()
        self.run.write("result.json", result)
        return result


def round_metrics(
    round_number: int,
    reports: Sequence[ClientReport],
    ledger: Ledger,
    wall_time_s: float,
    weight: Callable[[int], int],
    missed: int = 0,
    staleness: Sequence[int] = (),
    receive_snr: float | None = None,
) -> dict[str, Any]:
    """A line of metrics.jsonl. Bytes, simulated time, energy and money are cumulative.

    Args:
        round_number: from 1.
        reports: of the clients that trained in it.
        ledger: the run's totals at the round's end.
        wall_time_s: since the run's start, while it was not interrupted.
        weight: what a client of so many samples weighs in the objective, and so in the round's loss.
        missed: clients that were selected, and whose network or device kept them out.
        staleness: of each report, where clients do not begin together.
        receive_snr: of the updates that added up on the air, linear; None: none did.
    """
    good = [report for report in reports if report.failure is None]
    loss = math.nan
    if good:
        total = sum(weight(report.samples_held) * report.loss for report in good)
        loss = total / sum(weight(report.samples_held) for report in good)
    return {
        "round": round_number,
        "loss": None if math.isnan(loss) else loss,
        "clients": len(good),
        "failed": len(reports) - len(good),
        "missed": missed,
        "samples": sum(report.samples for report in good),
        "bytes_uplink": ledger.bytes_uplink,
        "bytes_downlink": ledger.bytes_downlink,
        "bytes_sidelink": ledger.bytes_sidelink,
        "sim_time_s": ledger.sim_time_s,
        "energy_j": ledger.energy_j,
        **({"symbols": ledger.symbols} if ledger.symbols else {}),
        **({} if receive_snr is None else {"receive_snr_db": 10 * math.log10(receive_snr)}),
        **({"bytes_backhaul": ledger.bytes_backhaul} if ledger.bytes_backhaul else {}),
        **ledger.money,
        **({"staleness": fmean(staleness), "staleness_max": max(staleness)} if staleness else {}),
        "wall_time_s": round(wall_time_s, 3),
    }


def losses_of(reports: Sequence[ClientReport]) -> dict[int, float]:
    """By client, the finite losses that those of a round report who trained: as client_rows writes them."""
    good = (report for report in reports if report.failure is None and math.isfinite(report.loss))
    return {report.client: report.loss for report in good}


def rejections(reports: Sequence[ClientReport], attackers: Collection[int]) -> dict[str, int]:
    """Of a round of a relay with a defence: how many models were rejected, and of how many attackers.

    Args:
        reports: of the clients that trained in it.
        attackers: that take part in it.
    """
    rejected = [client for report in reports for client in report.rejected]
    return {"rejected": len(rejected), "rejected_attackers": len(set(rejected) & set(attackers))}


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON has them, which has no name for what is not a number."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def client_rows(
    round_number: int,
    clients: Sequence[int],
    reports: Mapping[int, ClientReport],
    events: Sequence[Event],
    payments: Payments | None = None,
    staleness: Mapping[int, int] = NOBODY,
) -> list[dict[str, Any]]:
    """The lines of clients.jsonl of a round, a client each, by their numbers.

    `bytes_uplink` and `bytes_sidelink` are what the client sent, `bytes_downlink` what was sent to it: each
    byte on the air is counted once. `sim_time_s` is how long it computed, sent and received; `energy_j` what
    its device spent.

    Args:
        round_number: from 1.
        clients: that were selected, whether or not they trained.
        reports: of those that trained, by client.
        events: of the whole round, as the clock has them.
        payments: of the round, where clients are paid.
        staleness: by how many server steps each one's model was older than the newest; empty where clients
            begin together.
    """
    costs = {client: _Costs() for client in clients}
    for event in events:
        if (sender := costs.get(node_client(event.node))) is not None:
            sender.own(event)
        if event.peer is not None and (receiver := costs.get(node_client(event.peer))) is not None:
            receiver.received(event)
    rejected = {client for report in reports.values() for client in report.rejected}
    rows = []
    for client, cost in sorted(costs.items()):
        report = reports.get(client)
        trained = report is not None and report.failure is None
        rows.append(
            {
                "round": round_number,
                "client": client,
                "samples": report.samples if report and trained else 0,
                "steps": report.steps if report and trained else 0,
                "loss": report.loss if report and trained and math.isfinite(report.loss) else None,
                "bytes_uplink": cost.nbytes["uplink"],
                "bytes_downlink": cost.nbytes["downlink"],
                "bytes_sidelink": cost.nbytes["sidelink"],
                "sim_time_s": cost.time_s,
                "energy_j": cost.energy_j,
                "outcome": "rejected" if client in rejected else _outcome(report, cost.outcomes),
                **_money(client, payments),
                **({"staleness": staleness[client]} if staleness else {}),
            }
        )
    return rows


def _money(client: int, payments: Payments | None) -> dict[str, float | None]:
    """What a client is paid, and where updates are paid for what its own added (None: it did not arrive)."""
    if payments is None or payments.by_client is None:
        return {}
    paid: dict[str, float | None] = {"paid": payments.by_client.get(client, 0.0)}
    if payments.contributions is None:
        return paid
    return paid | {"contribution": payments.contributions.get(client)}


class _Costs:
    """What a client's steps in a round cost, and what became of them."""

    def __init__(self) -> None:
        self.nbytes = {"uplink": 0, "downlink": 0, "sidelink": 0}
        self.time_s = 0.0
        self.energy_j = 0.0
        self.outcomes: set[str] = set()

    def own(self, event: Event) -> None:
        """A step of its own: it computes, sends, or waits with its device on."""
        self.energy_j += event.energy_j
        if event.event == "wait":
            return
        self.time_s += event.t1_s - event.t0_s
        self.outcomes.add(event.outcome)
        if event.direction is not None:
            self.nbytes[event.direction] += event.bytes

    def received(self, event: Event) -> None:
        """Something was sent to it."""
        self.time_s += event.t1_s - event.t0_s
        self.outcomes.add(event.outcome)
        if event.direction == "downlink":
            self.nbytes["downlink"] += event.bytes


def _outcome(report: ClientReport | None, outcomes: set[str]) -> str:
    if report is not None:
        return "done" if report.failure is None else "failed"
    return next((outcome for outcome in NOT_TRAINED if outcome in outcomes), "skipped")
