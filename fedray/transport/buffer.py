"""One flat buffer: what travels, with a static layout.

A buffer is a contiguous uint8 numpy array that holds every travelling number in the dtype it has on the air,
in the layout's order: a byte on the air is a byte in the buffer. Through Ray's object store it is one
zero-copy array.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import torch
from torch import Tensor

from fedray.files import write_synced

# Buffers from Ray are, and `Layout.view` is only read.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

Precision = Literal["fp32", "fp16", "bf16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Layout:
    """Names, shapes and dtype of a flat buffer; names are those of the file it is exported to."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    precision: Precision
    trained: int  # so many numbers train, and stand first; the others only travel

    @classmethod
    def of(cls, named: Mapping[str, Tensor], precision: Precision) -> Layout:
        trained = sum(t.numel() for t in named.values() if isinstance(t, torch.nn.Parameter))
        return cls(tuple(named), tuple(tuple(t.shape) for t in named.values()), precision, trained)

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        return tuple(math.prod(shape) for shape in self.shapes)

    @cached_property
    def numel(self) -> int:
        return sum(self.sizes)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    def flat(self, buffer: np.ndarray) -> Tensor:
        """The buffer's numbers, [numel] in the layout's dtype: a copy, since buffers from Ray are
        read-only."""
        assert buffer.nbytes == self.nbytes, f"{buffer.nbytes} bytes for a layout of {self.nbytes}"
        return torch.from_numpy(np.array(buffer)).view(self.dtype)

    def view(self, buffer: np.ndarray) -> Tensor:
        """The buffer's numbers in place, [numel], only to be read."""
        return torch.from_numpy(buffer).view(self.dtype) if len(buffer) else torch.empty(0, dtype=self.dtype)

    def tensors(self, buffer: np.ndarray) -> dict[str, Tensor]:
        parts = self.flat(buffer).split(list(self.sizes))
        return {n: p.view(s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}

    def part(self, names: Collection[str]) -> Layout:
        """The layout of some of the tensors, in this one's order."""
        places = [i for i, name in enumerate(self.names) if name in names]
        ends = np.cumsum(self.sizes)
        trained = sum(self.sizes[i] for i in places if ends[i] <= self.trained)
        return Layout(
            tuple(self.names[i] for i in places),
            tuple(self.shapes[i] for i in places),
            self.precision,
            trained,
        )

    def places(self, part: Layout) -> Tensor:
        """Where a part's numbers are among the whole's, [part.numel] int64."""
        starts = dict(zip(self.names, np.cumsum((0, *self.sizes)).tolist(), strict=False))
        spans = [
            torch.arange(starts[n], starts[n] + size) for n, size in zip(part.names, part.sizes, strict=True)
        ]
        return torch.cat(spans) if spans else torch.empty(0, dtype=torch.int64)

    def save(self, buffer: np.ndarray, file: Path) -> None:
        """The buffer as a safetensors file that other tools open, synced to disk."""
        from safetensors.torch import save

        write_synced(file, save(self.tensors(buffer)))

    def load(self, file: Path) -> np.ndarray:
        """The buffer a `save` wrote.

        Raises:
            ValueError: where the file is damaged or holds another layout.
        """
        try:
            with safetensors.safe_open(file, "pt") as f:
                tensors = [f.get_tensor(name) for name in self.names]
        except (OSError, safetensors.SafetensorError) as e:
            raise ValueError(f"{file} cannot be read: {e}") from None
        if tuple(tuple(t.shape) for t in tensors) != self.shapes or any(
            t.dtype != self.dtype for t in tensors
        ):
            raise ValueError(f"{file} holds other shapes or dtypes than this scenario's")
        return torch.cat([t.flatten() for t in tensors]).view(torch.uint8).numpy()


def places(names: Sequence[str], sizes: Sequence[int]) -> dict[str, slice]:
    """Where each tensor is in a flat one that holds tensors of these names and sizes, in this order."""
    ends = np.cumsum(sizes).tolist()
    return dict(zip(names, map(slice, [0, *ends[:-1]], ends), strict=True))


def safetensors_bytes(entries: Mapping[str, tuple[Precision, Sequence[int]]]) -> int:
    """Exact size of a safetensors file with these {name: (precision, shape)} and diffusers' metadata, without
    writing it: 8 bytes, a JSON header padded to 8, the data. The format stores wider dtypes first, then goes
    by name."""
    dtypes = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(entries, key=lambda n: (-DTYPES[entries[n][0]].itemsize, n)):
        precision, shape = entries[name]
        end = offset + math.prod(shape) * DTYPES[precision].itemsize
        header[name] = {"dtype": dtypes[precision], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = len(json.dumps(header, separators=(",", ":")).encode())
    return 8 + -(-text // 8) * 8 + offset


def save_arrays(arrays: Mapping[str, np.ndarray], file: Path) -> str:
    """Arrays as a safetensors file, synced to disk; its sha256."""
    from safetensors.numpy import save

    write_synced(file, data := save({name: np.asarray(a, order="C") for name, a in arrays.items()}))
    return hashlib.sha256(data).hexdigest()


def load_arrays(file: Path, expected: str) -> dict[str, np.ndarray]:
    """What `save_arrays` wrote.

    Raises:
        ValueError: where the file's sha256 is not the expected one.
    """
    from safetensors.numpy import load

    try:
        data = file.read_bytes()
    except OSError as e:
        raise ValueError(f"{file} cannot be read: {e}") from None
    if (got := hashlib.sha256(data).hexdigest()) != expected:
        raise ValueError(f"{file} has sha256 {got[:12]}..., expected {expected[:12]}...")
    return load(data)


def sha256(buffer: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(buffer).data).hexdigest()


class FlatParameters:
    """A model's numbers as views into one flat fp32 tensor, and their gradients as views into another.

    The numbers lie in it one after another: those that stay at home without training (means), those that
    train and stay at home, those that train and travel, and those that only travel. So what travels is one
    part of it, and what trains another: receiving and sending are one copy each, an optimizer sees one
    tensor, and clipping is one norm.

    Args:
        travelling: by layout name the parameters that train, then buffers that only travel; their `data` and
            `grad` are replaced by views.
        precision: of numbers on the air.
        device: where the flat tensor is.
        home: buffers that do not travel, then parameters that train and do not.
    """

    def __init__(
        self,
        travelling: Mapping[str, Tensor],
        precision: Precision,
        device: torch.device,
        home: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.layout = Layout.of(travelling, precision)
        home = home or {}
        self.home_layout = Layout.of(home, "fp32")
        self.home_numbers = n = self.home_layout.numel
        first = n - self.home_layout.trained  # where what trains begins
        whole = torch.empty(n + self.layout.numel, dtype=torch.float32, device=device)
        self.numbers = whole  # all of the model's
        self.all = whole[n:]  # what travels
        self.home = whole[:n]
        self.trained = torch.nn.Parameter(whole[first : n + self.layout.trained])  # what the optimizer sees
        self.trained_places = slice(first, n + self.layout.trained)  # where that is among all
        self.gradient = self.trained.grad = torch.zeros_like(self.trained)
        self.travelling_trained = whole[n : n + self.layout.trained]
        self.travelling_gradient = self.gradient[n - first :]
        start = 0
        for tensor in (*home.values(), *travelling.values()):
            end = start + tensor.numel()
            whole[start:end].copy_(tensor.data.flatten())
            tensor.data = whole[start:end].view(tensor.shape)
            if isinstance(tensor, torch.nn.Parameter):
                assert first <= start, "buffers at home stand before parameters"
                assert end <= n + self.layout.trained, "buffers that travel stand behind parameters"
                tensor.grad = self.gradient[start - first : end - first].view(tensor.shape)
                tensor.requires_grad_(True)
            start = end
        self._initial_home = self.home.clone()
        on_air_is_master = self.layout.dtype == torch.float32 and device.type == "cpu"
        memory = self.all if on_air_is_master else torch.empty(self.layout.numel, dtype=self.layout.dtype)
        self._outbox = memory

    @property
    def trained_names(self) -> tuple[str, ...]:
        """Of the tensors that train, in their order."""
        sizes = np.cumsum(self.layout.sizes)
        travelling = self.layout.names[: int(np.searchsorted(sizes, self.layout.trained, side="right"))]
        return (*self._home_trained(self.home_layout.names), *travelling)

    @property
    def trained_sizes(self) -> tuple[int, ...]:
        own = self._home_trained(self.home_layout.sizes)
        return (*own, *self.layout.sizes[: len(self.trained_names) - len(own)])

    def _home_trained(self, each: tuple[Any, ...]) -> tuple[Any, ...]:
        """Of something for each tensor at home, what belongs to those that train, which stand last."""
        buffers = self.home_numbers - self.home_layout.trained
        return each[int(np.searchsorted(np.cumsum(self.home_layout.sizes), buffers, side="right")) :]

    def load_home(self, numbers: Tensor | None) -> None:
        """A client's own numbers [home_numbers] fp32; of one that has none yet, the initial ones."""
        if self.home_numbers:
            self.home.copy_(self._initial_home if numbers is None else numbers)

    def receive(self, buffer: np.ndarray) -> None:
        self.all.copy_(self.layout.view(buffer))

    def send(self) -> np.ndarray:
        """What travels as a buffer. Its memory is used again by training and the next `send`: whoever keeps
        it, copies it."""
        if self._outbox is not self.all:
            self._outbox.copy_(self.all)
        return self._outbox.view(torch.uint8).numpy()
