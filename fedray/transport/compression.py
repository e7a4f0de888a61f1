"""What is done to an update before it is sent: clipped, thinned out, quantized, in this order; bytes are
really made.

Both ends know the layout and the seed, so the bytes hold nothing but numbers: places (where top_k chose
them), scales (where quantized), values.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedray.scenario.aggregation import Clip, Quantize, RandomK, TopK, Transform


def clip(transforms: Sequence[Transform], update: Tensor) -> Tensor:
    """The update [n], or as much of it as is no longer than the least norm asked for."""
    norm = _norm(transforms)
    length = float(update.norm())
    return update * (norm / length) if length > norm else update


def through(
    transforms: Sequence[Transform], update: Tensor, dtype: torch.dtype, seed: int
) -> tuple[Tensor, Tensor]:
    """What arrives of an update [n] fp32 that is clipped and encoded, and what of the clipped one did not
    [n]. What arrives is no longer than the least norm asked for: where rounding lengthened it, a shorter one
    is sent."""
    own = clip(transforms, update)
    norm = _norm(transforms)
    while True:
        arrived = decode(transforms, encode(transforms, own, dtype, seed), len(own), dtype, seed)
        length = float(torch.linalg.vector_norm(arrived, dtype=torch.float64)) if norm < float("inf") else 0.0
        if not length > norm * (1 + 1e-6):
            return arrived, own - arrived
        own = own * (norm / length)


def feeds_back(transforms: Sequence[Transform]) -> bool:
    """Whether a client keeps what was lost on the way, for its next update."""
    return any(getattr(t, "error_feedback", False) for t in transforms)


def encode(transforms: Sequence[Transform], update: Tensor, dtype: torch.dtype, seed: int) -> np.ndarray:
    """An update [n] fp32 as bytes, uint8. `dtype` is that of numbers that are not quantized."""
    chosen = _sparsifier(transforms)
    parts, values = [], update
    if chosen is not None:
        places = _places(chosen, update, seed)
        values = update[places]
        if isinstance(chosen, TopK):
            parts.append(_pack_places(places.numpy(), len(update)))
    quantize = _quantizer(transforms)
    parts += [_bytes(values.to(dtype))] if quantize is None else _quantized(quantize, values, seed)
    return np.concatenate(parts)


def decode(
    transforms: Sequence[Transform], data: np.ndarray, n: int, dtype: torch.dtype, seed: int
) -> Tensor:
    """The update [n] fp32 that `encode` made these bytes of, but for what was lost."""
    chosen, places, m = _sparsifier(transforms), None, n
    if chosen is not None:
        m = _count(chosen, n)
        if isinstance(chosen, TopK):
            places = _unpack_places(data, m, n)
            data = data[_places_bytes(m, n) :]
        else:
            places = _places(chosen, torch.empty(n), seed)
    quantize = _quantizer(transforms)
    values = (
        torch.from_numpy(np.array(data)).view(dtype).float()
        if quantize is None
        else _dequantized(quantize, data, m)
    )
    if places is None:
        return values
    update = torch.zeros(n)
    update[places] = values
    return update


def encoded_bytes(transforms: Sequence[Transform], n: int, itemsize: int) -> int:
    """How many bytes `encode` makes of n numbers, without making them."""
    chosen, quantize = _sparsifier(transforms), _quantizer(transforms)
    m = n if chosen is None else _count(chosen, n)
    places = _places_bytes(m, n) if isinstance(chosen, TopK) else 0
    return places + (
        m * itemsize if quantize is None else 4 * -(-m // quantize.block) + -(-m * quantize.bits // 8)
    )


def _norm(transforms: Sequence[Transform]) -> float:
    return min((t.norm for t in transforms if isinstance(t, Clip)), default=float("inf"))


def _sparsifier(transforms: Sequence[Transform]) -> TopK | RandomK | None:
    return next((t for t in transforms if isinstance(t, TopK | RandomK)), None)


def _quantizer(transforms: Sequence[Transform]) -> Quantize | None:
    return next((t for t in transforms if isinstance(t, Quantize)), None)


def _count(section: TopK | RandomK, n: int) -> int:
    return max(1, round(section.fraction * n))


def _places(section: TopK | RandomK, update: Tensor, seed: int) -> Tensor:
    """[k] int64, sorted."""
    k = _count(section, len(update))
    if isinstance(section, TopK):
        return update.abs().topk(k).indices.sort().values
    return torch.from_numpy(np.sort(np.random.default_rng(seed).choice(len(update), k, replace=False)))


def _places_bytes(m: int, n: int) -> int:
    """As 32 bits each, or as a bit for every number where that is shorter."""
    return min(4 * m, -(-n // 8))


def _pack_places(places: np.ndarray, n: int) -> np.ndarray:
    if 4 * len(places) <= -(-n // 8):
        return places.astype("<u4").view(np.uint8)
    return np.packbits(np.isin(np.arange(n), places, assume_unique=True))


def _unpack_places(data: np.ndarray, m: int, n: int) -> Tensor:
    if 4 * m <= -(-n // 8):
        return torch.from_numpy(np.array(data[: 4 * m]).view("<u4").astype(np.int64))
    return torch.from_numpy(np.flatnonzero(np.unpackbits(data[: -(-n // 8)], count=n)))


def _quantized(section: Quantize, values: Tensor, seed: int) -> list[np.ndarray]:
    """q = floor(v / scale * levels + u), u uniform in 0..1: right in the mean. A block's scale is its largest
    magnitude."""
    levels, block = 2 ** (section.bits - 1) - 1, min(section.block, len(values))
    blocks = torch.nn.functional.pad(values, (0, -len(values) % block)).view(-1, block)
    scales = blocks.abs().amax(1, keepdim=True)
    u = torch.rand(blocks.shape, generator=torch.Generator().manual_seed(seed))
    whole = (
        (blocks / scales.clamp(min=torch.finfo(torch.float32).tiny) * levels + u)
        .floor()
        .clamp(-levels, levels)
    )
    q = (whole.to(torch.int8).flatten()[: len(values)].numpy() + levels).astype(np.uint8)
    if section.bits == 4:
        q = np.pad(q, (0, len(q) % 2))
        q = q[::2] | q[1::2] << 4
    return [_bytes(scales), q]


def _dequantized(section: Quantize, data: np.ndarray, m: int) -> Tensor:
    levels, blocks = 2 ** (section.bits - 1) - 1, -(-m // section.block)
    scales = torch.from_numpy(np.array(data[: 4 * blocks])).view(torch.float32)
    q = data[4 * blocks :]
    if section.bits == 4:
        q = np.stack([q & 15, q >> 4], axis=1).ravel()[:m]
    return (
        (torch.from_numpy(q.astype(np.float32)) - levels)
        / levels
        * scales.repeat_interleave(min(section.block, m))[:m]
    )


def _bytes(values: Tensor) -> np.ndarray:
    return values.contiguous().flatten().view(torch.uint8).numpy()
