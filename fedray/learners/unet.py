"""The stages of diffusers' U-Nets: in, down_0, down_1, ..., mid, up_0, ..., out. Skips go by numbers, from
the input's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fedray.learners.stages import Stage


def stages(
    unet: Any, first: tuple[str, ...], noisy: Any, size: int, added: tuple[str, ...] = ()
) -> list[Stage]:
    """From a batch's fields `first`, the last of them timesteps [b], of which `noisy` makes what the network
    sees [b, c, size, size], to what it `predicted`. A conditional one needs `text` [b, l, d] in its
    cross-attention.

    Args:
        unet: diffusers' network.
        first: the names of the batch's fields.
        noisy: makes what the network sees of them.
        size: pixels a side.
        added: the names of what SDXL's U-Net adds to the timestep: pooled text [b, p] and numbers of an image
            [b, k].
    """
    pieces = [_enter(unet, first, noisy, added)]
    skips = ["skip_0"]
    sizes = [size]
    for i, block in enumerate(unet.down_blocks):
        gives = [f"skip_{len(skips) + j}" for j in range(len(block.resnets) + bool(block.downsamplers))]
        pieces.append(_down(i, block, gives))
        skips += gives
        sizes += [-(-sizes[-1] // 2)] if block.downsamplers else []
    if unet.mid_block is not None:
        pieces.append(_middle(unet.mid_block))
    for i, block in enumerate(unet.up_blocks):
        n = len(block.resnets)
        own_skips = skips[-n:]
        skips = skips[:-n]
        sizes = sizes[:-1] if block.upsamplers else sizes
        # Where a side was odd, doubling it again would be one too many.
        odd = block.upsamplers and size % 2 ** len(unet.down_blocks)
        pieces.append(_up(i, block, own_skips, {"upsample_size": (sizes[-1], sizes[-1])} if odd else {}))
    modules = tuple(m for m in (unet.conv_norm_out, unet.conv_out) if m is not None)

    def leave(x: Tensor) -> Tensor:
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(x)) if unet.conv_norm_out else x)

    return [*pieces, Stage("out", ("x",), ("predicted",), leave, modules)]


def _enter(unet: Any, first: tuple[str, ...], noisy: Any, added: tuple[str, ...]) -> Stage:
    """The first convolution, and the embedding of timesteps.

    Args:
        unet: diffusers' network.
        first: the names of the batch's fields.
        noisy: makes what the network sees of them.
        added: the names of what is added to the timesteps.
    """
    n = len(first)

    def enter(*values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = noisy(*values[:n])
        timesteps = values[n - 1]
        if unet.config.get("center_input_sample"):
            x = 2 * x - 1
        emb = embedded_timesteps(unet, timesteps, x.dtype, values[n:])
        x = unet.conv_in(x)
        return x, emb, x

    modules = (unet.time_embedding, unet.conv_in, *([unet.add_embedding] if added else []))
    return Stage("in", (*first, *added), ("x", "emb", "skip_0"), enter, modules)


def embedded_timesteps(
    network: Any, timesteps: Tensor, dtype: torch.dtype, added: Sequence[Tensor]
) -> Tensor:
    """[b, e], of a U-Net or a ControlNet.

    Args:
        network: diffusers' own.
        timesteps: [b].
        dtype: that the embedding computes in.
        added: what SDXL's adds, pooled text [b, p] and numbers of an image [b, k]; otherwise nothing.
    """
    emb: Tensor = network.time_embedding(network.time_proj(timesteps).to(dtype))
    if added:
        pooled, numbers = added
        embedded = network.add_time_proj(numbers.flatten()).reshape(len(numbers), -1)
        emb = emb + network.add_embedding(torch.cat([pooled, embedded], -1).to(emb.dtype))
    return emb


def _down(i: int, block: Any, gives: Sequence[str]) -> Stage:
    text = _text_of(block)

    def down(x: Tensor, emb: Tensor, *text: Tensor) -> tuple[Tensor, ...]:
        x, skips = block(x, emb, **text_arguments(text))
        return x, *skips

    return Stage(f"down_{i}", ("x", "emb", *text), ("x", *gives), down, (block,))


def _middle(block: Any) -> Stage:
    def middle(x: Tensor, emb: Tensor, *text: Tensor) -> Tensor:
        return block(x, emb, **text_arguments(text))

    return Stage("mid", ("x", "emb", *_text_of(block)), ("x",), middle, (block,))


def _up(i: int, block: Any, skips: Sequence[str], target: dict[str, Any]) -> Stage:
    """One way up, with the skips [n] that it takes.

    Args:
        i: its number.
        block: diffusers' own.
        skips: their names.
        target: the size that it goes up to, where that is not twice its own.
    """
    n = len(skips)

    def up(x: Tensor, emb: Tensor, *rest: Tensor) -> Tensor:
        return block(x, rest[:n], emb, **text_arguments(rest[n:]), **target)

    return Stage(f"up_{i}", ("x", "emb", *skips, *_text_of(block)), ("x",), up, (block,))


def takes_text(block: Any) -> bool:
    return bool(getattr(block, "has_cross_attention", False))


def _text_of(block: Any) -> tuple[str, ...]:
    return ("text",) if takes_text(block) else ()


def text_arguments(text: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text[0]} if text else {}
