"""Work, counted while it is done; on the meta device without doing it."""

from collections.abc import Callable
from typing import Any


def counted_flops(step: Callable[[], Any]) -> int:
    """Floating-point operations of what a step does, backwards too where it goes there."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())
