"""LoRA adapters of several runs beside one base model, one of them in use at a time.

The base's weights stay as they are. A layer in use has a second tensor W + B A, so that an image costs what
it costs with a merged model, and has its bits; another adapter begins from W again, not from what subtracting
would leave.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedray.learners.learner import Learner
from fedray.scenario.base import Refused

SIDES = (".lora_A.weight", ".lora_B.weight")


class AdapterSet:
    """The adapters of a learner that has none of its own.

    Args:
        learner: with the base's weights.
        adapters: each adapter's tensors by name, their B multiplied by alpha / rank, as a run's
            `pytorch_lora_weights.safetensors` has them.

    Raises:
        Refused: for an adapter of layers that the base does not have.
    """

    def __init__(self, learner: Learner, adapters: Mapping[str, Mapping[str, Tensor]]) -> None:
        layers = {
            learner.adapter_key(part, name): module
            for part, model in learner.parts.items()
            for name, module in model.named_modules()
        }
        self.adapters = {
            name: {key: _sides(key, tensors, layers, learner.device) for key in _layer_keys(tensors)}
            for name, tensors in adapters.items()
        }
        touched = {key: layers[key] for factors in self.adapters.values() for key in factors}
        self.layers = touched
        self.base_weights = {key: layer.get_parameter("weight") for key, layer in touched.items()}
        self.in_use: str | None = None

    @torch.no_grad()
    def use(self, name: str) -> None:
        """From here on the learner is the base with this adapter."""
        if name == self.in_use:
            return
        self.use_none()
        for key, (a, b) in self.adapters[name].items():
            base = self.base_weights[key]
            self.layers[key].register_parameter("weight", _parameter(base + _product(a, b).to(base.dtype)))
        self.in_use = name

    def use_none(self) -> None:
        """From here on the learner is the base alone."""
        for key, base in self.base_weights.items():
            self.layers[key].register_parameter("weight", base)
        self.in_use = None


def _layer_keys(tensors: Mapping[str, Tensor]) -> list[str]:
    """The layers that an adapter changes. Raises Refused for what is neither an A nor a B."""
    for name in tensors:
        if not name.endswith(SIDES):
            expected = "adapters of linear layers and convolutions alone where several share a base"
            raise Refused("adapter", f"a tensor {name!r:.80}", expected)
    return list(dict.fromkeys(name.removesuffix(SIDES[0]).removesuffix(SIDES[1]) for name in tensors))


def _sides(
    key: str, tensors: Mapping[str, Tensor], layers: Mapping[str, nn.Module], device: torch.device
) -> tuple[Tensor, Tensor]:
    """A and B of one layer, on the device.

    Raises:
        Refused: for a layer that is not there, or has another shape.
    """
    layer = layers.get(key)
    if not isinstance(layer, nn.Linear | nn.Conv2d) or getattr(layer, "groups", 1) != 1:
        got = f"an adapter of {key!r:.80}, which is {type(layer).__name__}"
        raise Refused("adapter", got, "linear layers and convolutions of the base")
    if len(both := [tensors[key + side].to(device) for side in SIDES if key + side in tensors]) != 2:
        raise Refused("adapter", f"one of A and B of {key!r:.80}", "both")
    a, b = both
    shape = (b.shape[0], *a.shape[1:])
    if a.ndim != layer.weight.ndim or b.shape[1] != a.shape[0] or shape != tuple(layer.weight.shape):
        got = f"{list(a.shape)} and {list(b.shape)} for {key!r:.80}"
        raise Refused("adapter", got, f"two that make {list(layer.weight.shape)}")
    return a, b


def _product(a: Tensor, b: Tensor) -> Tensor:
    """B A in a layer's shape, computed as peft merges it, so that the bits are those of a merged model.

    Args:
        a: [r, in] or [r, in, h, w].
        b: [out, r] or [out, r, 1, 1].
    """
    a = a.float()
    b = b.float()
    if a.ndim == 2:
        return b @ a
    if a.shape[2:] == (1, 1):
        return (b[:, :, 0, 0] @ a[:, :, 0, 0])[:, :, None, None]
    return F.conv2d(a.transpose(0, 1), b).transpose(0, 1)


def _parameter(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)
