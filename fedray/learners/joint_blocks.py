"""A stage for each block of a transformer in which the tokens of an image and of a text attend to each other
(Esser et al. 2024, Fig. 2)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedray.learners.stages import Stage


def block_stage(
    name: str, network: Any, block: Any, rotary: Callable[[Tensor, Tensor], Any] | None, last: bool
) -> Stage:
    """From `x` [b, n, d] of an image, `context` [b, l, d] of a text and `emb` [b, d] of timestep and text to
    the next `x` and `context`.

    Args:
        name: of the stage.
        network: diffusers' own, which says whether activations are recomputed for the gradient.
        block: one of its blocks.
        rotary: makes the positions that attention takes of context and x; None where x has its own.
        last: whether nothing takes the context that it makes.
    """

    def run(x: Tensor, context: Tensor, emb: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        taken = (x, context, emb) if rotary is None else (x, context, emb, rotary(context, x))
        if torch.is_grad_enabled() and network.gradient_checkpointing:
            context, x = network._gradient_checkpointing_func(block, *taken)
        else:
            context, x = block(*taken)
        return x if last else (x, context)

    return Stage(name, ("x", "context", "emb"), ("x",) if last else ("x", "context"), run, (block,))
