"""A ControlNet (Zhang et al. 2023) beside a U-Net: the network, its two stages of a step, and its pipeline.

The `condition` stage makes of latents and condition picture what the network's encoder begins with; the
`control` stage is that encoder, whose outputs are added to the U-Net's skips and middle.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedray.learners import unet as unets
from fedray.learners.families.family import Family
from fedray.learners.stages import Stage
from fedray.scenario.base import Refused
from fedray.scenario.control import PART, Control

CHANNELS = {4: (16, 32, 64), 8: (16, 32, 96, 256)}  # by how much the autoencoder divides sides
PIPELINES = {
    "StableDiffusionPipeline": "StableDiffusionControlNetPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLControlNetPipeline",
}


def build(section: Control, family: Family) -> Any:
    """diffusers' ControlNetModel: read from the base's own folder where that has one (as an exported model
    does), otherwise with the weights of the base's encoder and outputs that are zero.

    Args:
        section: the scenario's `model.control`.
        family: the base's networks.

    Raises:
        Refused: for a base without a middle, and for an embedding that does not end at a latent's size.
    """
    from accelerate import init_empty_weights
    from diffusers import ControlNetModel

    unet = family.denoiser
    if family.files.pipeline not in PIPELINES or unet.mid_block is None:
        expected = "a base of Stable Diffusion 1, 2 or XL, whose U-Net has a middle"
        raise Refused("model.base", "one that a ControlNet does not fit", expected)
    on_meta = family.device.type == "meta"
    if has_trained(family) and not on_meta:
        folder = Path(family.base.source) / PART
        kept: Any = ControlNetModel.from_pretrained(folder, torch_dtype=unet.dtype, use_safetensors=True)
        return kept.to(family.device)
    channels = _channels(section, family.latent_factor)
    with init_empty_weights(include_buffers=True) if on_meta else nullcontext():
        network: Any = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=channels, load_weights_from_unet=not on_meta
        )
    # diffusers' own `to` warns of a dtype
    return network if on_meta else torch.nn.Module.to(network, family.device, unet.dtype)


def has_trained(family: Family) -> bool:
    """Whether the base's own folder has a ControlNet."""
    return family.base.local and (Path(family.base.source) / PART).is_dir()


def refuse_blind(network: Any, family: Family) -> None:
    """Raises Refused where a new ControlNet would never see its condition: the last convolution that embeds
    it begins as zeros, and stays so unless it trains.

    Args:
        network: the ControlNet, once the tuning has said what trains.
        family: the base's networks.
    """
    embedding = network.controlnet_cond_embedding
    if not has_trained(family) and not any(p.requires_grad for p in embedding.conv_out.parameters()):
        got = "one that leaves controlnet.controlnet_cond_embedding.conv_out as it begins, which is zeros"
        expected = "one that trains it, or a model.base whose folder has a trained controlnet"
        raise Refused("tuning", got, expected)


def _channels(section: Control, factor: int) -> tuple[int, ...]:
    steps = factor.bit_length()
    if section.embedding_channels is None:
        return CHANNELS.get(factor, tuple(16 * 2**i for i in range(steps)))
    if len(section.embedding_channels) != steps:
        expected = f"{steps}, as the autoencoder divides sides by {factor}"
        raise Refused(
            "model.control.embedding_channels", f"{len(section.embedding_channels)} numbers", expected
        )
    return tuple(section.embedding_channels)


def with_control(pieces: Sequence[Stage], network: Any, noisy: Any) -> list[Stage]:
    """A U-Net's stages with a ControlNet's two: `condition` behind `in`, so that a client that embeds its
    condition itself need not send it, and `control` behind `mid`.

    Args:
        pieces: of a step without it.
        network: the ControlNet.
        noisy: makes noisy latents of latents, noise and timesteps.
    """
    names = [piece.name for piece in pieces]
    enter = pieces[names.index("in")]
    middle = names.index("mid") + 1
    skips = [name for piece in pieces[:middle] for name in piece.gives if name.startswith("skip_")]
    before = pieces[names.index("in") + 1 : middle]
    text = ("text",) if any("text" in piece.needs for piece in before) else ()
    own = [_condition(network, enter.needs, noisy), *before, _control(network, skips, text)]
    return [*pieces[: names.index("in") + 1], *own, *pieces[middle:]]


def _condition(network: Any, needs: Sequence[str], noisy: Any) -> Stage:
    """What the ControlNet's encoder begins with: noisy latents and condition, and timesteps, each embedded.

    Args:
        network: the ControlNet.
        needs: what the U-Net's `in` takes: latents, noise, timesteps, and what is added to timesteps.
        noisy: makes noisy latents of the first three.
    """
    added = len(needs) - 3

    def embed(*values: Tensor) -> tuple[Tensor, Tensor]:
        latents, noise, timesteps = values[:3]
        x = noisy(latents, noise, timesteps)
        emb = unets.embedded_timesteps(network, timesteps, x.dtype, values[3 : 3 + added])
        condition = network.controlnet_cond_embedding(values[-1].to(x.dtype))
        return network.conv_in(x) + condition, emb

    modules = [network.conv_in, network.time_embedding, network.controlnet_cond_embedding]
    modules += [network.add_embedding] if added else []
    return Stage("condition", (*needs, "condition"), ("control_x", "control_emb"), embed, tuple(modules))


def _control(network: Any, skips: Sequence[str], text: tuple[str, ...]) -> Stage:
    """The ControlNet's encoder and middle; it adds to the U-Net's skips and to the middle's x.

    Args:
        network: the ControlNet.
        skips: names of the U-Net's, in the order in which it makes them.
        text: the name of the text, where the blocks take one.
    """

    def control(x: Tensor, inner: Tensor, emb: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        own = rest[: len(skips)]
        given = rest[len(skips) :]
        outputs = [inner]
        for block in network.down_blocks:
            inner, made = block(inner, emb, **unets.text_arguments(given if unets.takes_text(block) else ()))
            outputs += made
        middle = network.mid_block
        inner = middle(inner, emb, **unets.text_arguments(given if unets.takes_text(middle) else ()))
        x = x + network.controlnet_mid_block(inner)
        zero = zip(own, network.controlnet_down_blocks, outputs, strict=True)
        return x, *(skip + convolution(output) for skip, convolution, output in zero)

    modules = (
        network.down_blocks,
        network.mid_block,
        network.controlnet_down_blocks,
        network.controlnet_mid_block,
    )
    needs = ("x", "control_x", "control_emb", *skips, *text)
    return Stage("control", needs, ("x", *skips), control, modules)


def pipeline(family: Family, network: Any) -> Any:
    """diffusers' pipeline of the base and the ControlNet, which takes condition pictures."""
    import diffusers

    kind: Any = getattr(diffusers, PIPELINES[family.files.pipeline])
    components = family.pipeline().components | family.pipeline_options()
    made = kind(**components, controlnet=network)
    made.set_progress_bar_config(disable=True)
    return made


def adapter_targets(network: Any, chosen: Sequence[str]) -> list[str]:
    """Names of the layers that have adapters: those chosen, the convolutions at the outputs, without which
    zeros would stay zeros, and those that embed the condition."""
    convolutions = [
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv2d) and name.startswith("controlnet_")
    ]
    return [*chosen, *convolutions]
