"""An update is clipped, thinned out or quantized before it is sent; bytes are really made."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedray.scenario.kinds import implementation
from fedray.scenario.scenario import Scenario
from fedray.transport.buffer import DTYPES
from fedray.transport.hooks import Codec, Hook, HookChain, HookContext, as_bytes


class Clip(Hook):
    """An update that is longer than `norm` is scaled down to it."""

    def __init__(self, section: Any) -> None:
        super().__init__(section)
        self.largest_norm = section.norm

    def on_client(self, update: Tensor, context: HookContext) -> Tensor:
        length = float(update.norm())
        return update * (self.section.norm / length) if length > self.section.norm else update


class RandomK(Codec):
    """A fraction of numbers, at places that both ends draw from the seed."""

    def left(self, n: int) -> int:
        return max(1, round(self.section.fraction * n))

    def header_bytes(self, n: int) -> int:
        return 0

    def encode(self, values: Tensor, seed: int) -> tuple[np.ndarray, Tensor]:
        return np.empty(0, np.uint8), values[self._places(len(values), seed)]

    def decode(self, header: np.ndarray, values: Tensor, n: int, seed: int) -> Tensor:
        return _scattered(values, self._places(n, seed), n)

    def _places(self, n: int, seed: int) -> Tensor:
        """[left] int64, sorted."""
        return torch.from_numpy(np.sort(np.random.default_rng(seed).choice(n, self.left(n), replace=False)))


class TopK(Codec):
    """The fraction of numbers with the largest magnitude. Their places go as 32 bits each, or as a bit for
    every number where that is shorter."""

    def left(self, n: int) -> int:
        return max(1, round(self.section.fraction * n))

    def header_bytes(self, n: int) -> int:
        return min(4 * self.left(n), -(-n // 8))

    def encode(self, values: Tensor, seed: int) -> tuple[np.ndarray, Tensor]:
        n = len(values)
        places = values.abs().topk(self.left(n)).indices.sort().values
        if self._as_bits(n):
            header = np.packbits(np.isin(np.arange(n), places.numpy(), assume_unique=True))
        else:
            header = places.numpy().astype("<u4").view(np.uint8)
        return header, values[places]

    def decode(self, header: np.ndarray, values: Tensor, n: int, seed: int) -> Tensor:
        if self._as_bits(n):
            return _scattered(values, torch.from_numpy(np.flatnonzero(np.unpackbits(header, count=n))), n)
        return _scattered(values, torch.from_numpy(np.array(header).view("<u4").astype(np.int64)), n)

    def _as_bits(self, n: int) -> bool:
        return 4 * self.left(n) > -(-n // 8)


class Quantize(Codec):
    """q = floor(v / scale * levels + u), u uniform in 0..1: right in the mean. A block's scale is its largest
    magnitude."""

    @property
    def levels(self) -> int:
        """Steps on each side of zero."""
        return int(2 ** (self.section.bits - 1) - 1)

    def left(self, n: int) -> int:
        return 0

    def header_bytes(self, n: int) -> int:
        return 4 * self._blocks(n) + -(-n * self.section.bits // 8)

    def encode(self, values: Tensor, seed: int) -> tuple[np.ndarray, Tensor]:
        block = min(self.section.block, len(values))
        blocks = torch.nn.functional.pad(values, (0, -len(values) % block)).view(-1, block)
        scales = blocks.abs().amax(1, keepdim=True)
        u = torch.rand(blocks.shape, generator=torch.Generator().manual_seed(seed))
        tiny = torch.finfo(torch.float32).tiny
        whole = (blocks / scales.clamp(min=tiny) * self.levels + u).floor().clamp(-self.levels, self.levels)
        q = (whole.to(torch.int8).flatten()[: len(values)].numpy() + self.levels).astype(np.uint8)
        if self.section.bits == 4:
            q = np.pad(q, (0, len(q) % 2))
            q = (q[::2] | q[1::2] << 4).astype(np.uint8)
        return np.concatenate([as_bytes(scales), q]), torch.empty(0)

    def decode(self, header: np.ndarray, values: Tensor, n: int, seed: int) -> Tensor:
        end = 4 * self._blocks(n)
        scales = torch.from_numpy(np.array(header[:end])).view(torch.float32)
        q = header[end:]
        if self.section.bits == 4:
            q = np.stack([q & 15, q >> 4], axis=1).ravel()[:n]
        each = scales.repeat_interleave(min(self.section.block, n))[:n]
        return (torch.from_numpy(q.astype(np.float32)) - self.levels) / self.levels * each

    def _blocks(self, n: int) -> int:
        return -(-n // self.section.block)


def _scattered(values: Tensor, places: Tensor, n: int) -> Tensor:
    """[n], the values [k] at these places [k], and zeros."""
    whole = torch.zeros(n)
    whole[places] = values
    return whole


def hook_chain(scenario: Scenario) -> HookChain:
    """What is done to a scenario's updates: its transforms, then what makes them private, and the codecs."""
    chain = hooks(scenario.aggregation.transforms)
    privacy = scenario.privacy
    if privacy is not None and not privacy.in_local_update:
        chain.append(implementation(privacy)(privacy, scenario))
    # symbols that add up on the air are numbers, which no format on the air rounds
    dtype = torch.float32 if scenario.network.uplink.superposes else DTYPES[scenario.payload]
    return HookChain(chain, dtype, scenario.aggregation.feeds_back)


def hooks(sections: Sequence[Any]) -> list[Hook]:
    """The hooks that a scenario names, in its order."""
    return [implementation(section)(section) for section in sections]


def codecs(sections: Sequence[Any]) -> list[Codec]:
    """Those of them that write numbers as bytes."""
    return [hook for hook in hooks(sections) if isinstance(hook, Codec)]
