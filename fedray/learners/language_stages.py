"""The stages of a causal language model whose layers are modules that are called with positions alone: embed,
layer_0 and so on, head, loss. The head's weights have to be its own (`language_network.untie`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fedray.learners.stages import Stage


def pieces(network: Any) -> list[Stage]:
    """From tokens [b, l] to logits [b, l, vocabulary]. A sample is filled up behind its end, which nothing in
    it attends to: so no stage needs a mask.

    Args:
        network: transformers' LlamaForCausalLM, or one that is built alike.
    """
    body = network.base_model

    def layer(module: nn.Module) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            positions = torch.arange(x.shape[1], device=x.device)[None]
            rotation = body.rotary_emb(x, positions)
            out: Tensor = module(x, attention_mask=None, position_ids=positions, position_embeddings=rotation)
            return out

        return run

    layers = [
        Stage(f"layer_{i}", ("x",), ("x",), layer(module), (module,)) for i, module in enumerate(body.layers)
    ]
    embedding = body.embed_tokens
    head = network.get_output_embeddings()
    return [
        Stage("embed", ("tokens",), ("x",), embedding, (embedding,)),
        *layers,
        Stage("head", ("x",), ("x",), lambda x: head(body.norm(x)), (body.norm, head)),
    ]
