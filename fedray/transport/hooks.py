"""Hooks: what is done to an update on its way, in one chain that parallel, relay and split rounds share.

On the client, before it is sent (clip, thin out, quantize, poison, mask); at the server, on each update
before it is added (bound, validate), and on what a rule made of all of them (noise, unmask).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fedray.randomness import key
from fedray.scenario.transforms import TransformSection

UNSENT = "unsent"  # what a client's last update lost on its way, in the client's state


@dataclass
class HookContext:
    """Where an update is in a run."""

    seed: int  # the scenario's
    round_number: int
    client: int  # SERVER where it is not one client's
    state: Mapping[str, Tensor] = field(default_factory=dict)  # what was kept of this client's last update
    kept: dict[str, Tensor] = field(default_factory=dict)  # what is kept of this one, and nothing else
    server: Mapping[str, float] = field(default_factory=dict)  # what hooks keep at the server, for all to see
    counts: dict[str, int] = field(default_factory=dict)  # added up over the round's clients, for the server
    added: int = 0  # updates of the round, once they are combined

    def key(self, purpose: str) -> int:
        """A number for a random generator that no other client, round or purpose shares."""
        return key(self.seed, self.round_number, self.client, purpose)

    def of_hook(self, number: int) -> HookContext:
        """The same for one hook of a chain, which sees its own state alone."""
        start = f"hook {number}: "
        own = {k.removeprefix(start): v for k, v in self.state.items() if k.startswith(start)}
        return replace(self, state=own, kept={})

    def keep(self, number: int, kept: Mapping[str, Tensor]) -> None:
        """Keeps what one hook of a chain keeps."""
        self.kept |= {f"hook {number}: {name}": value for name, value in kept.items()}


class Hook:
    """Something that is done to an update; every method has a default that does nothing.

    In a relay a client changes its update before it hands the model on, and the server sees the update of a
    whole chain. In a split an update is that of the client's part of the model.

    Args:
        section: the scenario's, an entry of `aggregation.transforms`.

    A hook of one's own that sends the opposite of what a client has learnt:

        class SignFlip(fedray.Hook):
            def on_client(self, update, context):
                return -update

    One that keeps something of a client from round to round says so, and keeps it in `on_client`:

        class Momentum(fedray.Hook):
            class Section(fedray.Hook.Section):
                keeps_state = True

            def on_client(self, update, context):
                context.kept["past"] = update + 0.9 * context.state.get("past", 0.0)
                return context.kept["past"]
    """

    Section: ClassVar[type[TransformSection]] = TransformSection
    # An update that leaves `on_client` is no longer (Euclidean) than this. What writes it as fewer bytes does
    # not lengthen it either; a hook behind this one may.
    largest_norm = float("inf")

    def __init__(self, section: Any) -> None:
        self.section = section

    @property
    def sees_each_at_server(self) -> bool:
        """Whether `on_server` looks at each update, which a ring and secure aggregation do not show."""
        return type(self).on_server is not Hook.on_server

    def on_client(self, update: Tensor, context: HookContext) -> Tensor:
        """The update [n] fp32 that a client sends instead, of the one it made."""
        return update

    def on_server(self, update: Tensor, context: HookContext) -> Tensor:
        """The update [n] fp32 that is added instead, of the one that arrived."""
        return update

    def on_combined(self, combined: Tensor, part: slice, context: HookContext) -> Tensor:
        """What becomes of the combined update, some numbers at a time.

        Args:
            combined: [rows, numbers] float64.
            part: which numbers these are of all; noise is drawn with a key for each part.
            context: of the round.
        """
        return combined

    def kept_by_server(self, context: HookContext) -> dict[str, float]:
        """What is known at the server, and to the clients, of the next round (`context.server`), by name; the
        Section of such a hook says so."""
        return {}


class Codec(Hook):
    """A hook that writes numbers as fewer bytes. Both ends know the layout and the seed, so that the bytes
    hold nothing else. What it does not write is left to the next codec, or written as it is."""

    def header_bytes(self, n: int) -> int:
        """Bytes that it writes itself, of n numbers."""
        raise NotImplementedError

    def left(self, n: int) -> int:
        """How many numbers it leaves of n."""
        raise NotImplementedError

    def encode(self, values: Tensor, seed: int) -> tuple[np.ndarray, Tensor]:
        """Its own bytes [header_bytes] uint8 of values [n] fp32, and the numbers [left] that it leaves."""
        raise NotImplementedError

    def decode(self, header: np.ndarray, values: Tensor, n: int, seed: int) -> Tensor:
        """The numbers [n] fp32 of its bytes and of those that it left.

        Args:
            header: what `encode` made, uint8 [header_bytes].
            values: what it left, fp32 [left].
            n: how many numbers there were.
            seed: of its draws, the sender's.
        """
        raise NotImplementedError


def encode(codecs: Sequence[Codec], values: Tensor, dtype: torch.dtype, seed: int) -> np.ndarray:
    """Numbers [n] fp32 as bytes, uint8; `dtype` is that of the numbers that no codec writes.

    Args:
        codecs: in the order in which they are applied.
        values: fp32 [n].
        dtype: of the numbers that no codec writes.
        seed: of the codecs' draws.
    """
    parts = []
    for codec in codecs:
        header, values = codec.encode(values, seed)
        parts.append(header)
    return np.concatenate([*parts, as_bytes(values.to(dtype))])


def decode(codecs: Sequence[Codec], data: np.ndarray, n: int, dtype: torch.dtype, seed: int) -> Tensor:
    """The numbers [n] fp32 that `encode` made these bytes of, but for what was lost.

    Args:
        codecs: as in `encode`.
        data: uint8.
        n: how many numbers there were.
        dtype: of the numbers that no codec writes.
        seed: of the codecs' draws, the sender's.
    """
    if not codecs:
        return torch.from_numpy(np.array(data)).view(dtype).float() if n else torch.empty(0)
    first, *others = codecs
    end = first.header_bytes(n)
    values = decode(others, data[end:], first.left(n), dtype, seed)
    return first.decode(data[:end], values, n, seed)


def encoded_bytes(codecs: Sequence[Codec], n: int, itemsize: int) -> int:
    """How many bytes `encode` makes of n numbers, without making them."""
    total = 0
    for codec in codecs:
        total += codec.header_bytes(n)
        n = codec.left(n)
    return total + n * itemsize


def as_bytes(values: Tensor) -> np.ndarray:
    return values.contiguous().flatten().view(torch.uint8).numpy()


class HookChain:
    """The hooks of a scenario, in their order; codecs come last.

    Args:
        hooks: in the scenario's order.
        dtype: of numbers on the air.
        feeds_back: whether what is lost on the way joins the client's next update.
    """

    def __init__(self, hooks: Sequence[Hook], dtype: torch.dtype, feeds_back: bool = False) -> None:
        self.hooks = [hook for hook in hooks if not isinstance(hook, Codec)]
        self.codecs = [hook for hook in hooks if isinstance(hook, Codec)]
        self.dtype = dtype
        self.feeds_back = feeds_back
        self.largest_norm = self.hooks[-1].largest_norm if self.hooks else float("inf")

    @property
    def is_empty(self) -> bool:
        """Whether an update arrives as it is."""
        return not self.hooks and not self.codecs and self.dtype == torch.float32

    @property
    def changes_updates(self) -> bool:
        """Whether a client sends another update than it made, apart from how it is written."""
        return bool(self.hooks)

    @property
    def sees_each_at_server(self) -> list[str]:
        """Kinds of the hooks that look at each update at the server."""
        return [hook.section.kind for hook in self.hooks if hook.sees_each_at_server]

    def on_client(self, update: Tensor, context: HookContext) -> Tensor:
        """The update [n] fp32 that a client sends, before it is written as bytes.

        Raises:
            ValueError: for a hook that keeps a state without saying so.
        """
        for number, hook in enumerate(self.hooks):
            own = context.of_hook(number)
            update = hook.on_client(update, own)
            if own.kept and not hook.section.keeps_state:
                kind = hook.section.kind
                names = ", ".join(own.kept)
                raise ValueError(f"{kind}: keeps {names}, expected keeps_state = True in its Section")
            context.keep(number, own.kept)
        return update

    def through(self, update: Tensor, context: HookContext) -> Tensor:
        """What arrives of a client's update [n] fp32. It is no longer than any hook allows: where rounding
        lengthens it, a shorter one is sent."""
        if self.feeds_back:
            update = update + context.state.get(UNSENT, 0.0)
        update = self.on_client(update, context)
        arrived = self._arrived(update, context)
        while (length := self._length(arrived)) > self.largest_norm * (1 + 1e-6):
            update = update * (self.largest_norm / length)
            arrived = self._arrived(update, context)
        if self.feeds_back:
            context.kept[UNSENT] = update - arrived
        return arrived

    def on_server(self, update: Tensor, context: HookContext) -> Tensor:
        """The update [n] fp32 that is added of one that arrived; a client's state is not the server's."""
        for hook in self.hooks:
            update = hook.on_server(update, replace(context, state={}, kept={}, counts={}))
        return update

    def on_combined(self, combined: Tensor, part: slice, context: HookContext) -> Tensor:
        for hook in self.hooks:
            combined = hook.on_combined(combined, part, context)
        return combined

    def kept_by_server(self, context: HookContext) -> dict[str, float]:
        return {name: value for hook in self.hooks for name, value in hook.kept_by_server(context).items()}

    def encoded_bytes(self, n: int) -> int:
        return encoded_bytes(self.codecs, n, self.dtype.itemsize)

    def _arrived(self, update: Tensor, context: HookContext) -> Tensor:
        seed = context.key("transforms")
        data = encode(self.codecs, update, self.dtype, seed)
        return decode(self.codecs, data, len(update), self.dtype, seed)

    def _length(self, arrived: Tensor) -> float:
        if self.largest_norm == float("inf"):
            return 0.0
        return float(torch.linalg.vector_norm(arrived, dtype=torch.float64))
