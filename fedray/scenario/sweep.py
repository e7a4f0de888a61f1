"""`sweep`: variants of one scenario, each a run of its own under one folder."""

from typing import Annotated, Any, Literal

from pydantic import Field

from fedray.scenario.base import Count, Name, Positive, Section


class Sweep(Section):
    """Variants of this scenario, each of which changes some of its keys."""

    variants: Annotated[dict[Name, dict[str, Any]], Field(min_length=1, max_length=1000)] = Field(
        description="For each variant, by its name, the keys it changes, as --set does: {full: {tuning: "
        "{kind: full}, training.rounds: 10}}."
    )
    at_once: Count | Literal["auto"] = Field(
        default="auto",
        description="How many variants run at the same time. auto: as many as fit on the cluster.",
    )
    loss_targets: list[Positive] = Field(
        default=[],
        description="Losses for which the report says what each variant took to reach them. Empty: the "
        "report chooses some.",
    )
