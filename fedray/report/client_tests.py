"""What a report shows of the tests of clients' own models (`evaluation.clients`)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter

from fedray.evaluation.client_tests import LARGER_IS_BETTER, spread
from fedray.report import numbers
from fedray.report.drawing import INK, MUTED, colour, new_figure, short_name, svg
from fedray.report.recorded import Recorded

PREFIX = "eval_clients"
BESIDE = ("_std", "_worst", "_pooled")  # endings of metrics that stand beside a mean over clients
MOST = 2000  # clients of a run that a picture shows


def is_beside(key: str) -> bool:
    """Whether a metric stands beside another one, and has no picture of its own."""
    return key == PREFIX or (key.startswith(f"{PREFIX}_") and key.endswith(BESIDE))


def last(run: Recorded) -> list[dict[str, Any]]:
    """The tests after the newest round that has some."""
    newest = max((row["round"] for row in run.tests), default=0)
    return [row for row in run.tests if row["round"] == newest]


def metric_of(rows: Sequence[dict[str, Any]]) -> str | None:
    """What is shown of tests: the accuracy, or else the first metric that all of them have."""
    known = [k for k in rows[0] if k not in ("round", "client", "samples")] if rows else []
    known = [key for key in known if all(row.get(key) is not None for row in rows)]
    return "accuracy" if "accuracy" in known else next(iter(known), None)


def table(runs: Sequence[Recorded]) -> list[tuple[str, list[str]]]:
    """A row a quantity, a column a run; nothing where no run has tests."""
    tested = [(rows, metric_of(rows)) for rows in map(last, runs)]
    if not any(metric for _, metric in tested):
        return []
    result: dict[str, list[str]] = {}
    for rows, metric in tested:
        cells = _cells(rows, metric) if metric is not None else {}
        for name in ROWS:
            result.setdefault(name, []).append(cells.get(name, ""))
    return list(result.items())


ROWS = (
    "measured",
    "clients",
    "mean over clients",
    "standard deviation",
    "worst tenth",
    "worst",
    "best",
    "mean over all their samples",
)


def _cells(rows: Sequence[dict[str, Any]], metric: str) -> dict[str, str]:
    """By quantity, of one run."""
    key = f"{PREFIX}_{metric}"
    summary = spread([{"client": 0, "samples": row["samples"], metric: row[metric]} for row in rows])
    values = sorted((row[metric] for row in rows), reverse=not metric.endswith(LARGER_IS_BETTER))

    def shown(value: float) -> str:
        return numbers.plain(key, value)

    return {
        "measured": f"{metric.replace('_', ' ')} after round {rows[0]['round']}",
        "clients": str(len(rows)),
        "mean over clients": shown(summary[key]),
        "standard deviation": shown(summary[f"{key}_std"]),
        "worst tenth": shown(summary[f"{key}_worst"]),
        "worst": shown(values[0]),
        "best": shown(values[-1]),
        "mean over all their samples": shown(summary[f"{key}_pooled"]),
    }


def picture(runs: Sequence[Recorded]) -> str:
    """The clients of each run from the worst to the best; empty where no run has tests."""
    tested = [(i, run, rows) for i, run in enumerate(runs) if (rows := last(run))]
    metric = next((m for _, _, rows in tested if (m := metric_of(rows))), None)
    if metric is None:
        return ""
    share = numbers.is_share(f"{PREFIX}_{metric}")
    with new_figure(9.6, 2.9) as (figure, ax):
        for i, run, rows in tested:
            values = sorted(row[metric] for row in rows if row.get(metric) is not None)
            if not metric.endswith(LARGER_IS_BETTER):
                values.reverse()
            places = np.linspace(0, len(values) - 1, min(MOST, len(values))).round().astype(int)
            x = (places + 0.5) / max(1, len(values))
            marker = "o" if len(places) <= 50 else ""
            look = {"color": colour(i), "linewidth": 1.6, "marker": marker, "ms": 3}
            ax.plot(x, [values[k] for k in places], label=f" {short_name(run.name)}", **look)
        ax.set_xlim(0, 1)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0%}"))
        if share:
            ax.set_ylim(0, 1.05)
            ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0%}"))
        ax.set_xlabel("clients, from the worst to the best", color=MUTED)
        ax.set_ylabel(metric.replace("_", " "), color=INK)
        return svg(figure, "clients' own models, from the worst client to the best")
