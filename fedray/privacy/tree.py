"""DP-FTRL's tree aggregation (Kairouz et al. 2021, Algorithm 1): the noise on the sum of all rounds so far is
that of the few nodes of a binary tree that cover them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fedray.privacy.central import Central
from fedray.privacy.noise import gaussian
from fedray.randomness import SERVER, key
from fedray.transport.hooks import HookContext

Node = tuple[int, int]  # its height, from 0, and its place among those of its height


class Tree(Central):
    """Adds to a round's sum what the noise of the sum of all rounds so far has changed by. Each node's noise
    is drawn anew from its own key, so that nothing is kept between rounds."""

    def on_combined(self, combined: Tensor, part: slice, context: HookContext) -> Tensor:
        now = set(covering(context.round_number))
        before = set(covering(context.round_number - 1))
        change = torch.zeros(combined.numel(), dtype=torch.float64)
        for node in sorted(now - before):
            change += self._noise_of(node, combined.numel(), part, context)
        for node in sorted(before - now):
            change -= self._noise_of(node, combined.numel(), part, context)
        scale = self.multiplier * self.section.clip_norm
        total = combined * context.added + scale * change.view(combined.shape)
        return total / self.expected_updates

    def _noise_of(self, node: Node, n: int, part: slice, context: HookContext) -> Tensor:
        """[n] float64, the same in every round that needs it."""
        height, place = node
        return gaussian(n, "seed", key(context.seed, 0, SERVER, f"tree {height} {place} {part.start}"))


def covering(rounds: int) -> Iterator[Node]:
    """The nodes that cover the first rounds: one for each bit of their number."""
    start = 0
    for height in reversed(range(rounds.bit_length())):
        if rounds >> height & 1:
            yield height, start >> height
            start += 1 << height
