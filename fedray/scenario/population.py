"""`population`: how many clients there are, and how many take part in a round."""

from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Count, Positive, Section

MOST_CLIENTS = 1_000_000  # whose samples, places and turns are arrays in one process


class Population(Section):
    clients: Annotated[int, Field(ge=1, le=MOST_CLIENTS)]
    per_round: Count | None = None  # all of them
    # label_cover: clients whose labels together are nearest to evenly many of each, from the counts they
    # report. round_robin: one after another. proportional_fair: those whose uplink of this round fades least,
    # beside its own mean rate, as if the server foresaw it; an uplink of many coherence times has its mean
    # rate, and among equals chance decides. fedcs: those that finish first, as far as they meet
    # network.deadline_s (Nishio and Yonetani 2019).
    selection: Literal["random", "label_cover", "round_robin", "proportional_fair", "fedcs"] = "random"
    # more are asked, and the round ends with the first per_round of them
    over_select: Annotated[int, Field(ge=0, le=MOST_CLIENTS)] = 0
    # Counts are reported with Laplace noise of scale 1 / epsilon: epsilon-differentially private for each
    # sample.
    label_epsilon: Positive | None = None

    @property
    def asked(self) -> int:
        """Clients that are asked to train in a round."""
        return self.a_round + self.over_select

    @property
    def a_round(self) -> int:
        return self.per_round or self.clients
