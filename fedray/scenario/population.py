"""`population`: how many clients there are, and how many take part in a round."""

from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Count, Positive, Section

MOST_CLIENTS = 1_000_000  # whose samples, places and turns are arrays in one process


class Population(Section):
    """The clients there are, and those that take part in a round."""

    clients: Annotated[int, Field(ge=1, le=MOST_CLIENTS)] = Field(description="How many clients there are.")
    per_round: Count | None = Field(
        default=None, description="How many clients take part in a round. None: all of them."
    )
    selection: Literal["random", "label_cover", "round_robin", "proportional_fair", "fedcs"] = Field(
        default="random",
        description="How a round's clients are chosen. random: each with the same probability. label_cover: "
        "those whose labels together are nearest to equally many of each, by the counts that clients "
        "report. round_robin: one after another. proportional_fair: those whose uplink in this round is "
        "fastest in proportion to its own mean rate, as if the server knew it beforehand; an uplink of many "
        "coherence times has its mean rate, and among equals chance decides. fedcs: those that finish "
        "first, as many as meet network.deadline_s (Nishio and Yonetani 2019).",
    )
    over_select: Annotated[int, Field(ge=0, le=MOST_CLIENTS)] = Field(
        default=0,
        description="How many clients more than per_round are selected; the round ends with the first "
        "per_round of them.",
    )
    label_epsilon: Positive | None = Field(
        default=None,
        description="Clients report their counts of labels with Laplace noise of scale 1 / label_epsilon, "
        "which is label_epsilon-differentially private for each sample. None: without noise.",
    )

    @property
    def asked(self) -> int:
        """Clients that are asked to train in a round."""
        return self.a_round + self.over_select

    @property
    def a_round(self) -> int:
        return self.per_round or self.clients
