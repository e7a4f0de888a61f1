"""Centered clipping (Karimireddy et al. 2021, Eq. 2)."""

import torch
from torch import Tensor

from fedray.aggregation.accumulators import Updates
from fedray.aggregation.robust import WholeUpdateRule, clip_factors, distances, weighted_sum
from fedray.aggregation.rule import State

CENTRE = "centre"


class CenteredClipping(WholeUpdateRule):
    """v_{l+1} = v_l + 1/n sum_i (u_i - v_l) min(1, tau / |u_i - v_l|). A round begins with the v that the
    last one ended with, the first one with zeros."""

    def combine_with_state(self, result: Updates, state: State) -> tuple[Tensor, State]:
        values = result.values[:, 0]
        centre = state.get(CENTRE, torch.zeros(values.shape[1], dtype=torch.float64))
        for _ in range(self.section.iterations):
            factors = clip_factors(distances(values, centre), self.section.tau) / len(values)
            centre = weighted_sum(values, factors) + (1 - factors.sum()) * centre
        return centre[None], {CENTRE: centre}

    def server_bytes(self, updates: int, clients: int) -> int:
        return super().server_bytes(updates, clients) + 8 * self.summed
