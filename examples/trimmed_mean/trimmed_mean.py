"""A rule of one's own: the coordinate-wise trimmed mean (Yin et al. 2018, Definition 2)."""

from typing import Literal

from pydantic import Field
from torch import Tensor

import fedray


class TrimmedMean(fedray.Rule):
    """Each number's mean over the clients, without its smallest and its largest values."""

    class Section(fedray.Rule.Section):
        trim: float = Field(
            default=0.2, ge=0, lt=0.5, description="The share of the clients that is left out at each end."
        )
        weighting: Literal["uniform"] = "uniform"  # all clients count the same

    accumulator = fedray.Gathered  # keeps every client's update, where a sum would lose them

    def combine(self, result: fedray.Updates) -> Tensor:
        ordered = result.values.sort(dim=0).values.double()  # [clients, rows, numbers]
        n = len(ordered)
        cut = int(self.section.trim * n)
        return ordered[cut : n - cut].mean(dim=0)
