"""What a report shows of tests on clients' own distributions: of their own models (`evaluation.clients`), and
of the global one on held-out samples (`data.holdout`)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import FuncFormatter

from fedray.evaluation.client_tests import BY_NOISE, HOLDOUT, metrics_of, spread, worst_first
from fedray.report import numbers
from fedray.report.drawing import INK, MUTED, colour, new_figure, short_name, svg
from fedray.report.recorded import Recorded

BESIDE = ("_std", "_worst", "_pooled", "_mean")  # endings of metrics that stand beside another one
MOST = 2000  # clients of a run that a picture shows

Row = dict[str, Any]


class Subject(NamedTuple):
    """Whose model is tested.

    Attributes:
        title: of its part of the page.
        text: what is tested on what.
        of_round: begins the names of its metrics of a round.
        of_row: begins the names of its metrics in a client's row.
        mean: of a metric m of a round, which ending has the mean over clients.
        pooled: which has the mean over samples.
    """

    title: str
    text: str
    of_round: str
    of_row: str
    mean: str
    pooled: str


SUBJECTS = (
    Subject(
        "Each client's own model",
        "Each client's model, with what stays at home, on samples of its own distribution that nobody trains "
        "on.",
        "eval_clients_",
        "",
        "",
        "_pooled",
    ),
    Subject(
        "The global model at each client",
        "The global model on what is held out of each client's samples: nobody trains on them, and only "
        "these numbers leave the client.",
        f"eval_{HOLDOUT}",
        HOLDOUT,
        "_mean",
        "",
    ),
)


class Part(NamedTuple):
    """A part of the page."""

    title: str
    text: str
    picture: str  # SVG
    rows: list[tuple[str, list[str]]]  # a row a quantity, a column a run


def is_beside(key: str) -> bool:
    """Whether a metric stands beside another one, and has no picture of its own."""
    if BY_NOISE in key:
        return True
    counts = ("eval_clients", f"eval_{HOLDOUT}clients", f"eval_{HOLDOUT}samples")
    prefixes = tuple(subject.of_round for subject in SUBJECTS)
    return key in counts or (key.startswith(prefixes) and key.endswith(BESIDE))


def parts(runs: Sequence[Recorded]) -> list[Part]:
    """Of each subject that some run has tests of."""
    result = []
    for subject in SUBJECTS:
        tested = [_last(run, subject) for run in runs]
        if any(_metric(rows, subject) for rows in tested):
            picture = _picture(runs, tested, subject)
            result.append(Part(subject.title, subject.text, picture, _table(runs, tested, subject)))
    return result


def _last(run: Recorded, subject: Subject) -> list[Row]:
    """The tests after the newest round that has some."""
    rows = [row for row in run.tests if f"{subject.of_row}samples" in row]
    newest = max((row["round"] for row in rows), default=0)
    return [row for row in rows if row["round"] == newest]


def _metric(rows: Sequence[Row], subject: Subject) -> str | None:
    """What is shown of tests: the accuracy, or else the first metric that all of them have."""
    known = list(metrics_of(rows, subject.of_row))
    return "accuracy" if "accuracy" in known else next(iter(known), None)


def _table(
    runs: Sequence[Recorded], tested: Sequence[Sequence[Row]], subject: Subject
) -> list[tuple[str, list[str]]]:
    result: dict[str, list[str]] = {}
    for run, rows in zip(runs, tested, strict=True):
        metric = _metric(rows, subject)
        cells = {} if metric is None else _cells(rows, metric, subject) | _by_noise(run, subject)
        for name in ROWS:
            result.setdefault(name, []).append(cells.get(name, ""))
    return [(name, cells) for name, cells in result.items() if any(cells)]


NOISE = "loss by noise, from the least to the most"
ROWS = (
    "measured",
    "clients",
    "mean over clients",
    "standard deviation",
    "worst tenth",
    "worst",
    "best",
    "mean over all their samples",
    NOISE,
)


def _cells(rows: Sequence[Row], metric: str, subject: Subject) -> dict[str, str]:
    """By quantity, of one run."""
    key = subject.of_round + metric
    name = subject.of_row + metric
    samples = f"{subject.of_row}samples"
    summary = spread([{"client": 0, samples: row[samples], name: row[name]} for row in rows])
    values = worst_first(name, [row[name] for row in rows])

    def shown(value: float) -> str:
        return numbers.plain(key, value)

    return {
        "measured": f"{metric.replace('_', ' ')} after round {rows[0]['round']}",
        "clients": str(len(rows)),
        "mean over clients": shown(summary[key + subject.mean]),
        "standard deviation": shown(summary[f"{key}_std"]),
        "worst tenth": shown(summary[f"{key}_worst"]),
        "worst": shown(values[0]),
        "best": shown(values[-1]),
        "mean over all their samples": shown(summary[key + subject.pooled]),
    }


def _by_noise(run: Recorded, subject: Subject) -> dict[str, str]:
    """The loss of a model that denoises, at each level of noise."""
    begins = f"{subject.of_round}loss{BY_NOISE}"
    newest: Row = next((row for row in reversed(run.rows) if f"{begins}1" in row), {})
    levels = [numbers.plain(key, value) for key, value in newest.items() if key.startswith(begins)]
    return {NOISE: ", ".join(levels)}


def _picture(runs: Sequence[Recorded], tested: Sequence[Sequence[Row]], subject: Subject) -> str:
    """The clients of each run from the worst to the best."""
    metric = next(m for rows in tested if (m := _metric(rows, subject)))
    name = subject.of_row + metric
    with new_figure(9.6, 2.9) as (figure, ax):
        for i, (run, rows) in enumerate(zip(runs, tested, strict=True)):
            values = worst_first(name, [row[name] for row in rows if row.get(name) is not None])
            if not values:
                continue
            places = np.linspace(0, len(values) - 1, min(MOST, len(values))).round().astype(int)
            x = (places + 0.5) / len(values)
            marker = "o" if len(places) <= 50 else ""
            look = {"color": colour(i), "linewidth": 1.6, "marker": marker, "ms": 3}
            ax.plot(x, [values[k] for k in places], label=f" {short_name(run.name)}", **look)
        ax.set_xlim(0, 1)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0%}"))
        if numbers.is_share(subject.of_round + metric):
            ax.set_ylim(0, 1.05)
            ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0%}"))
        ax.set_xlabel("clients, from the worst to the best", color=MUTED)
        ax.set_ylabel(metric.replace("_", " "), color=INK)
        return svg(figure, f"{subject.title}: {metric.replace('_', ' ')}, from the worst client to the best")
