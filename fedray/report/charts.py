"""The report's pictures, as SVG that takes its colours from the page: light and dark are the page's business.
Names that come from files are shown as they are written, whatever they hold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from fedray.network.geometry import Geometry
from fedray.report import levels
from fedray.report.drawing import INK, MUTED, colour, new_figure, short_name, svg
from fedray.report.numbers import SIGNED, interval, is_share, name
from fedray.report.recorded import KINDS, SMOOTHING, Recorded, metric_at
from fedray.scenario.base import Refused
from fedray.scenario.cell import Cell
from fedray.steps import SERVER_NODE, client_node
from fedray.terminal import size

KIND_COLOURS = {
    "training": 0,
    "downlink": 1,
    "sidelink": 2,
    "uplink": 3,
    "server": 4,
    "painting": 5,
    "validation": 6,
    "waiting": 7,
    "backhaul": 5,
}

AXES = {"rounds": "rounds", "bytes": "bytes on air", "seconds": "simulated time", "joules": "energy"}
GANTT = 300  # steps that a picture of a round shows
UNITS = {"bytes": "B", "seconds": "s", "joules": "J"}
AXES_WIDTH = 270  # points of a picture 4.6 inches wide, without its axis
WIDE_BAR = 36  # points that a number such as 12.3 MB takes
NARROW_BAR = 8  # points that it takes upright


def curves(runs: Sequence[Recorded], key: str, axis: str, legend: bool = False) -> str:
    """A metric of all runs against one axis, with its floor where one was measured.

    Args:
        runs: each has its colour.
        key: the metric's, of metrics.jsonl.
        axis: one of AXES.
        legend: whether the picture itself says which colour is which run; the report says it beside.
    """
    with new_figure(4.6, 2.7) as (figure, ax):
        for i, run in enumerate(runs):
            x, y = run.series(key, axis)
            dense = key == "loss" and len(x) > 2 * SMOOTHING
            look: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.45} if dense else {"linewidth": 1.8}
            # behind a space, as matplotlib leaves out labels that begin with an underscore
            look["label"] = f" {short_name(run.name)}"
            ax.plot(x, y, color=colour(i), marker="" if len(x) > 30 else "o", ms=3, **look)
            if dense:
                smooth = list(run.smooth_loss())
                ax.plot(
                    [metric_at(row, axis) for row, _ in smooth],
                    [loss for _, loss in smooth],
                    color=colour(i),
                    linewidth=1.9,
                )
            _intervals(ax, run, key, axis, colour(i))
        if runs:
            levels.draw(ax, runs[0], key, MUTED)
        label_axes(ax, key, axis)
        if legend:
            ax.legend(frameon=False, fontsize=8, labelcolor=INK)
        if is_share(key):
            ax.set_ylim(0, min(1.05, 1.08 * ax.get_ylim()[1]))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0%}"))
        elif key.startswith("eval_") and key not in SIGNED:
            ax.set_ylim(bottom=0)
        return svg(figure, f"{name(key)} against {AXES[axis]}")


def label_axes(ax: Any, key: str, axis: str) -> None:
    """Units, and the places at which a metric's picture against one axis has numbers."""
    ax.set_xlabel(AXES[axis], color=MUTED)
    if axis == "rounds":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: size(v, UNITS[axis])))
        ax.xaxis.set_major_locator(MaxNLocator(5))


def _intervals(ax: Any, run: Recorded, key: str, axis: str, hue: str) -> None:
    """A share's 95% interval at each point, where its number of trials is known."""
    result = [
        (0.0 if i == 0 else metric_at(row, axis), interval(key, row))
        for i, row in enumerate((run.baseline, *run.rows))
    ]
    for x, one in result:
        if one is not None:
            ax.vlines(x, one[1], one[2], color=hue, linewidth=1.1, alpha=0.55)


