"""SCAFFOLD (Karimireddy et al. 2020, Algorithm 1, Option II): control variates c of the server and c_i of
each client.

Client i steps along g_i - c_i + c, and after K steps of size eta sets c_i+ = c_i - c + (x - y_i) / (K eta).
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fedray.aggregation.rule import AdjustGradient, Rule, State
from fedray.transport.buffer import Layout


class Scaffold(Rule):
    """x and c go down, their changes up. A client keeps c_i, zero until its first turn."""

    def __init__(self, section: Any, layout: Layout) -> None:
        super().__init__(section, layout)
        self.received = self.sent = self.summed = 2 * layout.numel

    @property
    def client_state_numbers(self) -> int:
        return self.layout.trained

    def on_client_start(
        self, start: Tensor, extra: Tensor, state: Mapping[str, Tensor]
    ) -> AdjustGradient | None:
        self._correction = extra[: len(start)] - state.get("control", torch.zeros_like(start))  # c - c_i

        def adjust(gradient: Tensor, weights: Tensor) -> None:
            gradient.add_(self._correction)

        return adjust

    def on_client_end(
        self, start: Tensor, end: Tensor, steps: int, learning_rate: float, state: Mapping[str, Tensor]
    ) -> tuple[Tensor | None, State]:
        new = (start - end) / (steps * learning_rate) - self._correction
        change = new - state.get("control", torch.zeros_like(start))
        return F.pad(change, (0, self.layout.numel - len(change))), {"control": new}

    def step(
        self, old: Tensor, combined: Tensor, state: State, participation: float, seed: int
    ) -> tuple[Tensor, State]:
        """x += eta_g mean(dy), c += |S| / N mean(dc).

        Args:
            old: the server's numbers [received] fp32.
            combined: the mean contribution [received].
            state: the rule's.
            participation: clients of the round, as a share of all.
            seed: of the rule's draws; there are none.
        """
        scale = torch.tensor([[self.section.server_learning_rate], [participation]], dtype=torch.float64)
        return old + scale * combined, {}
