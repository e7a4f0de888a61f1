"""`fedray report`: runs as one HTML page that needs nothing but itself. It holds no script and allows none:
whatever stands in a run's files is text there."""

import base64
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from fedray.files import whole
from fedray.report import charts, client_tests, numbers, recorded, replicates, staleness
from fedray.report.facts import facts
from fedray.report.ledger import ledger
from fedray.report.observed import observed
from fedray.report.recorded import SMOOTHING, Recorded
from fedray.report.recost import simulate_on_network
from fedray.report.replicates import Variant
from fedray.report.shown import shown_metrics
from fedray.scenario import ScenarioError
from fedray.steps import BACK, SERVED
from fedray.terminal import size

CHARTS = 40  # metrics that are drawn, against four axes each; all are in the table


def write(folders: Sequence[Path], out: Path | None = None, network: Path | None = None) -> Path:
    """The page of one run, or of several compared; a sweep's folder stands for its variants. With the
    `network` of another scenario each run is there a second time, on that. Gives the file written:
    `report.html` in the (first) folder, unless `out` says otherwise.

    Raises:
        ScenarioError: where a folder holds no run, or files that are not a run's, or where the page cannot be
            written.
    """
    runs = recorded.read(folders)
    if network is not None:
        runs = [one for run in runs for one in (run, simulate_on_network(run, network))]
    page = render(runs, recorded.load_scenario(folders[0]) if len(folders) == 1 else None)
    file = out or folders[0] / "report.html"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole(file) as part:
            part.write_bytes(page.encode("utf-8", "backslashreplace"))
    except OSError as e:
        raise ScenarioError(
            [f"{file}: got a file that cannot be written ({e.strerror or e}), expected another place"]
        ) from None
    return file


def render(runs: Sequence[Recorded], sweep: dict[str, Any] | None = None) -> str:
    """The page. `sweep` is the scenario of which the runs are variants, where one is."""
    everything = runs
    varied = replicates.variants(runs)
    replicated = any(len(variant.runs) > 1 for variant in varied)
    if replicated:  # a run of each variant stands for the others, but where their means do
        runs = [variant.example for variant in varied]
    shown = shown_metrics(everything)
    drawn = shown[:CHARTS] if any(run.rows for run in everything) else []
    painters = [run for run in runs if run.augmentation]
    with_events = [run for run in runs if run.events]
    jinja = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters |= {"size": size, "number": numbers.short, "png": _data_uri, "part_of": numbers.part_of}
    return jinja.from_string((files("fedray.report") / "page.html").read_text(encoding="utf-8")).render(
        title=sweep["name"] if sweep else " and ".join(run.name for run in runs),
        description=sweep["description"] if sweep else "",
        runs=[facts(run, i) for i, run in enumerate(runs)],
        axes=charts.AXES,
        units=charts.UNITS,
        kinds={kind: f"var(--s{i})" for kind, i in charts.KIND_COLOURS.items()},
        shown_kinds={recorded.KINDS[e["direction"] or e["event"]] for run in runs for e in run.events}
        - {"waiting"},
        stopped=[run for run in everything if run.error and run.status != "done"],
        **_learning(varied if replicated else [], runs, drawn),
        on_other_network=[run.name for run in runs if run.on_other_network],
        maps=[
            (run.name, svg)
            for run in with_events
            if run.scenario["network"].get("cell") and (svg := charts.places(run))
        ],
        rates=[(run.name, charts.rates(result)) for run in with_events if (result := recorded.rates(run))],
        timelines=[(run.name, svg) for run in with_events if (svg := charts.gantt(first_round(run)))],
        partitions=[
            (names, charts.partition(census), _distances(census)) for names, census in _partitions(runs)
        ],
        stale=staleness.table(runs),
        stale_picture=staleness.picture(runs),
        client_tests=client_tests.parts(runs),
        painted=recorded.painted(painters) if painters else [],
        painters=[run.name for run in painters],
        pictures=next((run.samples.pictures for run in painters if run.samples.pictures), None),
        crossings=[(run.name, *_crossings(run), run.samples.attack) for run in runs if run.split],
        observers=[(run.name, *seen) for run in runs if (seen := observed(run))],
        ledgers=[(run.name, entries) for run in runs if (entries := ledger(run))],
        **_reaching(runs),
        differences=recorded.differences(runs) if len(runs) > 1 else {},
        totals=_totals(runs, shown),
        citations=_citations(everything),
        sure=not replicated
        and any(numbers.interval(key, row) for run in runs for row in run.rows for key in drawn),
        csv=numbers.as_csv(everything),
        emd=numbers.EMD,
        smoothing=SMOOTHING,
        metric_at=recorded.metric_at,
    )


