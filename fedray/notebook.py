"""How a run shows itself in a notebook. Whatever comes from its files is escaped."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fedray.errors import printable
from fedray.report import charts, numbers, recorded, replicates
from fedray.report.page import first_round
from fedray.report.recorded import Recorded
from fedray.scenario import ScenarioError
from fedray.terminal import size

ROWS = 5  # the last rounds that are shown
METRICS = 4  # of an evaluation, at most
TITLE = re.compile(r'<svg [^>]*aria-label="([^"]*)"')  # of the report's pictures, escaped already
COLOURS = {  # the report's
    "ink": "#1c1b19",
    "muted": "#6f6b64",
    "line": "#e3dfd7",
    "s0": "#2b62b8",
    "s1": "#d9772b",
    "s2": "#3a9564",
    "s3": "#a43f8f",
    "s4": "#8a8478",
    "s5": "#c23b3b",
    "s6": "#1e97a6",
    "s7": "#7a6a1f",
}


class Svg(str):
    """A picture as SVG, which a notebook shows under its title, and which may be written to a file.

    Attributes:
        legend: what stands for what beside the title, a colour a name.
    """

    legend: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"<SVG of {len(self):,} characters>"

    def _repr_html_(self) -> str:
        title = TITLE.search(self)
        words = [f"<b>{title[1]}</b>" if title else ""]
        words += [f'<span style="color:{colour}">■</span> {_text(n)}' for n, colour in self.legend.items()]
        return f'<div style="max-width:46em">{" ".join(words)}{self}</div>'


def figures(path: Path) -> dict[str, Svg]:
    """The report's pictures of one run, by name; of a sweep, those that compare its variants.

    Raises:
        ScenarioError: for a folder that holds no run, or files that are not a run's.
    """
    runs = recorded.read([path])
    if _is_sweep(path, runs):
        return _compared(runs)
    (run,) = runs
    pictures = {key: charts.curves([run], key, "rounds") for key in _metrics(run)}
    if run.events:
        pictures["timeline"] = charts.gantt(first_round(run))
        pictures["rates"] = charts.rates(by_direction) if (by_direction := recorded.rates(run)) else ""
        pictures["places"] = charts.places(run) if run.scenario["network"].get("cell") else ""
    if run.partition is not None:
        pictures["partition"] = charts.partition(run.partition)
    shown = {name: Svg(_standalone(svg)) for name, svg in pictures.items() if svg}
    if "timeline" in shown:
        kinds = dict.fromkeys(recorded.KINDS[e["direction"] or e["event"]] for e in first_round(run))
        colours = {kind: COLOURS[f"s{i}"] for kind, i in charts.KIND_COLOURS.items()}
        shown["timeline"].legend = {kind: colours[kind] for kind in kinds if kind != "waiting"}
    return shown


def compare(paths: Sequence[Path]) -> dict[str, Svg]:
    """Every metric of several runs in one picture: against rounds by its own name, against what they cost as
    `METRIC by bytes`, `by seconds` and `by joules`.

    Raises:
        ScenarioError: for a folder that holds no run, or files that are not a run's.
    """
    return _compared(recorded.read(paths))


def run_html(path: Path) -> str:
    """A run's name, status, last metrics and curve of the loss, as HTML."""
    try:
        return _html(path)
    except ScenarioError as e:
        return f"<pre>{escape(printable(e, keep=chr(10)))}</pre>"


def _html(path: Path) -> str:
    runs = recorded.read([path])
    if _is_sweep(path, runs):
        rows = "".join(f"<li>{_text(run.name)}: {_text(run.status)}</li>" for run in runs)
        return f"<div><b>{_text(path)}</b><ul>{rows}</ul></div>"
    (run,) = runs
    curve = Svg(_standalone(charts.curves([run], "loss", "rounds")))._repr_html_() if run.rows else ""
    return (
        f"<div><b>{_text(run.scenario['name'])}</b> <code>{_text(path)}</code>: {_text(run.status)}"
        f'{_table(run)}<div style="max-width:32em">{curve}</div></div>'
    )


def _is_sweep(path: Path, runs: Sequence[Recorded]) -> bool:
    """Whether a folder stands for these runs, which lie within it."""
    return [run.path for run in runs] != [path]


def _compared(runs: Sequence[Recorded]) -> dict[str, Svg]:
    keys = dict.fromkeys(key for run in runs for key in _metrics(run))
    over_seeds = replicates.variants(runs)
    replicated = any(len(variant.runs) > 1 for variant in over_seeds)
    pictures = {}
    for key in keys:
        for axis in charts.AXES:
            name = key if axis == "rounds" else f"{key} by {axis}"
            if replicated:
                svg = replicates.bands(over_seeds, key, axis, legend=True)
            else:
                svg = charts.curves(runs, key, axis, legend=True)
            pictures[name] = Svg(_standalone(svg))
    return pictures


def _metrics(run: Recorded) -> list[str]:
    """What was measured, but for the numbers beside a metric."""
    keys = dict.fromkeys(k for row in (*run.rows, run.baseline) for k in row if k.startswith("eval_"))
    return ["loss", *(k for k in keys if not k.endswith(numbers.BESIDE))] if run.rows else []


def _table(run: Recorded) -> str:
    evaluated = _metrics(run)[1 : METRICS + 1]
    header = ["round", "loss", *map(numbers.name, evaluated), "on air", "simulated time", "energy"]
    rows = [_cells(row, evaluated) for row in run.rows[-ROWS:]]
    if not rows:
        return ""
    body = "".join(_row(row, "td") for row in rows)
    return f"<table><thead>{_row(header, 'th')}</thead><tbody>{body}</tbody></table>"


def _cells(row: Mapping[str, Any], evaluated: Sequence[str]) -> list[str]:
    on_air = row["bytes_uplink"] + row["bytes_downlink"] + row["bytes_sidelink"]
    measured = [_number(row.get(key)) for key in ("loss", *evaluated)]
    costs = [size(on_air), size(row["sim_time_s"], "s"), size(row["energy_j"], "J")]
    return [str(row["round"]), *measured, *costs]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in cells) + "</tr>"


def _text(value: object) -> str:
    return escape(printable(value))


def _standalone(svg: str) -> str:
    """The report's SVG with the colours that its page gives it there."""
    if not svg:
        return ""
    style = ";".join(f"--{name}:{colour}" for name, colour in COLOURS.items())
    namespace = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return svg.replace("<svg ", f'<svg {namespace} style="{style}" ', 1)
