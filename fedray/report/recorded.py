"""What a report knows of a run: read from its folder, whether it is done, broken or still going on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from fedray.network.ledger import idle_s
from fedray.runs import reader
from fedray.runs.folder import RunFolder
from fedray.runs.reader import Samples
from fedray.runs.shapes import PASS
from fedray.scenario import ScenarioError
from fedray.scenario.tree import flat
from fedray.steps import SERVED, SERVER_NODE, client_node

GRIDS = 24  # sample grids shown of a run; the first and the last are always among them
SMOOTHING = 5  # rounds of the trailing mean that a loss target is held against


@dataclass(frozen=True)
class Recorded:
    """One run. Rows are metrics.jsonl's, events timeline.jsonl's."""

    path: Path
    name: str  # what it is called beside others
    scenario: dict[str, Any]
    rows: list[dict[str, Any]]
    events: list[dict[str, Any]]
    baseline: dict[str, Any]
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    env: dict[str, Any]
    citations: str
    resolved: str  # the scenario as text
    samples: Samples
    partition: dict[str, Any] | None = None  # data.partition.Census
    augmentation: dict[str, Any] | None = None  # how good the data are, with generated pictures
    privacy: dict[str, Any] | None = None  # what is protected, and epsilon
    split: dict[str, Any] | None = None  # what crosses a split model's cut
    tests: Sequence[dict[str, Any]] = ()  # client_tests.jsonl's rows
    on_other_network: bool = False  # on another network than it ran on

    @property
    def weights_sha256(self) -> str:
        """Empty while it is not done."""
        return (self.result or {}).get("weights_sha256") or ""

    @property
    def status(self) -> str:
        if self.result:
            return "done"
        done = self.rows[-1]["round"] if self.rows else 0
        return (
            f"{'broken' if self.error else 'unfinished'} after round {done} of"
            f" {self.scenario['training']['rounds']}"
        )

    def series(self, key: str, axis: str) -> tuple[list[float], list[float]]:
        """A metric against an axis (`rounds`, or a cumulative metric), from the base model where that was
        looked at."""
        points = [(0.0, self.baseline[key])] if self.baseline.get(key) is not None else []
        for row in self.rows:
            if row.get(key) is not None:
                points.append((metric_at(row, axis), row[key]))
        return [x for x, _ in points], [y for _, y in points]

    def smooth_loss(self) -> Iterator[tuple[dict[str, Any], float]]:
        """Each round whose last SMOOTHING losses are all there, with their mean."""
        with_loss = [row for row in self.rows if row["loss"] is not None]
        for i in range(SMOOTHING - 1, len(with_loss)):
            yield with_loss[i], sum(row["loss"] for row in with_loss[i - SMOOTHING + 1 : i + 1]) / SMOOTHING

    def reached(self, target: float) -> dict[str, Any] | None:
        """The first round whose smoothed loss is at most `target`."""
        return next((row for row, loss in self.smooth_loss() if loss <= target), None)


def metric_at(row: dict[str, Any], axis: str) -> float:
    """Where a round lies on an axis."""
    if axis == "bytes":
        return float(row["bytes_uplink"] + row["bytes_downlink"] + row["bytes_sidelink"])
    return float(row[{"rounds": "round", "seconds": "sim_time_s", "joules": "energy_j"}[axis]])


def read(paths: Sequence[Path]) -> list[Recorded]:
    """Runs by their folders; a sweep's folder stands for its variants.

    Raises:
        ScenarioError: where a folder holds no run, or files that are not a run's.
    """
    result = []
    for path in paths:
        scenario = load_scenario(RunFolder.reopen(path).path)
        variants = (scenario.get("sweep") or {}).get("variants", {})
        folders = [path / name for name in variants if (path / name / reader.SCENARIO).is_file()]
        for folder in folders:
            reader.inside(path, folder)
        result += (
            [_read(folder, folder.name) for folder in folders]
            if variants
            else [_read(path, path.resolve().name)]
        )
    # the shortest ends of their paths that tell them apart
    if len({run.name for run in result}) < len(result):
        places = [run.path.resolve().parts for run in result]
        depth = next(
            (d for d in range(2, max(map(len, places))) if len({p[-d:] for p in places}) == len({*places})), 0
        )
        result = [
            replace(run, name="/".join(place[-depth:])) for run, place in zip(result, places, strict=True)
        ]
    return result


def load_scenario(path: Path) -> dict[str, Any]:
    """The resolved scenario of a run's or a sweep's folder."""
    return reader.scenario(path).scenario.model_dump(mode="json")


def _read(path: Path, name: str) -> Recorded:
    run = RunFolder.reopen(path)
    loaded = reader.scenario(path)
    return Recorded(
        path,
        name,
        loaded.scenario.model_dump(mode="json"),
        run.rows(),
        _events(path, loaded.scenario.population.clients),
        run.read("baseline.json") or {},
        run.read("result.json"),
        run.read("error.json"),
        run.read("env.json") or {},
        reader.text(path, "CITATION.bib"),
        loaded.text,
        reader.samples(path, GRIDS),
        run.read("partition.json"),
        run.read("augmentation.json"),
        run.read("privacy.json"),
        run.read("split.json"),
        reader.lines(path, "client_tests.jsonl"),
    )


def _events(path: Path, clients: int) -> list[dict[str, Any]]:
    """timeline.jsonl, whose nodes are all of the population."""
    events = reader.lines(path, "timeline.jsonl")
    known = {SERVER_NODE}  # and those that were looked at: of a million clients, most never take part
    for line, e in enumerate(events, 1):
        nodes = {e["node"], e["peer"] or SERVER_NODE} - known
        if unknown := {node for node in nodes if not _is_known(node, clients)}:
            expected = f"the server, or one of client-0 to client-{clients - 1}"
            raise ScenarioError(
                [f"{path / 'timeline.jsonl'}:{line}: got {unknown.pop()}, expected {expected}"]
            )
        known |= nodes
        if e["peer"] is None and e.get("batch") is None and PASS.fullmatch(e["id"]):
            _add_batch(e)
    return events


def _is_known(node: str, clients: int) -> bool:
    """Whether a node is an edge server or a client of so many."""
    number = node.removeprefix("client-")
    return node.startswith("edge-") or (
        number.isdecimal() and node == client_node(int(number)) and int(number) < clients
    )


def _add_batch(e: dict[str, Any]) -> None:
    """Client, batch and part of a split model's pass, which earlier versions wrote into its id alone."""
    client, batch, *part = map(int, e["id"].split("-")[1:])
    e |= {"client": client, "batch": batch, "part": part[0] if part else 0}