def first_round(run: Recorded) -> list[dict[str, Any]]:
    return [e for e in run.events if e["round"] == run.events[0]["round"]]


def _against(runs: Sequence[Recorded], key: str) -> dict[str, str]:
    """A metric's picture by the axis it is drawn against."""
    return {axis: charts.curves(runs, key, axis) for axis in charts.AXES}


def _learning(varied: Sequence[Variant], runs: Sequence[Recorded], drawn: Sequence[str]) -> dict[str, Any]:
    """What the page says of learning, for its template.

    Args:
        varied: the variants, where some ran under several seeds; otherwise none.
        runs: all of them, or of each variant one.
        drawn: the metrics that have pictures.
    """
    against = {key: _means_against(varied, key) if varied else _against(runs, key) for key in drawn}
    return {
        "statuses": _statuses(varied, runs),
        "over_seeds": replicates.table(varied, drawn),
        "measured": [*map(numbers.name, drawn), *(name for name, _ in replicates.COSTS.values())],
        "curves": [(numbers.name(key), numbers.MEANINGS.get(key, ""), against[key]) for key in drawn],
    }


def _reaching(runs: Sequence[Recorded]) -> dict[str, Any]:
    """What it took runs to reach losses, for the page's template; without targets where there is one run."""
    targets = recorded.loss_targets(runs) if len(runs) > 1 else []
    axes = ("bytes", "seconds") if targets else ()
    return {
        "targets": targets,
        "reached": {t: [run.reached(t) for run in runs] for t in targets},
        "reach_charts": {axis: charts.to_reach(runs, targets, axis) for axis in axes},
    }


def _means_against(varied: Sequence[Variant], key: str) -> dict[str, str]:
    """The same of variants that ran under several seeds."""
    return {axis: replicates.bands(varied, key, axis) for axis in charts.AXES}


def _statuses(varied: Sequence[Variant], runs: Sequence[Recorded]) -> list[tuple[str, str]]:
    """What is on the page, each with how far it has come: variants over their seeds, or runs."""
    if not varied:
        return [(run.name, run.status) for run in runs]
    counts = [(len(v.runs), sum(run.status == "done" for run in v.runs)) for v in varied]
    done = ["done" if n == of else f"{n} of {of} seeds done" for of, n in counts]
    return [(v.name, status) for v, status in zip(varied, done, strict=True)]


def _partitions(runs: Sequence[Recorded]) -> list[tuple[str, dict[str, Any]]]:
    """Each partition once, with the runs that have it."""
    having: list[tuple[list[str], dict[str, Any]]] = []
    for run in runs:
        if run.partition is not None:
            same = next((names for names, census in having if census == run.partition), None)
            if same is None:
                having.append((same := [], run.partition))
            same.append(run.name)
    return [(", ".join(names), census) for names, census in having]


def _distances(census: dict[str, Any]) -> str:
    known = [d for d in census["emd"] if d is not None]
    empty = len(census["emd"]) - len(known)
    text = f"each client's EMD: mean {sum(known) / len(known):.2f}, {min(known):.2f} to {max(known):.2f}"
    return text + (f"; {empty} clients hold nothing" if empty else "")