def gantt(events: Sequence[dict[str, Any]]) -> str:
    """One round: a row a node, a bar a step, an arrow from the end of a transfer to who receives it. Hatched:
    in vain. Empty where nothing happened."""
    events = [e for e in events if e["outcome"] != "skipped" and e["event"] != "wait"]
    if not events:
        return ""
    nodes = sorted(
        {e["node"] for e in events} | {e["peer"] for e in events if e["peer"]},
        key=lambda n: (n != "server", len(n), n),
    )
    shown = nodes if len(nodes) <= 25 else [*nodes[:24], "others"]
    row = {n: shown.index(n) if n in shown else len(shown) - 1 for n in nodes}
    t0 = min(e["t0_s"] for e in events)
    # what is late goes on and on
    t1 = max([e["t1_s"] for e in events if e["event"] == "aggregate"] or [e["t1_s"] for e in events])
    if len(events) > GANTT:  # of a split round, its first batches
        t1 = sorted(e["t1_s"] for e in events)[GANTT]
        events = [e for e in events if e["t0_s"] < t1]
    least = (t1 - t0) / 250  # a turn that takes no time beside its hops is still seen
    with new_figure(9.6, 0.9 + 0.3 * len(shown)) as (figure, ax):
        for e in events:
            kind = KINDS[e["direction"] or e["event"]]
            start = e["t0_s"] - t0
            width = max(e["t1_s"] - e["t0_s"], least)
            hue = colour(KIND_COLOURS[kind])
            missed = e["outcome"] != "done"
            look = {"facecolor": "none", "edgecolor": hue, "hatch": "////"} if missed else {"color": hue}
            ax.barh(row[e["node"]], width, left=start, height=0.62, linewidth=0.8 * missed, **look)
            if e["peer"] and e["outcome"] in ("done", "late"):
                end = e["t1_s"] - t0
                arrow = {
                    "arrowstyle": "-|>",
                    "color": MUTED,
                    "linewidth": 0.7,
                    "shrinkA": 0,
                    "shrinkB": 2,
                    "mutation_scale": 7,
                }
                ax.annotate("", (end, row[e["peer"]]), (end, row[e["node"]]), arrowprops=arrow)
        ax.set_yticks(range(len(shown)), shown)
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
        ax.set_xlim(0, (t1 - t0) * 1.01 or 1)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: size(v, "s")))
        ax.set_xlabel("simulated time since the round began", color=MUTED)
        return svg(figure, "timeline of a round")


def to_reach(runs: Sequence[Recorded], targets: Sequence[float], axis: str) -> str:
    """What each run had spent when it reached each loss (huang2023, Fig. 3b), on a logarithmic scale. Numbers
    stand above bars that are wide enough, upright above narrower ones, and not above the narrowest."""
    with new_figure(4.6, 2.7) as (figure, ax):
        width = 0.8 / len(runs)
        room = AXES_WIDTH * width / len(targets)  # points
        upright = room < WIDE_BAR
        for i, run in enumerate(runs):
            for j, target in enumerate(targets):
                if (row := run.reached(target)) is None:
                    continue
                value = metric_at(row, axis)
                x = j + (i - (len(runs) - 1) / 2) * width
                ax.bar(x, value, width * 0.92, color=colour(i), linewidth=0)
                if room >= NARROW_BAR:
                    look: dict[str, Any] = {
                        "rotation": 90 if upright else 0,
                        "fontsize": 7 if upright else 7.5,
                    }
                    place = {"textcoords": "offset points", "ha": "center", "va": "bottom", "color": INK}
                    ax.annotate(size(value, UNITS[axis]), (x, value), (0, 2 * upright), **place, **look)
        ax.set_yscale("log")
        ax.margins(y=0.45 if upright and room >= NARROW_BAR else 0.18)
        ax.set_xticks(range(len(targets)), [f"{t:g}" for t in targets])
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: size(v, UNITS[axis])))
        if room >= NARROW_BAR:
            ax.yaxis.set_minor_formatter(FuncFormatter(lambda v, _: ""))
        else:  # where the axis alone says how much it is
            ax.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
            ax.yaxis.set_minor_formatter(FuncFormatter(lambda v, _: size(v, UNITS[axis])))
        ax.set_xlabel("training loss reached", color=MUTED)
        return svg(figure, f"{AXES[axis]} to reach a training loss")


CLIENTS = 100  # that a picture has room for


def partition(census: dict[str, Any]) -> str:
    """Who holds how much of which label, a column a client, in the order of their distances, which stand
    below."""
    order = sorted((k for k, d in enumerate(census["emd"]) if d is not None), key=lambda k: census["emd"][k])
    shown = [order[round(i)] for i in np.linspace(0, len(order) - 1, min(CLIENTS, len(order)))]
    most = max(max(census["counts"][k]) for k in shown)
    with new_figure(9.6, 1.6 + 0.24 * len(census["labels"]), 2) as (figure, (dots, bars)):
        room = min(900 / len(shown), 16)  # points across the largest dot
        points = [(x, y, n) for x, k in enumerate(shown) for y, n in enumerate(census["counts"][k]) if n]
        dots.scatter(
            *zip(*((x, y) for x, y, _ in points), strict=True),
            s=[room**2 * n / most for *_, n in points],
            color=colour(0),
            lw=0,
        )
        dots.set_yticks(range(len(census["labels"])), [short_name(label) for label in census["labels"]])
        dots.set_ylim(len(census["labels"]) - 0.3, -0.7)
        bars.bar(range(len(shown)), [census["emd"][k] for k in shown], color=colour(1), linewidth=0)
        bars.set_ylim(0, 2)
        bars.set_ylabel("EMD", color=MUTED)
        bars.set_xlabel(f"{len(shown)} clients of {len(census['emd'])}, by their distance", color=MUTED)
        for ax in (dots, bars):
            ax.set_xticks(range(len(shown)) if len(shown) <= 25 else [], shown if len(shown) <= 25 else [])
            ax.set_xlim(-0.7, len(shown) - 0.3)
            ax.grid(axis="x", visible=False)
        return svg(figure, "labels of each client")