def loss_targets(runs: Sequence[Recorded]) -> list[float]:
    """The sweep's own, or three that every run reached: from a quarter of the way down to the least that all
    came to."""
    for run in runs:
        try:
            sweep = load_scenario(run.path.parent).get("sweep") or {}
        except ScenarioError:  # whatever lies there, it is no sweep
            continue
        if run.path.name in sweep.get("variants", {}) and sweep["loss_targets"]:
            return sorted(sweep["loss_targets"], reverse=True)
    curves = [[loss for _, loss in run.smooth_loss()] for run in runs]
    if not all(curves):
        return []
    start = max(c[0] for c in curves)
    end = max(min(c) for c in curves)
    return (
        [float(f"{start + (end - start) * share:.3g}") for share in (0.5, 0.8)]
        + [float(f"{end * 1.0005:.4g}")]
        if end < start
        else []
    )


def differences(runs: Sequence[Recorded]) -> dict[str, list[Any]]:
    """Scenario keys whose values differ between runs, with each run's value."""
    settings = [dict(flat(run.scenario)) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one)
    words = ("name", "description", "shows")
    values = {key: [one.get(key) for one in settings] for key in keys if key not in words}
    return {key: row for key, row in values.items() if any(v != row[0] for v in row)}


def chosen_prompts(tried: Sequence[dict[str, Any]]) -> str:
    """Of each label that was tried its best prompt, with its score and the next one's."""

    def scored(label: str) -> str:
        first, second = sorted((p for p in tried if p["label"] == label), key=lambda p: -p["score"])[:2]
        return f"{label}: {first['prompt']} ({first['score']:.2f} against {second['score']:.2f})"

    return "; ".join(scored(label) for label in dict.fromkeys(p["label"] for p in tried))


