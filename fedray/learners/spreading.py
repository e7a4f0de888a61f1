"""A base model's network over several GPUs: a share of its blocks on each, by accelerate's device map.

What stands before and behind the blocks is on the first, and so is what trains: adapters follow what they
compute with.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedray.scenario.base import Refused


def spread(network: nn.Module, devices: Sequence[torch.device]) -> nn.Module:
    """The network with its blocks on their devices. What a block is called with comes to where it is; what
    the whole network gives is where its inputs were."""
    from accelerate import dispatch_model

    where: Any = device_map(network, devices)
    dispatched: nn.Module = dispatch_model(network, where, main_device=devices[0], force_hooks=True)
    return dispatched


def device_map(network: nn.Module, devices: Sequence[torch.device]) -> dict[str, torch.device]:
    """Where each piece of a network is, by its name: blocks in the order in which they compute, about as many
    bytes on each device."""
    pieces = list(_pieces(network))
    total = sum(_bytes(module) for _, module, _ in pieces)
    where = {name: devices[0] for name, _, _ in pieces}
    done = sum(_bytes(module) for _, module, is_block in pieces if not is_block)
    blocks = [(name, module) for name, module, is_block in pieces if is_block]
    # a U-Net has its middle behind the way up
    for name, block in sorted(blocks, key=lambda named: named[0].startswith("up_blocks")):
        size = _bytes(block)
        where[name] = devices[min(len(devices) - 1, int((done + size / 2) / total * len(devices)))]
        done += size
    return where


def _pieces(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module, bool]]:
    """What is moved as a whole: its name, itself, and whether it is one of the blocks. They are in lists, of
    the network or of the part that has nearly all of it (a language model's `model`)."""
    for name, child in module.named_children():
        path = prefix + name
        if isinstance(child, nn.ModuleList):
            yield from ((f"{path}.{i}", block, True) for i, block in child.named_children())
            continue
        has_lists = any(isinstance(m, nn.ModuleList) for m in child.modules())
        if has_lists and 2 * _bytes(child) > _bytes(module):
            yield from _pieces(child, f"{path}.")
        else:
            yield path, child, has_lists


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


class FollowingLinear(nn.Linear):
    """A linear layer whose weight comes to where its input is, and is kept elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.device))


class FollowingConv2d(nn.Conv2d):
    """The same of a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight.to(x.device), None)


FOLLOWING = {nn.Linear: FollowingLinear, nn.Conv2d: FollowingConv2d}


def adapters_follow(network: nn.Module) -> None:
    """Makes peft's adapters in a network that is spread compute where their layers are. Raises Refused for a
    kind of layer that cannot."""
    for module in network.modules():
        for side in ("lora_A", "lora_B"):
            layers: Any = getattr(module, side, {})
            for layer in layers.values():
                if type(layer) not in FOLLOWING or layer.bias is not None:
                    expected = "at most 1, or tuning.targets of linear layers and convolutions alone"
                    raise Refused("runtime.gpus_per_actor", f"an adapter of {type(layer).__name__}", expected)
                layer.__class__ = FOLLOWING[type(layer)]
