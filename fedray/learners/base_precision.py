"""The number format of a base model's frozen weights (`runtime.base_precision`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from fedray.learners.base_families import T5, PartFiles
from fedray.learners.spreading import spread
from fedray.scenario.quantized_formats import QUANTIZED


@dataclass(frozen=True)
class BasePrecision:
    """How frozen networks are in memory. The autoencoder is in fp32, as half overflows in it, and so is T5
    where others are in fp16.

    Attributes:
        dtype: of what is not quantized.
        quantized: the format of linear layers' weights, one of QUANTIZED; None: `dtype` too.
        devices: that the network which trains is spread over; none: it is on one.
    """

    dtype: torch.dtype
    quantized: str | None = None
    devices: tuple[torch.device, ...] = ()

    @classmethod
    def of(
        cls, name: str | None, compute: torch.dtype, devices: tuple[torch.device, ...] = ()
    ) -> BasePrecision:
        """Of the setting's value.

        Args:
            name: of the format.
            compute: the dtype that is computed in.
            devices: that the network which trains is spread over.
        """
        form = None if name is None else QUANTIZED.get(name)
        in_fp32 = name == "fp32" if form is None else form.beside_fp32
        return cls(torch.float32 if in_fp32 else compute, None if form is None else name, devices)

    def options(self, name: str, part: PartFiles) -> dict[str, Any]:
        """Arguments of `from_pretrained`, by which int8 is made of each weight as soon as it is read.

        Args:
            name: of the part in the base.
            part: its files and library.
        """
        argument = "dtype" if part.library == "transformers" else "torch_dtype"
        if name == "vae" or (part == T5 and self.dtype == torch.float16):
            return {argument: torch.float32}
        if self.quantized != "int8":
            return {argument: self.dtype}
        from torchao.quantization import Int8WeightOnlyConfig

        quantization = import_module(part.library).TorchAoConfig(Int8WeightOnlyConfig())
        return {argument: self.dtype, "quantization_config": quantization}

    def on_device(
        self, name: str, network: nn.Module, device: torch.device, trains: bool = False
    ) -> nn.Module:
        """A part that has been loaded, on its device: nf4 is made there, of a layer at a time. (diffusers'
        own quantizer for bitsandbytes refuses machines without a GPU.)

        Args:
            name: of the part in the base.
            network: the part, on the CPU.
            device: where it shall be.
            trains: whether it is the network that trains, which may be spread over several.
        """
        if trains and self.devices:
            return spread(network, self.devices)
        if self.quantized == "nf4" and name != "vae":
            for path, layer in list(_linear_layers(network)):
                network.set_submodule(path, _nf4(layer))
        return network.to(device)


def quantizable_numbers(parts: Mapping[str, nn.Module]) -> int:
    """How many weights a quantized `runtime.base_precision` is for: those of linear layers, but for the
    autoencoder's."""
    networks = (network for part, network in parts.items() if part != "vae")
    return sum(layer.weight.numel() for network in networks for _, layer in _linear_layers(network))


def _linear_layers(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """All but a language model's head, as in transformers: it may have the embedding's weights."""
    output = getattr(network, "get_output_embeddings", None)
    head = None if output is None else output()
    for path, module in network.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            yield path, module


def _nf4(layer: nn.Linear) -> nn.Module:
    """The layer with weights in NF4 and scales that are quantized too (Dettmers et al. 2023, Sec. 3), once it
    is moved to a device."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    dtype = layer.weight.dtype
    # transformers' T5 converts its input to the dtype that its weights say, here that of the bytes' container
    options: Any = {"quant_type": "nf4", "quant_storage": dtype}
    quantized = Linear4bit(
        layer.in_features, layer.out_features, bias=False, compute_dtype=dtype, device="meta", **options
    )
    quantized.weight = Params4bit(layer.weight.data, requires_grad=False, module=quantized, **options)
    quantized.bias = layer.bias
    # otherwise inference on some CPUs changes the layer's bytes to another order
    quantized.support_avx512bf16_for_cpu = False
    quantized.register_forward_pre_hook(_in_compute_dtype)
    return quantized


def _in_compute_dtype(layer: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """bitsandbytes gives the dtype that comes in, a linear layer under autocast the one that is computed in:
    a norm behind it expects that."""
    return tuple(x.to(layer.compute_dtype) for x in inputs)
