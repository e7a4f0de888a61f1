"""The number format of a base model's frozen weights (`runtime.base_precision`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

from fedray.learners.base_families import T5, PartFiles


@dataclass(frozen=True)
class BasePrecision:
    """How frozen networks are in memory. The autoencoder is in fp32, as half overflows in it, and so is T5
    where others are in fp16.

    Attributes:
        dtype: of what is not quantized.
        int8: whether the weights of linear layers are 8-bit integers, with a scale a row.
    """

    dtype: torch.dtype
    int8: bool = False

    @classmethod
    def of(cls, name: str | None, compute: torch.dtype) -> BasePrecision:
        """Of the setting's value; `compute` is the dtype that is computed in."""
        int8 = name == "int8"  # torchao's layers do not take part in autocast: norms beside them need fp32
        return cls(torch.float32 if int8 or name == "fp32" else compute, int8)

    def options(self, name: str, part: PartFiles) -> dict[str, Any]:
        """Arguments of `from_pretrained`.

        Args:
            name: of the part in the base.
            part: its files and library.
        """
        if name == "vae" or (part == T5 and self.dtype == torch.float16):
            return {"torch_dtype": torch.float32}
        if not self.int8:
            return {"torch_dtype": self.dtype}
        from torchao.quantization import Int8WeightOnlyConfig

        quantization = import_module(part.library).TorchAoConfig(Int8WeightOnlyConfig())
        return {"torch_dtype": self.dtype, "quantization_config": quantization}


def quantizable_numbers(parts: Mapping[str, nn.Module]) -> int:
    """How many weights are integers where `runtime.base_precision` is int8: those of linear layers, but for
    the autoencoder's."""
    layers = (module for part, network in parts.items() if part != "vae" for module in network.modules())
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))
