"""What crosses a cut, as bytes: activations one way, gradients the other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedray.randomness import key
from fedray.transport.hooks import Codec, decode, encode

NamedTensors = list[tuple[tuple[str, ...], Tensor]]  # tensors with all their names


class WireFormat(NamedTuple):
    """How numbers go over the air."""

    codecs: Sequence[Codec]
    dtype: torch.dtype  # of what is not whole: the precision that is computed in


class TensorHeader(NamedTuple):
    """How one tensor stands in a message's bytes."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    nbytes: int
    wants_gradient: bool


class Message(NamedTuple):
    """One flat buffer, which goes through Ray's object store without a copy, and what both ends know of it
    anyway."""

    data: np.ndarray  # uint8: the bytes on the air
    headers: tuple[TensorHeader, ...]
    share: float = 1.0  # what these samples weigh in their batch's mean loss
    loss: float = 0.0  # that share of it, where it is the server's


def noised(tensors: NamedTensors, std: float, draws: torch.Generator) -> NamedTensors:
    """With normal noise of this standard deviation on every number that is not whole."""

    def noise(t: Tensor) -> Tensor:
        return t + std * torch.randn(t.shape, generator=draws).to(t)

    return [(names, noise(t) if t.is_floating_point() else t) for names, t in tensors]


def pack(
    tensors: NamedTensors, wire: WireFormat, seed: int, share: float = 1.0, loss: float = 0.0
) -> Message:
    """Tensors as a message: whole numbers go as they are, others in the wire's dtype or by its codecs.

    Args:
        tensors: with their names.
        wire: how numbers go.
        seed: from which both ends of this crossing draw.
        share: see Message.
        loss: see Message.
    """
    parts = []
    headers = []
    for i, (names, tensor) in enumerate(tensors):
        flat = tensor.detach().cpu().contiguous().flatten()
        if wire.codecs and tensor.is_floating_point():
            part = encode(wire.codecs, flat.float(), wire.dtype, key(seed, 0, i, "crossing"))
        else:
            part = (flat.to(wire.dtype) if tensor.is_floating_point() else flat).view(torch.uint8).numpy()
        parts.append(part)
        headers.append(
            TensorHeader(names, tuple(tensor.shape), tensor.dtype, part.nbytes, tensor.requires_grad)
        )
    data = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint8), *parts])
    return Message(data, tuple(headers), share, loss)


def unpack(message: Message, wire: WireFormat, seed: int, device: torch.device) -> NamedTensors:
    """A message's tensors, in memory of their own: those that want a gradient are leaves of a new graph.

    Args:
        message: that arrived.
        wire: how numbers are written.
        seed: of the codecs' draws, the sender's.
        device: where the tensors go.
    """
    tensors = []
    start = 0
    for i, header in enumerate(message.headers):
        part = message.data[start : start + header.nbytes]
        start += header.nbytes
        real = header.dtype.is_floating_point
        if wire.codecs and real:
            numel = int(np.prod(header.shape))
            tensor = decode(wire.codecs, part, numel, wire.dtype, key(seed, 0, i, "crossing"))
        else:
            tensor = torch.from_numpy(np.array(part)).view(wire.dtype if real else header.dtype)
        tensor = tensor.to(header.dtype).view(header.shape).to(device)
        tensors.append((header.names, tensor.requires_grad_(header.wants_gradient)))
    return tensors