def painted(runs: Sequence[Recorded]) -> list[tuple[str, list[str]]]:
    """What augmentation's pictures are worth: a row a quantity, a column a run."""

    def mean(values: Sequence[float | None]) -> str:
        known = [v for v in values if v is not None]
        return f"{sum(known) / len(known):.3g}" if known else ""

    def pictures(a: dict[str, Any]) -> dict[str, Any]:
        return a.get("pictures") or {}

    def recognised(p: dict[str, Any]) -> str:
        return "" if p.get("recognised") is None else f"{100 * p['recognised']:.3g}% of {p['images']}"

    def cells(one: Callable[[dict[str, Any]], str]) -> list[str]:
        return [one(run.augmentation or {}) for run in runs]

    def both(key: str) -> list[str]:
        return cells(
            lambda a: (
                mean([c[key] for c in a["clients"]])
                + (f" / {a['pictures'][key]:.3g}" if a.get("pictures") else "")
            )
        )

    prompts = cells(lambda a: chosen_prompts(a.get("prompts") or []))
    return [
        ("pictures", cells(lambda a: str(pictures(a).get("images", 0)))),
        ("a judge recognises", cells(lambda a: recognised(pictures(a)))),
        ("classifier-FID", cells(lambda a: mean([pictures(a).get("classifier_fid")]))),
        (
            "clients' distance (EMD), before and after",
            cells(lambda a: f"{mean(a['emd_before'])} → {mean(a['emd_after'])}"),
        ),
        *([("prompts by clients' scores", prompts)] if any(prompts) else []),
        ("learning error: clients / pictures", both("learning_error")),
        ("gap to the global gradient: clients / pictures", both("gradient_gap")),
    ]


def client_flops(run: Recorded) -> float:
    """Floating-point operations of all clients."""
    return sum(e["flops"] for e in run.events if e["node"] != SERVER_NODE)


KINDS = {"train": "training", "generate": "painting", "aggregate": "server", "wait": "waiting"}
KINDS |= dict.fromkeys(("front", "tail", "back"), "training") | dict.fromkeys(SERVED, "server")
KINDS |= {"validate": "validation", "score": "validation"}
KINDS |= {d: d for d in ("downlink", "sidelink", "uplink", "backhaul")}


def shares(run: Recorded) -> dict[str, dict[str, float]]:
    """Where bytes, busy seconds and joules went, by what spent them."""
    spent: dict[str, dict[str, float]] = {
        what: dict.fromkeys(KINDS.values(), 0.0) for what in ("bytes", "seconds", "joules")
    }
    for e in run.events:
        kind = KINDS[e["direction"] or e["event"]]
        spent["bytes"][kind] += e["bytes"]
        spent["seconds"][kind] += (e["t1_s"] - e["t0_s"]) * (e["event"] != "wait")
        spent["joules"][kind] += e["energy_j"]
    spent["seconds"]["waiting"] = sum(
        waiting(list(rows)) for _, rows in groupby(run.events, key=lambda e: e["round"])
    )
    return {what: {k: v for k, v in parts.items() if v} for what, parts in spent.items()}


def waiting(events: Sequence[dict[str, Any]]) -> float:
    """Seconds for which the clients of a round had nothing to do, all together."""
    ends = [e["t1_s"] for e in events if e["event"] == "aggregate"]
    steps = ((e["node"], e["peer"], e["t0_s"], e["t1_s"]) for e in events if e["event"] != "wait")
    idle = idle_s(steps, events[0]["t0_s"], ends[-1]) if ends else {}
    return sum(seconds for node, seconds in idle.items() if node != SERVER_NODE)


def rates(run: Recorded) -> dict[str, list[float]]:
    """Bits a second that every transfer had, by direction, where the network makes them differ."""
    result: dict[str, list[float]] = {}
    if (
        all(run.scenario["network"][d]["kind"] == "fixed" for d in ("uplink", "downlink", "sidelink"))
        and run.split
    ):
        return result  # small and large ones differ by the latency alone
    for e in run.events:
        if e["event"] == "send" and e["bytes"] and e["t1_s"] > e["t0_s"] and e["outcome"] != "lost":
            result.setdefault(e["direction"], []).append(8 * e["bytes"] / (e["t1_s"] - e["t0_s"]))
    return {d: sorted(values) for d, values in result.items() if max(values) > 1.001 * min(values)}


def by_node(run: Recorded) -> list[dict[str, Any]]:
    """What each device did: its turns, its computing and sending, the joules of both."""
    nodes: dict[str, dict[str, Any]] = {}
    for e in run.events:
        node = nodes.setdefault(
            e["node"], {"node": e["node"], "turns": 0, "computing_s": 0.0, "bytes": 0, "joules": 0.0}
        )
        # the first step of a client's local update
        node["turns"] += e["event"] == "train" or (e["event"] == "front" and not (e["batch"] or e["part"]))
        node["computing_s"] += e["t1_s"] - e["t0_s"] if e["event"] not in ("send", "wait") else 0.0
        node["bytes"] += e["bytes"]
        node["joules"] += e["energy_j"]
    return sorted(nodes.values(), key=lambda n: (n["node"] != "server", len(n["node"]), n["node"]))
