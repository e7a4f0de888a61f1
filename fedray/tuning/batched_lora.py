"""LoRA adapters of several clients in one forward pass, beside one base model.

K clients' samples stand behind one another in a batch of K x b. The frozen layers see one batch; of an
adapter, each client's samples meet its own A [r, in] and B [out, r], in one batched product of A [K, r, in]
and B [K, out, r]. Each client's gradient is then its own, since no product mixes two clients' rows.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedray.learners.learner import Learner
from fedray.scenario.base import Refused


class BatchedLinear(nn.Module):
    """K linear layers without bias.

    Args:
        weight: [K, out, in].
    """

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        """[K x b, ..., out] of [K x b, ..., in]."""
        k, out, n = self.weight.shape
        y = torch.bmm(x.reshape(k, -1, n), self.weight.transpose(1, 2))
        return y.view(*x.shape[:-1], out)


class BatchedConv2d(nn.Module):
    """K convolutions without bias, as one with groups.

    Args:
        weight: [K, out, in / groups, height, width].
        like: a convolution whose stride, padding, dilation and groups each of them has.
    """

    def __init__(self, weight: nn.Parameter, like: nn.Conv2d) -> None:
        super().__init__()
        self.weight = weight
        self.options: dict[str, Any] = {
            "stride": like.stride,
            "padding": like.padding,
            "dilation": like.dilation,
            "groups": like.groups * len(weight),
        }

    def forward(self, x: Tensor) -> Tensor:
        """[K x b, out, h', w'] of [K x b, in, h, w]."""
        k = len(self.weight)
        b = len(x) // k
        # a group's channels stand together: [b, K x in, h, w]
        side_by_side = x.view(k, b, *x.shape[1:]).transpose(0, 1).flatten(1, 2)
        y = F.conv2d(side_by_side, self.weight.flatten(0, 1), **self.options)
        return y.view(b, k, -1, *y.shape[2:]).transpose(0, 1).flatten(0, 1)


def batched_layer(layer: nn.Module, weights: Tensor, gradients: Tensor) -> nn.Module:
    """K layers of the kind of one, whose gradients are added to memory of their own.

    Args:
        layer: a linear layer or a convolution without bias.
        weights: [K, numbers of its weight], a view that the layers use.
        gradients: the same of their gradients.

    Raises:
        Refused: for another kind of layer.
    """
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        expected = "tuning.targets of linear layers and convolutions alone, or 1"
        raise Refused("runtime.gang", f"an adapter of {type(layer).__name__}", expected)
    shape = len(weights), *layer.weight.shape
    weight = nn.Parameter(weights.view(shape))
    memory = gradients.view(shape)

    def keep(parameter: Tensor) -> None:
        """Moves a gradient to where it is wanted. As the parameter's `grad` that memory would have strides
        which torch warns of."""
        memory.add_(cast(Tensor, parameter.grad))
        parameter.grad = None

    weight.register_post_accumulate_grad_hook(keep)
    return BatchedLinear(weight) if isinstance(layer, nn.Linear) else BatchedConv2d(weight, layer)


@contextmanager
def batched_adapters(
    learner: Learner, places: Mapping[str, slice], weights: Tensor, gradients: Tensor
) -> Iterator[None]:
    """Inside, the learner's adapters are those of K clients, and its batches hold K x b samples, client after
    client.

    Args:
        learner: with peft's layers.
        places: where each adapter tensor that trains is among a client's numbers, by its key in the file.
        weights: [K, n], each client's numbers.
        gradients: [K, n], to which the gradients are added.

    Raises:
        Refused: for adapters that have no batched form.
    """
    replaced: list[tuple[nn.ModuleDict, str, nn.Module]] = []
    try:
        for part, model in learner.parts.items():
            for name, module in list(model.named_modules()):
                for side in ("lora_A", "lora_B", "lora_embedding_A"):
                    layers = cast(Any, getattr(module, side, {}))
                    for adapter, layer in list(layers.items()):
                        if isinstance(layer, nn.Parameter):
                            batched_layer(module, weights, gradients)  # refuses it
                        place = places.get(learner.adapter_key(part, f"{name}.{side}.{adapter}.weight"))
                        if place is not None:  # a frozen one is the same for all
                            layers[adapter] = batched_layer(layer, weights[:, place], gradients[:, place])
                            replaced.append((layers, adapter, layer))
        assert len(replaced) == len(places), "every adapter that trains has a batched form"
        yield
    finally:
        for layers, adapter, layer in replaced:
            layers[adapter] = layer
