"""Rules for adapters, w = W + s B A (s = alpha / rank): the mean of the products is not the product of the
means.

FedAvg on A and B (FedIT) is inexact by what the means leave out; so is HetLoRA, which weighs mixed ranks.
FFA-LoRA trains B alone, so its mean is exact. FedEx-LoRA adds what the means leave out to W; stacking
adds the whole mean product. Both are exact, with mixed ranks too, and send W's change down beside the
adapter, before it is scaled by s.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedray.aggregation.rule import Rule, State
from fedray.transport.buffer import Layout


@dataclass(frozen=True)
class Pair:
    """One layer's adapter in the flat buffer: A [rank, inputs], B [outputs, rank], and its product [outputs,
    inputs] among the products of all layers."""

    a: slice
    b: slice
    product: slice
    rank: int

    def multiply(self, flat: Tensor) -> Tensor:
        """B A, flat."""
        b, a = self._factors(flat)
        return (b @ a).flatten()

    def squared_length(self, flat: Tensor) -> Tensor:
        """|B A|^2 (Frobenius), which is trace(B' B A A'), without the product."""
        b, a = self._factors(flat)
        return ((b.T @ b) * (a @ a.T)).sum()

    def _factors(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        return flat[self.b].view(-1, self.rank), flat[self.a].view(self.rank, -1)


def pairs(layout: Layout) -> list[Pair]:
    """The adapters of a layout by layer, in its order."""
    places = {}
    offset = 0
    for name, size in zip(layout.names, layout.sizes, strict=True):
        places[name] = slice(offset, offset + size)
        offset += size
    result = []
    start = 0
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        if name.endswith(".lora_A.weight"):
            other = name.replace(".lora_A.", ".lora_B.")
            outputs = layout.shapes[layout.names.index(other)][0]
            end = start + outputs * math.prod(shape[1:])
            result.append(Pair(places[name], places[other], slice(start, end), shape[0]))
            start = end
    return result


class FfaLora(Rule):
    """FFA-LoRA (Sun et al. 2024): A stays as it was drawn and never travels (see tuning.lora), so averaging B
    is exact."""


class HetLora(Rule):
    """HetLoRA (Cho et al. 2024, Sec. 4.3): w_{t+1} = sum_k S_k w_k / sum_k S_k, where S_k = |B_k A_k|
    (Frobenius, over all layers) and w_k is padded with zeros to the global rank. Summed: S_k u_k, and S_k."""

    element_wise = False

    def __init__(self, section: Any, layout: Layout) -> None:
        super().__init__(section, layout)
        self.pairs = pairs(layout)
        self.summed = layout.numel + 1

    def contribution(self, received: Tensor, sent: Tensor) -> Tensor:
        local = received + sent
        length = torch.stack([pair.squared_length(local) for pair in self.pairs]).sum().clamp(min=0).sqrt()
        return torch.cat([length * sent, length[None]])

    def step(
        self, old: Tensor, combined: Tensor, state: State, participation: float, seed: int
    ) -> tuple[Tensor, State]:
        return (old + combined[:-1] / combined[-1] if combined[-1] else old), {}


class FedExLora(Rule):
    """FedEx-LoRA (Singhal et al. 2025): A and B are averaged, and W += s (mean(B_i A_i) - mean(B_i)
    mean(A_i)).

    Received: A, B, and W's change so far. Summed: the updates of A and B, and the products B_i A_i.
    """

    element_wise = False
    updates_base_weights = True

    def __init__(self, section: Any, layout: Layout) -> None:
        super().__init__(section, layout)
        self.pairs = pairs(layout)
        self.products = self.pairs[-1].product.stop if self.pairs else 0
        self.received = layout.numel + self.products
        self.summed = layout.numel + self.products

    def contribution(self, received: Tensor, sent: Tensor) -> Tensor:
        local = received[: self.layout.numel] + sent
        return torch.cat([sent, *(pair.multiply(local) for pair in self.pairs)])

    def step(
        self, old: Tensor, combined: Tensor, state: State, participation: float, seed: int
    ) -> tuple[Tensor, State]:
        n = self.layout.numel
        new = old[:n] + combined[:n]
        residual = combined[n:] - torch.cat([pair.multiply(new) for pair in self.pairs])
        return torch.cat([new, old[n:] + residual]), {}


class Flora(FedExLora):
    """Stacking (FLoRA, Wang et al. 2024): W += s mean(B_i A_i), the product of the stacked adapters, and
    every round begins with adapters drawn anew, B zero."""

    def __init__(self, section: Any, layout: Layout) -> None:
        super().__init__(section, layout)
        self.summed = self.products

    def contribution(self, received: Tensor, sent: Tensor) -> Tensor:
        return super().contribution(received, sent)[self.layout.numel :]

    def step(
        self, old: Tensor, combined: Tensor, state: State, participation: float, seed: int
    ) -> tuple[Tensor, State]:
        n = self.layout.numel
        draws = torch.Generator().manual_seed(seed)
        new = torch.zeros(n, dtype=old.dtype)
        for pair in self.pairs:  # as peft's "gaussian"
            size = pair.a.stop - pair.a.start
            new[pair.a] = torch.randn(size, generator=draws, dtype=old.dtype) / pair.rank
        return torch.cat([new, old[n:] + combined]), {}
