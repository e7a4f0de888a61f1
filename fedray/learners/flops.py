"""Work, counted while it is done; on the meta device without doing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def counted_flops(step: Callable[[], Any]) -> int:
    """Floating-point operations of what a step does, backwards too where it goes there."""
    with FlopCounter() as counter:
        step()
    return counter.flops


class FlopCounter(TorchDispatchMode):
    """Adds up torch's own formulas of the operators that run in it, as torch.utils.flop_counter's
    FlopCounterMode does, which imports torch's whole compiler for it: most of a second of every run's start.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # what would import the compiler, so that it does not compile what is below

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        formula = flop_registry.get(func.overloadpacket)
        if formula is None:
            with self:  # the operators that it is made of may have formulas
                made = func.decompose(*args, **named)
            if made is not NotImplemented:
                return made
        out = func(*args, **named)
        if formula is not None:
            self.flops += formula(*args, **named, out_val=out)
        return out
