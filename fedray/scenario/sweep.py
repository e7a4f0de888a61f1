"""`sweep`: variants of one scenario, each a run of its own under one folder."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from fedray.scenario.base import Count, Name, Positive, Refused, Section

MOST_RUNS = 1000  # of a sweep


class Sweep(Section):
    """Variants of this scenario, each of which changes some of its keys: those that are named, every
    combination of a grid, or both together; each of them under several seeds, where there are some."""

    variants: Annotated[dict[Name, dict[str, Any]], Field(min_length=1, max_length=MOST_RUNS)] = Field(
        default={},
        description="For each variant, by its name, the keys it changes, as --set does: {full: {tuning: "
        "{kind: full}, training.rounds: 10}}. Not given: the scenario as it is, with a grid or seeds.",
    )
    grid: Annotated[
        dict[str, Annotated[list[Any], Field(min_length=1, max_length=MOST_RUNS)]], Field(min_length=1)
    ] = Field(
        default={},
        description="Keys, each with a list of values: every combination of them is a variant, and of each "
        "of `variants` one, where these are given: {training.optimizer.learning_rate: [0.01, 0.1], "
        "tuning.rank: [4, 8]}. Not given: no grid.",
    )
    seeds: Annotated[list[int], Field(min_length=1, max_length=MOST_RUNS)] | Count | None = Field(
        default=None,
        description="Every variant runs under each of these seeds, and the report gives means over them with "
        "their standard deviations and 95 % confidence intervals. A number: as many, from the scenario's own "
        "seed upwards. None: its own seed alone.",
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

    def seeds_from(self, first: int) -> list[int]:
        """The seeds of every variant; empty where each has its own. `first` is the scenario's."""
        if isinstance(self.seeds, int):
            return list(range(first, first + self.seeds))
        return self.seeds or []

    @property
    def lists_runs(self) -> bool:
        """Whether its variants are named one by one, and nothing multiplies them."""
        return not self.grid and self.seeds is None

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.lists_runs and not self.variants:
            yield Refused("sweep", "neither variants, nor a grid, nor seeds", "at least one of them")
