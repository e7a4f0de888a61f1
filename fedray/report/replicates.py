"""What a report shows of variants that ran under several seeds: means with their confidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Any

from matplotlib.ticker import FuncFormatter

from fedray.report import charts, levels, numbers
from fedray.report.drawing import INK, MUTED, colour, new_figure, short_name, svg
from fedray.report.recorded import SMOOTHING, Recorded, metric_at
from fedray.runs.replicates import Estimate, estimate, replicates
from fedray.terminal import size

DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)))  # once colours are used up
ROOM = 0.6  # of the runs' own spread: how far above and below them a band is shown


@dataclass(frozen=True)
class Variant:
    """A scenario's runs under several seeds."""

    name: str
    runs: list[Recorded]

    @property
    def measured(self) -> list[Recorded]:
        """The runs that are done, which alone can be compared; while none is, all."""
        return [run for run in self.runs if run.status == "done"] or self.runs

    @property
    def seeds(self) -> list[int]:
        """Of the runs that are measured."""
        return [run.scenario["seed"] for run in self.measured]

    @property
    def example(self) -> Recorded:
        """The run that stands for all where a page has room for one."""
        return self.measured[0]

    def final(self, key: str) -> Estimate | None:
        """A metric when it was last measured, over the runs."""
        return estimate([_newest(run, key) for run in self.measured])

    def cost(self, axis: str) -> str:
        """The mean of what a run costs, for a person; `axis` is one of COSTS."""
        one = estimate([metric_at(run.rows[-1], axis) for run in self.measured if run.rows])
        return "" if one is None else size(one.mean, COSTS[axis][1])

    def series(self, key: str, axis: str) -> list[tuple[float, Estimate]]:
        """A metric against an axis, at each round that all runs have: their mean place on it, and their mean.

        Args:
            key: the metric's, of metrics.jsonl.
            axis: one of charts.AXES.
        """
        curves = [_curve(run, key, axis) for run in self.measured]
        shared = [n for n in curves[0] if all(n in curve for curve in curves)]
        result = []
        for n in shared:
            places, values = zip(*(curve[n] for curve in curves), strict=True)
            one = estimate(values)
            assert one is not None
            result.append((sum(places) / len(places), one))
        return result


def variants(runs: Sequence[Recorded]) -> list[Variant]:
    """Runs by their variants. A run on another network is none of those on its own."""
    result = []
    for elsewhere in (False, True):
        named = {run.name: run for run in runs if run.on_other_network == elsewhere}
        groups = replicates({name: run.scenario for name, run in named.items()})
        result += [Variant(name, [named[run] for run in members]) for name, members in groups.items()]
    return result


def _newest(run: Recorded, key: str) -> Any:
    return next((row[key] for row in reversed(run.rows) if row.get(key) is not None), None)


def _curve(run: Recorded, key: str, axis: str) -> dict[int, tuple[float, float]]:
    """A run's place on an axis and its metric, by round; of many rounds' losses the mean of some."""
    if is_smooth(run, key):
        return {row["round"]: (metric_at(row, axis), loss) for row, loss in run.smooth_loss()}
    base = run.baseline.get(key)
    first = {} if base is None else {0: (0.0, base)}
    measured = (row for row in run.rows if row.get(key) is not None)
    return first | {row["round"]: (metric_at(row, axis), row[key]) for row in measured}


def is_smooth(run: Recorded, key: str) -> bool:
    """Whether a run's curve is of trailing means."""
    return key == "loss" and len(run.rows) > 2 * SMOOTHING