def places(run: Recorded) -> str:
    """The cell from above in the first round: the server, the devices, and the links over which something
    went. A cross: in vain. Empty where nothing was sent, or where a file with the devices' ways is gone."""
    scenario = run.scenario
    t = run.events[0]["round"]
    events = [e for e in run.events if e["round"] == t and e["event"] == "send" and e["outcome"] != "skipped"]
    events = [e for e in events if e["direction"] != "backhaul"]
    if not events:
        return ""
    cell = Cell.model_validate(scenario["network"]["cell"])
    clients = scenario["population"]["clients"]
    try:
        at = Geometry(cell, clients, scenario["seed"]).at(events[0]["t0_s"])
    except Refused:  # the file of their ways has gone since
        return ""
    edges = {node for e in events for node in (e["node"], e["peer"]) if node.startswith("edge-")}
    where = dict.fromkeys({SERVER_NODE, *edges}, np.zeros(2)) | {
        client_node(k): place for k, place in enumerate(at)
    }
    with new_figure(5.6, 4.6) as (figure, ax):
        ax.scatter(*at.T, s=10, color=MUTED, linewidth=0, alpha=0.6)
        for e in sorted(events, key=lambda e: e["direction"] == "sidelink"):
            x0, y0 = where[e["node"]]
            x1, y1 = where[e["peer"]]
            hue = colour(KIND_COLOURS[e["direction"]])
            if e["direction"] == "sidelink":
                arrow = {
                    "arrowstyle": "-|>",
                    "color": hue,
                    "linewidth": 1.4,
                    "shrinkA": 3,
                    "shrinkB": 3,
                    "mutation_scale": 9,
                }
                ax.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
            else:
                ax.plot(
                    [x0, x1],
                    [y0, y1],
                    color=hue,
                    linewidth=0.8,
                    alpha=0.7,
                    linestyle="-" if e["outcome"] == "done" else ":",
                )
            if e["outcome"] != "done":
                ax.scatter([(x0 + x1) / 2], [(y0 + y1) / 2], marker="x", s=26, color=hue)
        active = np.array(
            [
                where[node]
                for node in {n for e in events for n in (e["node"], e["peer"])} - {SERVER_NODE, *edges}
            ]
        )
        ax.scatter(*active.T, s=26, color=colour(0), linewidth=0, zorder=3)
        ax.scatter(0, 0, marker="s", s=60, color=INK, zorder=4)
        ax.annotate("server", (0, 0), (5, 5), textcoords="offset points", color=INK, fontsize=8)
        ax.set_aspect("equal", adjustable="datalim")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g} m"))
            axis.set_major_locator(MaxNLocator(5))
        return svg(figure, "map of the cell")


def rates(by_direction: dict[str, list[float]]) -> str:
    """How many transfers had at most a rate."""
    with new_figure(4.6, 2.7) as (figure, ax):
        for direction, values in by_direction.items():
            share = np.arange(1, len(values) + 1) / len(values)
            ax.step(
                [values[0], *values],
                [0.0, *share],
                where="post",
                color=colour(KIND_COLOURS[direction]),
                linewidth=1.8,
            )
        ax.set_xscale("log")
        ax.set_ylim(0, 1.02)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0%}"))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: size(v, "bit/s")))
        low, high = ax.get_xlim()
        if high < 200 * low:  # over more decades, numbers between them would stand on one another
            ax.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            ax.xaxis.set_minor_formatter(FuncFormatter(lambda v, _: size(v, "bit/s")))
        ax.tick_params(axis="x", which="both", labelsize=7.5)
        ax.set_xlabel("rate of a transfer", color=MUTED)
        ax.set_ylabel("transfers at most as fast", color=MUTED)
        return svg(figure, "distribution of rates")
