"""`sweep`: variants of one scenario, each a run of its own under one folder."""

from typing import Annotated, Any, Literal

from pydantic import Field

from fedray.scenario.base import Count, Name, Positive, Section


class Sweep(Section):
    """Each variant changes some keys, as `--set` does: `full: {tuning: {kind: full}, training.rounds:
    10}`."""

    variants: Annotated[dict[Name, dict[str, Any]], Field(min_length=1, max_length=1000)]
    at_once: Count | Literal["auto"] = "auto"  # as many as fit on the cluster
    loss_targets: list[Positive] = []  # the report says what it took to reach each; empty: it chooses some