def bands(shown: Sequence[Variant], key: str, axis: str, legend: bool = False) -> str:
    """A metric of all variants against one axis: the mean over seeds, a band that is its 95 % confidence
    interval, and each run as a thin line.

    Args:
        shown: each has its colour.
        key: the metric's, of metrics.jsonl.
        axis: one of charts.AXES.
        legend: whether the picture itself says which colour is which variant.
    """
    with new_figure(4.6, 2.7) as (figure, ax):
        for i, variant in enumerate(shown):
            look: dict[str, Any] = {"color": colour(i), "linestyle": DASHES[i // 8 % len(DASHES)]}
            for run in variant.measured if len(variant.measured) > 1 else ():
                points = list(_curve(run, key, axis).values())
                ax.plot(*zip(*points, strict=True) if points else ([], []), **look, linewidth=0.6, alpha=0.4)
        ax.autoscale(False)  # the runs themselves say how large the picture is: two make a wide band
        low, high = ax.get_ylim()
        for i, variant in enumerate(shown):
            look = {"color": colour(i), "linestyle": DASHES[i // 8 % len(DASHES)]}
            series = variant.series(key, axis)
            x = [place for place, _ in series]
            label = f" {short_name(variant.name)}"
            marker = "" if len(x) > 30 else "o"
            ax.plot(
                x, [one.mean for _, one in series], **look, label=label, linewidth=1.8, marker=marker, ms=3
            )
            sure = [(place, *one.interval) for place, one in series if one.interval is not None]
            if sure:
                ax.fill_between(*zip(*sure, strict=True), color=colour(i), alpha=0.16, linewidth=0)
        if shown:
            levels.draw(ax, shown[0].example, key, MUTED)
        _fit(ax, shown, key, axis, high - low)
        charts.label_axes(ax, key, axis)
        if numbers.is_share(key):
            ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.3g}%"))
        if legend:
            ax.legend(frameon=False, fontsize=8, labelcolor=INK)
        return svg(figure, f"{numbers.name(key)} against {charts.AXES[axis]}, over seeds")


def _fit(ax: Any, shown: Sequence[Variant], key: str, axis: str, spread: float) -> None:
    """Makes room for means and bands, but not for more of a band than the runs themselves spread: over two
    seeds it may be ten times as wide."""
    series = [point for variant in shown for point in variant.series(key, axis)]
    if not series:
        return
    means = [one.mean for _, one in series]
    reach = ROOM * max(spread, max(means) - min(means))
    low = max(min(means) - reach, min((one.interval or (one.mean,))[0] for _, one in series))
    high = min(max(means) + reach, max((one.interval or (one.mean,))[-1] for _, one in series))
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    places = [place for place, _ in series]
    side = 0.04 * (max(places) - min(places)) or 0.5
    ax.set_ylim(low - margin, high + margin)
    ax.set_xlim(min(places) - side, max(places) + side)


COSTS = {"bytes": ("bytes on air", "B"), "seconds": ("simulated time", "s"), "joules": ("energy", "J")}


def table(shown: Sequence[Variant], keys: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """A row a variant: its name, over which seeds, each metric's mean with its confidence, and the mean of
    what a run costs."""
    return [
        (
            one.name,
            _listed(one.seeds),
            [*(cell(key, one.final(key)) for key in keys), *(one.cost(axis) for axis in COSTS)],
        )
        for one in shown
    ]


def _listed(seeds: Sequence[int]) -> str:
    """Seeds for a person; those that follow one another by the first and the last."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def cell(key: str, one: Estimate | None) -> str:
    """A mean for a person, with half its interval and the standard deviation."""
    if one is None:
        return ""
    if one.half_width is None or one.std is None:
        return numbers.plain(key, one.mean)
    mean, half, std = rounded(key, one)
    unit = "%" if numbers.is_share(key) else ""
    return f"{mean} ± {half}{unit} ({std})"


def rounded(key: str, one: Estimate) -> tuple[str, str, str]:
    """Mean, half width and standard deviation with as many digits as the half width has, of which two; shares
    as percentages. The last two are empty for a single run."""
    scale = 100.0 if numbers.is_share(key) else 1.0
    mean = scale * one.mean
    if one.half_width is None or one.std is None:
        return f"{mean:.4g}", "", ""
    half = scale * one.half_width
    std = scale * one.std
    if half == 0 or not 1e-6 <= half <= 1e6:
        return f"{mean:.4g}", f"{half:.2g}", f"{std:.2g}"
    digits = max(0, 1 - floor(log10(half)))
    return f"{mean:.{digits}f}", f"{half:.{digits}f}", f"{std:.{digits}f}"
