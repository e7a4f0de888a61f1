"""The coordinate-wise trimmed mean (Yin et al. 2018, Definition 2)."""

from torch import Tensor

from fedray.aggregation.accumulators import Updates
from fedray.aggregation.robust import RobustRule


class TrimmedMean(RobustRule):
    """Each number's mean over the clients, without the `trim` largest and the `trim` smallest values."""

    def combine(self, result: Updates) -> Tensor:
        ordered = result.values.sort(dim=0).values
        trim = self.section.trim
        return ordered[trim : len(ordered) - trim].double().mean(0)
