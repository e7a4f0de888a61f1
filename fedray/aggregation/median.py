"""The coordinate-wise median (Yin et al. 2018, Definition 1): up to half of the clients may send anything."""

from torch import Tensor

from fedray.aggregation.accumulators import Updates
from fedray.aggregation.robust import RobustRule


class Median(RobustRule):
    """Each number's median over the clients, who all count the same; of an even number of them the mean of
    the two in the middle."""

    def combine(self, result: Updates) -> Tensor:
        ordered = result.values.sort(dim=0).values.double()
        n = len(ordered)
        return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
