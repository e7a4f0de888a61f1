"""The stages of diffusers' SD3Transformer2DModel: in, block_0, block_1, ..., out."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fedray.learners.joint_blocks import block_stage
from fedray.learners.stages import Stage


def stages(network: Any, noisy: Callable[..., Tensor], time: Callable[[Tensor], Tensor]) -> list[Stage]:
    """From latents and noise [b, c, h, w], timesteps [b], text [b, l, d] and pooled text [b, p] to what it
    `predicted`.

    Args:
        network: diffusers' own.
        noisy: makes what the network sees of latents, noise and timesteps.
        time: makes of timesteps what the network takes.
    """

    def enter(
        latents: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor, pooled: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = network.pos_embed(noisy(latents, noise, timesteps)).contiguous()
        return x, network.context_embedder(text), network.time_text_embed(time(timesteps), pooled)

    def leave(x: Tensor, emb: Tensor) -> Tensor:
        patches = network.proj_out(network.norm_out(x, emb))
        b, n, _ = patches.shape
        p = network.config.patch_size
        side = int(n**0.5)
        grid = patches.reshape(b, side, side, p, p, network.out_channels)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(b, network.out_channels, side * p, side * p)

    first = ("latents", "noise", "timesteps", "text", "pooled")
    entrance = (network.pos_embed, network.context_embedder, network.time_text_embed)
    blocks = network.transformer_blocks
    return [
        Stage("in", first, ("x", "context", "emb"), enter, entrance),
        *(block_stage(f"block_{i}", network, b, None, b.context_pre_only) for i, b in enumerate(blocks)),
        Stage("out", ("x", "emb"), ("predicted",), leave, (network.norm_out, network.proj_out)),
    ]
