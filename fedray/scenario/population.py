"""`population`: how many clients there are, and how many take part in a round."""

from typing import Literal

from fedray.scenario.base import Count, Positive, Section


class Population(Section):
    clients: Count
    per_round: Count | None = None  # all of them
    # label_cover: clients whose labels together are nearest to evenly many of each, from the counts they report.
    selection: Literal["random", "label_cover"] = "random"
    # Counts are reported with Laplace noise of scale 1 / epsilon: epsilon-differentially private for each sample.
    label_epsilon: Positive | None = None

    @property
    def a_round(self) -> int:
        return self.per_round or self.clients
