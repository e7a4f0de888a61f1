"""`population`: how many clients there are, and how many take part in a round."""

from fedray.scenario.base import Count, Section


class Population(Section):
    clients: Count
    per_round: Count | None = None  # all of them

    @property
    def a_round(self) -> int:
        return self.per_round or self.clients