def _totals(runs: Sequence[Recorded], shown: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The table of totals: a row a quantity, a column a run."""

    def last(run: Recorded, key: str) -> Any:
        return newest(run, key).get(key)

    def newest(run: Recorded, key: str) -> dict[str, Any]:
        return next((row for row in reversed(run.rows) if row.get(key) is not None), {})

    def cell(run: Recorded, key: str) -> str:
        row = newest(run, key)
        base = run.baseline
        now, before, floor = (
            numbers.plain(key, value) for value in (row.get(key), base.get(key), base.get(f"{key}_floor"))
        )
        detail = "; ".join(filter(None, (numbers.sureness(key, row), floor and f"floor {floor}")))
        return " → ".join(filter(None, (before, now))) + (f" ({detail})" if now and detail else "")

    rows: list[tuple[str, list[str]]] = [("rounds", [str(last(r, "round") or 0) for r in runs])]
    rows += [(numbers.name(key), [cell(run, key) for run in runs]) for key in shown]
    for key, name, unit in (
        ("bytes_uplink", "uplink", "B"),
        ("bytes_downlink", "downlink", "B"),
        ("bytes_sidelink", "sidelink", "B"),
        ("sim_time_s", "simulated time", "s"),
        ("energy_j", "energy", "J"),
        ("wall_time_s", "wall time", "s"),
    ):
        rows.append((name, [size(v, unit) if (v := last(r, key)) is not None else "" for r in runs]))
    if any(backhaul := [last(r, "bytes_backhaul") for r in runs]):
        between = ("backhaul", [size(v, "B") if v is not None else "" for v in backhaul])
        rows.insert(next(i for i, row in enumerate(rows) if row[0] == "simulated time"), between)
    if any(uses := [last(r, "symbols") for r in runs]):
        rows.append(("symbols in place of bytes", ["" if v is None else f"{v:,}" for v in uses]))
    for key in ("paid", "social_cost", "misreport_gain"):
        money = [last(r, key) for r in runs]
        if any(v is not None for v in money):
            rows.append((numbers.name(key), ["" if v is None else f"{v:.4g}" for v in money]))
    rows.append(("clients' work", [size(recorded.client_flops(run), "FLOP") for run in runs]))
    rows.append(("weights_sha256", [run.weights_sha256[:12] for run in runs]))
    return rows


def _crossings(run: Recorded) -> tuple[str, list[tuple[str, ...]]]:
    """What a split model's two sides learn of each other: in words, and a row a tensor and direction: what,
    its shape for a sample, its numbers, bytes a batch."""
    split = run.split
    assert split is not None
    sent = " and ".join(split["inputs"])
    stays = (
        f"the server is sent {sent} as they are" if sent else "all inputs and labels stay with the clients"
    )
    share = split["flops"]
    client_flops = sum(v for stage, v in share.items() if stage not in SERVED)
    ends = split["cut"] + (f" and from {split['tail']}" if split["tail"] else "")
    trained = split["trainable"]
    text = (
        f"Clients hold the model up to {ends}: {trained['client']:,} of {sum(trained.values()):,} trained"
        " numbers, "
    )
    text += f"{100 * client_flops / sum(share.values()):.2g}% of the work; {stays}."
    if split["skips"]:
        text += f" {', '.join(split['skips'])} cross beside what the next stage needs."
    rows = []
    for name, tensors in split["crossings"].items():
        shapes = ", ".join(
            f"{' = '.join(t['names'])} [{' × '.join(map(str, t['shape']))}] {t['dtype']}" for t in tensors
        )
        up = name == "smashed"
        rows += [
            (name, "up" if up else "down", shapes, name),
            (BACK[name], "down" if up else "up", "alike", BACK[name]),
        ]
    symbols = split.get("symbols", {})

    def taken(crossing: str) -> str:
        if crossing in symbols:
            return f"{symbols[crossing] * split['batch']:,} symbols"
        return size(split["bytes"][crossing])

    return text, [(*row[:3], taken(row[3])) for row in rows]


def _citations(runs: Sequence[Recorded]) -> str:
    return "\n\n".join(
        dict.fromkeys(entry for run in runs for entry in run.citations.strip().split("\n\n") if entry)
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
