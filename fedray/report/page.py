"""`fedray report`: runs as one HTML page that needs nothing but itself. It holds no script and allows none:
whatever stands in a run's files is text there."""

import base64
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from fedray.files import whole
from fedray.report import charts, client_tests, levels, numbers, recorded, staleness
from fedray.report.facts import facts
from fedray.report.ledger import ledger
from fedray.report.observed import observed
from fedray.report.recorded import SMOOTHING, Recorded
from fedray.report.recost import simulate_on_network
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
    shown = _shown(runs)
    drawn = shown[:CHARTS] if any(run.rows for run in runs) else []
    targets = recorded.loss_targets(runs) if len(runs) > 1 else []
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
        curves=[(numbers.name(key), numbers.MEANINGS.get(key, ""), _against(runs, key)) for key in drawn],
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
        client_tests=client_tests.table(runs),
        clients_picture=client_tests.picture(runs),
        painted=recorded.painted(painters) if painters else [],
        painters=[run.name for run in painters],
        pictures=next((run.samples.pictures for run in painters if run.samples.pictures), None),
        crossings=[(run.name, *_crossings(run), run.samples.attack) for run in runs if run.split],
        observers=[(run.name, *seen) for run in runs if (seen := observed(run))],
        ledgers=[(run.name, entries) for run in runs if (entries := ledger(run))],
        targets=targets,
        reached={t: [run.reached(t) for run in runs] for t in targets},
        reach_charts=(
            {axis: charts.to_reach(runs, targets, axis) for axis in ("bytes", "seconds")} if targets else {}
        ),
        differences=recorded.differences(runs) if len(runs) > 1 else {},
        totals=_totals(runs, shown),
        citations=_citations(runs),
        sure=any(numbers.interval(key, row) for run in runs for row in run.rows for key in drawn),
        csv=numbers.as_csv(runs),
        emd=numbers.EMD,
        smoothing=SMOOTHING,
        metric_at=recorded.metric_at,
    )


def _shown(runs: Sequence[Recorded]) -> list[str]:
    """The metrics that have pictures and rows of their own."""
    metrics = list(
        dict.fromkeys(
            k for run in runs for row in (*run.rows, run.baseline) for k in row if k.startswith("eval_")
        )
    )
    of_rules = {k for k in metrics for run in runs if levels.belongs_to_rule(run, k)}
    of_rounds = [k for k in numbers.OF_ROUNDS if any(k in row for run in runs for row in run.rows)]
    beside = {k for k in metrics if k.endswith(numbers.BESIDE) or client_tests.is_beside(k)}
    evaluated = [k for k in metrics if k not in beside and k not in of_rules]
    return ["loss", *evaluated, *of_rounds]


def first_round(run: Recorded) -> list[dict[str, Any]]:
    return [e for e in run.events if e["round"] == run.events[0]["round"]]


def _against(runs: Sequence[Recorded], key: str) -> dict[str, str]:
    """A metric's picture by the axis it is drawn against."""
    return {axis: charts.curves(runs, key, axis) for axis in charts.AXES}


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
