"""The same run on another network: its recorded schedule on the clock again, without training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from fedray.errors import printable
from fedray.network.clock import time_round
from fedray.network.ledger import Ledger
from fedray.network.radio import Radio
from fedray.report.recorded import Recorded
from fedray.runs import reader
from fedray.runs.reader import Samples
from fedray.scenario.base import Refused
from fedray.scenario.load import ScenarioError, load_network
from fedray.schedule import Schedule
from fedray.steps import (
    SERVER_NODE,
    Aggregate,
    Generate,
    Pass,
    Score,
    Send,
    Step,
    Train,
    Validate,
    node_client,
)

NONE = Samples([], [], None, None, None, 0, [])  # they are the run's own


@dataclass(frozen=True)
class AsRecorded:
    """What each step did, by its id: bytes of a send step, floating-point operations of any other; and the
    seconds that it waited beside that, and the symbols that it sent as they are, where it did."""

    loads: dict[str, float]
    waits_s: dict[str, float]
    symbols_sent: dict[str, int]

    def load(self, step: Step) -> float:
        return self.loads[step.id]

    def wait_s(self, step: Step) -> float:
        return self.waits_s.get(step.id, 0.0)

    def symbols(self, step: Step) -> int:
        return self.symbols_sent.get(step.id, 0)


def simulate_on_network(run: Recorded, file: Path) -> Recorded:
    """A run as it would have gone on the network of a scenario's file, or of a file of that section alone.
    What the first network decided about learning stays: who was next, late, lost or gone.

    Raises:
        ScenarioError: for a file that is no network for this run's clients.
    """
    if (run.scenario.get("topology") or {}).get("mode"):
        got = "asynchronous rounds, whose clients follow from the network"
        raise ScenarioError(
            [f"{run.path}: got {got}, expected others: plan the scenario on the other network"]
        )
    loaded = load_network(file, run.scenario, reader.code_folders(run.path))
    scenario = loaded.scenario
    try:
        radio = Radio(scenario.network, scenario.population.clients, scenario.seed, loaded.folder)
    except Refused as e:
        raise loaded.error([e]) from None
    if not loaded.scenario.network.uplink.carries_symbols and any(e.get("symbols") for e in run.events):
        got = f"{loaded.scenario.network.uplink.kind}, which has no band"
        raise loaded.error([Refused("network.uplink.kind", got, "one over which the run's symbols go")])
    sends_up = [e for e in run.events if e.get("direction") == "uplink"]
    if scenario.network.uplink.superposes and any(e["bytes"] for e in sends_up):
        got = f"{scenario.network.uplink.kind} for a run whose updates went up as bytes"
        raise loaded.error([Refused("network.uplink.kind", got, "one that carries bytes")])
    ledger = Ledger()
    events = []
    totals = {}
    for t, steps in groupby((e for e in run.events if e["event"] != "wait"), key=lambda e: e["round"]):
        recorded = list(steps)
        _refuse_unknown(run, recorded)
        work = AsRecorded(
            {e["id"]: e["bytes"] if e["event"] == "send" else e["flops"] for e in recorded},
            {e["id"]: e["waits_s"] for e in recorded if e.get("waits_s")},
            {e["id"]: e["symbols"] for e in recorded if e.get("symbols")},
        )
        outcomes = {e["outcome"] for e in recorded if e["event"] != "aggregate"}
        waited = scenario.network.deadline_s if "late" in outcomes or "done" not in outcomes else None
        timed = time_round(
            _schedule(t, recorded, waited),
            work,
            radio,
            ledger.sim_time_s,
            {e["id"]: e["outcome"] for e in recorded},
        )
        if (far := next((e for e in timed if math.isinf(e.t1_s)), None)) is not None:
            got = f"a network in which {far.node} does not reach {far.peer} in round {t}"
            raise loaded.error(
                [Refused(f"network.{far.direction}", got, "one that carries what the run sent")]
            )
        ledger = ledger.add(timed)
        totals[t] = {"sim_time_s": ledger.sim_time_s, "energy_j": ledger.energy_j}
        events += [event.row() for event in timed]
    rows = [row | totals[row["round"]] for row in run.rows if row["round"] in totals]
    network = {"network": loaded.scenario.network.model_dump(mode="json")}
    name = f"{run.name} on {file.stem}"
    there = replace(run, name=name, scenario=run.scenario | network, rows=rows, events=events)
    return replace(there, augmentation=None, samples=NONE, on_other_network=True)


def _refuse_unknown(run: Recorded, events: Sequence[dict[str, Any]]) -> None:
    """A schedule can be run again where each of its steps, by an id of its own, waits for earlier ones."""
    known: set[str] = set()
    for e in events:
        if e["id"] in known or not known.issuperset(e["after"]):
            got = f"step {e['id']} of round {e['round']}, twice or after a step that is not there"
            raise ScenarioError(
                [printable(f"{run.path / 'timeline.jsonl'}: got {got}, expected a whole schedule")]
            )
        known.add(e["id"])


def _schedule(round_number: int, events: Sequence[dict[str, Any]], waited_s: float | None) -> Schedule:
    """The recorded steps; the server waited for somebody until `waited_s`."""

    def step(e: dict[str, Any]) -> Step:
        after = tuple(e["after"])
        if e["event"] == "send":
            ends = node_client(e["node"]), node_client(e["peer"])
            return Send(e["id"], *ends, e["direction"], after, messages=e.get("messages", 1))
        if e["event"] == "aggregate":
            return Aggregate(e["id"], after, waited_s, at=node_client(e["node"]), only_ends=not e["flops"])
        if e["event"] == "generate":
            return Generate(e["id"], node_client(e["node"]), 0, after)
        if e["event"] == "score":
            return Score(e["id"], node_client(e["node"]), 0, after)
        if e["event"] == "validate":
            return Validate(e["id"], node_client(e["node"]), after)
        if e["event"] != "train":
            client = e["client"] if e["node"] == SERVER_NODE else node_client(e["node"])
            return Pass(e["id"], client, e["event"], e["batch"], e["part"], 1, 0, after)
        return Train(e["id"], node_client(e["node"]), after)

    return Schedule(round_number, tuple(step(e) for e in events))
