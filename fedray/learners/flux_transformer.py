"""The stages of diffusers' FluxTransformer2DModel: in, block_0, block_1, ..., single_0, ..., out. Latents are
packed: four neighbours of each channel are one token of an image."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedray.learners.joint_blocks import block_stage
from fedray.learners.stages import Stage


def stages(
    network: Any,
    noisy: Callable[..., Tensor],
    time: Callable[[Tensor], Tensor],
    side: int,
    guidance: float,
) -> list[Stage]:
    """From latents and noise [b, c, side, side], timesteps [b], text [b, l, d] and pooled text [b, p] to what
    it `predicted`.

    Args:
        network: diffusers' own.
        noisy: makes what the network sees of latents, noise and timesteps.
        time: makes of timesteps what is a thousand times what the network takes.
        side: of latents.
        guidance: the scale that a network is given which takes one.
    """

    def enter(
        latents: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor, pooled: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = network.x_embedder(packed(noisy(latents, noise, timesteps)))
        at = time(timesteps) / 1000
        at = at.to(x.dtype) * 1000  # as the network does with what it is given
        if network.config.guidance_embeds:
            scale = torch.full_like(at, guidance) * 1000
            emb = network.time_text_embed(at, scale, pooled)
        else:
            emb = network.time_text_embed(at, pooled)
        return x, network.context_embedder(text), emb

    def rotary(context: Tensor, x: Tensor) -> Any:
        return network.pos_embed(positions(context.shape[1], side // 2, x.device))

    def leave(x: Tensor, emb: Tensor) -> Tensor:
        return unpacked(network.proj_out(network.norm_out(x, emb)), side)

    first = ("latents", "noise", "timesteps", "text", "pooled")
    entrance = (network.x_embedder, network.context_embedder, network.time_text_embed)
    named = [(f"block_{i}", block) for i, block in enumerate(network.transformer_blocks)]
    named += [(f"single_{i}", block) for i, block in enumerate(network.single_transformer_blocks)]
    return [
        Stage("in", first, ("x", "context", "emb"), enter, entrance),
        *(block_stage(name, network, b, rotary, b is named[-1][1]) for name, b in named),
        Stage("out", ("x", "emb"), ("predicted",), leave, (network.norm_out, network.proj_out)),
    ]


def packed(latents: Tensor) -> Tensor:
    """[b, h w / 4, 4 c] of [b, c, h, w]."""
    b, c, h, w = latents.shape
    squares = latents.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(b, h * w // 4, 4 * c)


def unpacked(tokens: Tensor, side: int) -> Tensor:
    """[b, c, side, side] of [b, side^2 / 4, 4 c]."""
    b, _, wide = tokens.shape
    half = side // 2
    squares = tokens.reshape(b, half, half, wide // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return squares.reshape(b, wide // 4, side, side)


def positions(text: int, half: int, device: torch.device) -> Tensor:
    """[text + half^2, 3]: of each token, a text's are all 0; an image's have row and column behind a 0."""
    of_text = torch.zeros(text, 3, device=device)
    at = torch.arange(half, device=device, dtype=torch.float32)
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    of_image = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3)
    return torch.cat([of_text, of_image])
