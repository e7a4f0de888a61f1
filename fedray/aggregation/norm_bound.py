"""Norm bounding (Sun et al. 2019, Sec. 3): the mean of u_i min(1, M / |u_i|)."""

import numpy as np
from torch import Tensor

from fedray.aggregation.accumulators import Updates
from fedray.aggregation.robust import WholeUpdateRule, clip_factors, lengths, weighted_sum


class NormBound(WholeUpdateRule):
    """Updates are scaled down to the bound, a number or the median of their lengths."""

    def combine(self, result: Updates) -> Tensor:
        values = result.values[:, 0]
        sizes = lengths(values)
        bound = self.section.bound
        if bound == "median":
            bound = float(np.median(sizes.numpy()))
        return weighted_sum(values, clip_factors(sizes, bound) / len(values))[None]
