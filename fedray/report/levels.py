"""Levels that a metric is compared with: its floor, where one was measured, or what fixed rules reach."""

from typing import Any

from fedray.report.numbers import SIGNED, floor_of
from fedray.report.recorded import Recorded


def rules(run: Recorded) -> list[str]:
    """The names of the rules beside which a run's agent is measured."""
    chosen = run.scenario["model"].get("rules") or []
    return [rule["kind"].rpartition(":")[2] for rule in chosen]


def belongs_to_rule(run: Recorded, key: str) -> bool:
    """Whether a metric is a rule's, and not the model's."""
    return any(key.endswith(f"_{rule}") for rule in rules(run))


def levels(run: Recorded, key: str) -> list[tuple[str, float]]:
    """Each level of a metric, with its name."""
    rows = (run.baseline, *run.rows)

    def measured(level: str) -> float | None:
        return next((value for row in rows if (value := row.get(level)) is not None), None)

    if (floor := measured(f"{key}_floor")) is not None:
        return [(f"floor: {floor_of(key)}", floor)]
    known = {rule: measured(f"{key}_{rule}") for rule in rules(run)}
    return [(rule.replace("_", " "), value) for rule, value in known.items() if value is not None]


def draw(ax: Any, run: Recorded, key: str, hue: str) -> None:
    """Dashed lines at a metric's levels. One is named above the picture, where no curve can cross it; several
    at their ends.

    Args:
        ax: matplotlib's axes.
        run: whose.
        key: the metric's.
        hue: the lines' colour.
    """
    known = levels(run, key)
    for _, value in known:
        ax.axhline(value, color=hue, linewidth=1, linestyle=(0, (4, 3)))
    if len(known) == 1:
        ax.set_title(f"- - -  {known[0][0]}", loc="right", color=hue, fontsize=8)
        return
    low, high = ax.get_ylim()
    low = low if key in SIGNED else 0.0  # where the scale will begin
    lowest = low
    for name, value in sorted(known, key=lambda level: level[1]):
        place = max(value, lowest)  # names of levels that are near to one another stand one above the other
        lowest = place + 0.06 * (high - low)
        ax.annotate(
            name, (1.01, place), xycoords=("axes fraction", "data"), color=hue, fontsize=7, va="center"
        )
