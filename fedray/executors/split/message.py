"""What crosses a cut, as bytes: activations one way, gradients the other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from fedray.executors import Job
from fedray.learners.cut import Named
from fedray.randomness import key
from fedray.scenario.aggregation import Transform
from fedray.scenario.scenario import Scenario
from fedray.schedule import Pass
from fedray.transport.buffer import DTYPES
from fedray.transport.compression import decode, encode


class Air(NamedTuple):
    """How numbers go over it."""

    compression: Sequence[Transform]
    dtype: torch.dtype  # of what is not whole: the precision that is computed in

    @classmethod
    def of(cls, scenario: Scenario) -> "Air":
        return cls(scenario.split.compression, DTYPES[scenario.training.precision])


class Form(NamedTuple):
    """How one tensor stands in the bytes."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    nbytes: int
    wants_gradient: bool


class Message(NamedTuple):
    """One flat buffer, which goes through Ray's object store without a copy, and what both ends know of it
    anyway."""

    data: np.ndarray  # uint8: the bytes on the air
    forms: tuple[Form, ...]
    share: float = 1.0  # what these samples weigh in their batch's mean loss
    loss: float = 0.0  # that share of it, where it is the server's


def seed_of(job: Job, round: int, step: Pass, crossing: str) -> int:
    """What both ends of a crossing draw from."""
    return key(job.scenario.seed, round, step.client, f"{crossing} {step.batch} {step.part}")


def noised(tensors: Named, std: float, draws: torch.Generator) -> Named:
    """With normal noise on every number that is not whole."""
    return [
        (names, t + std * torch.randn(t.shape, generator=draws).to(t) if t.is_floating_point() else t)
        for names, t in tensors
    ]


def pack(tensors: Named, air: Air, seed: int, share: float = 1.0, loss: float = 0.0) -> Message:
    """Whole numbers go as they are, others in the air's dtype or compressed."""
    parts, forms = [], []
    for i, (names, tensor) in enumerate(tensors):
        flat = tensor.detach().cpu().contiguous().flatten()
        if air.compression and tensor.is_floating_point():
            part = encode(air.compression, flat.float(), air.dtype, key(seed, 0, i, "crossing"))
        else:
            part = (flat.to(air.dtype) if tensor.is_floating_point() else flat).view(torch.uint8).numpy()
        parts.append(part)
        forms.append(Form(names, tuple(tensor.shape), tensor.dtype, part.nbytes, tensor.requires_grad))
    data = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint8), *parts])
    return Message(data, tuple(forms), share, loss)


def unpack(message: Message, air: Air, seed: int, device: torch.device) -> Named:
    """The tensors, in memory of their own: those that want a gradient are leaves of a new graph."""
    found, start = [], 0
    for i, form in enumerate(message.forms):
        part = message.data[start : start + form.nbytes]
        start += form.nbytes
        real = form.dtype.is_floating_point
        if air.compression and real:
            numel = int(np.prod(form.shape))
            tensor = decode(air.compression, part, numel, air.dtype, key(seed, 0, i, "crossing")).to(
                form.dtype
            )
        else:
            tensor = torch.from_numpy(np.array(part)).view(air.dtype if real else form.dtype).to(form.dtype)
        found.append((form.names, tensor.view(form.shape).to(device).requires_grad_(form.wants_gradient)))
    return found
