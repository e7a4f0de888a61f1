"""What a report shows of runs in which clients do not wait for each other (`topology.mode`)."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedray.report.drawing import INK, MUTED, colour, new_figure, short_name, svg
from fedray.report.recorded import Recorded


class Update(NamedTuple):
    """An update that arrived: of which client, how long its round took, how stale it was, and whether it was
    taken."""

    client: int
    seconds: float
    staleness: int
    taken: bool


def updates(events: Sequence[dict[str, Any]]) -> list[Update]:
    """The updates of a timeline. An update's model is the newest that was there when its client began."""
    made_s = [e["t1_s"] for e in events if e["event"] == "aggregate"]
    begun_s = {(e["round"], e["peer"]): e["t0_s"] for e in events if e["direction"] == "downlink"}
    arrived = []
    for e in events:
        start_s = begun_s.get((e["round"], e["node"]))
        if e["direction"] != "uplink" or e["outcome"] not in ("done", "stale") or start_s is None:
            continue
        staleness = e["round"] - 1 - bisect_right(made_s, start_s)
        arrived.append(Update(e["client"], e["t1_s"] - start_s, staleness, e["outcome"] == "done"))
    return arrived


def slowest_quarter(arrived: Sequence[Update]) -> float:
    """The share of the updates that were taken which are of the slowest quarter of clients, by the mean
    seconds of a client's round."""
    seconds: dict[int, list[float]] = defaultdict(list)
    for update in arrived:
        seconds[update.client].append(update.seconds)
    by_speed = sorted(seconds, key=lambda client: (-fmean(seconds[client]), client))
    slow = set(by_speed[: max(1, round(len(by_speed) / 4))])
    taken = [update for update in arrived if update.taken]
    return sum(update.client in slow for update in taken) / max(1, len(taken))


def shown(runs: Sequence[Recorded]) -> bool:
    """Whether some run is asynchronous."""
    return any(run.scenario["topology"].get("mode") and run.events for run in runs)


def table(runs: Sequence[Recorded]) -> list[tuple[str, list[str]]]:
    """A row a quantity, a column a run; nothing where no run is asynchronous. Of topologies other than
    parallel, in which clients do not each get the server's model, the cells are empty."""
    if not shown(runs):
        return []
    columns = [_cells(run) if _may_wait(run) else {} for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, "") for column in columns]) for name in names]


def _may_wait(run: Recorded) -> bool:
    """Whether a run's topology is one that may be asynchronous."""
    return "mode" in run.scenario["topology"]


def _cells(run: Recorded) -> dict[str, str]:
    arrived = updates(run.events)
    ages = [update.staleness for update in arrived if update.taken] or [0]
    last_s = max((e["t1_s"] for e in run.events if e["event"] == "aggregate"), default=0.0)
    return {
        "server steps": str(len({e["round"] for e in run.events})),
        "updates taken": str(sum(update.taken for update in arrived)),
        "thrown away, too stale": str(sum(not update.taken for update in arrived)),
        "simulated seconds an update": f"{last_s / max(1, len(arrived)):.3g}",
        "mean staleness": f"{fmean(ages):.2f}",
        "largest staleness": str(max(ages)),
        "updates of the slowest quarter of clients": f"{slowest_quarter(arrived):.0%}",
    }


def picture(runs: Sequence[Recorded]) -> str:
    """How many of each run's updates have which staleness; empty where no run is asynchronous."""
    if not shown(runs):
        return ""
    with new_figure(9.6, 2.9) as (figure, ax):
        for i, run in enumerate(runs):
            if not _may_wait(run):
                continue
            counts = Counter(update.staleness for update in updates(run.events) if update.taken)
            total = max(1, sum(counts.values()))
            ages = range(max(counts, default=0) + 2)
            shares = [counts[age] / total for age in ages]
            ax.step(ages, shares, where="mid", color=colour(i), linewidth=1.6, label=short_name(run.name))
        ax.set_xlim(left=-0.5)
        ax.set_ylim(bottom=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0%}"))
        ax.set_xlabel("staleness: server steps between a client's model and its update", color=MUTED)
        ax.set_ylabel("of updates", color=INK)
        return svg(figure, "staleness of updates")
