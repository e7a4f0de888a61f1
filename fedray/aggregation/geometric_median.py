"""RFA (Pillutla et al. 2022, Algorithm 2): the geometric median by the smoothed Weiszfeld algorithm."""

from torch import Tensor

from fedray.aggregation.accumulators import Updates
from fedray.aggregation.robust import WholeUpdateRule, distances, mean, weighted_sum


class GeometricMedian(WholeUpdateRule):
    """From the mean on, z = sum_i b_i x_i / sum_i b_i with b_i = 1 / max(nu, |z - x_i|), until a step is
    short. Few steps are not enough: each goes a part of the way only."""

    def combine(self, result: Updates) -> Tensor:
        values = result.values[:, 0]
        centre = mean(values)
        for _ in range(self.section.iterations):
            from_centre = distances(values, centre)
            weights = 1 / from_centre.clamp(min=self.section.eps)
            before = centre
            centre = weighted_sum(values, weights / weights.sum())
            if (centre - before).norm() <= self.section.tolerance * from_centre.mean():
                break
        return centre[None]
