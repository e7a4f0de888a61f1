"""A language model's adapters by peft's names, in peft's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from fedray.learners.adapter_files import TakesAdapters
from fedray.learners.bases import Base
from fedray.learners.language_network import PART, is_tied
from fedray.scenario.base import Refused

# apart from the merged model: transformers would take a folder with both for the adapter
FOLDER = "adapter"
FILE = "adapter_model.safetensors"


class PeftAdapters(TakesAdapters):
    """The part of a language model that says where adapters stand.

    Attributes:
        network: transformers'.
        base: where it is from.
    """

    layer_example: ClassVar[str] = "q_proj"
    network: Any
    base: Base

    @property
    def adapter_layers(self) -> tuple[type, ...]:
        from transformers.pytorch_utils import Conv1D

        return nn.Linear, Conv1D

    def adapter_targets(self, chosen: str | Sequence[str]) -> dict[str, list[str]]:
        """Names of layers of the network: `attention` are peft's own for its architecture, `all-linear` all
        linear ones but the head."""
        if not isinstance(chosen, str):
            names = list(chosen)
        elif chosen == "all-linear":
            names = self._linear_layers()
        else:
            names = self._usual_layers()
        head = self._head_name()
        if is_tied(self.network) and any(f".{head}".endswith(f".{name}") for name in names):
            expected = "other layers: the head has the embedding's weights, which an adapter would part"
            raise Refused("tuning.targets", repr(head), expected)
        return {PART: names}

    def _usual_layers(self) -> list[str]:
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

        kind = self.network.config.model_type
        names = USUAL.get(kind)
        if not isinstance(names, list):
            expected = f"all-linear, or a list of names of layers: peft has no usual ones for a {kind}"
            raise Refused("tuning.targets", "attention", expected)
        return list(names)

    def _linear_layers(self) -> list[str]:
        from transformers.pytorch_utils import Conv1D

        head = self.network.get_output_embeddings()
        layers = self.network.named_modules()
        return sorted(
            {
                name.rpartition(".")[2]
                for name, module in layers
                if isinstance(module, nn.Linear | Conv1D) and module is not head
            }
        )

    def _head_name(self) -> str:
        head = self.network.get_output_embeddings()
        return next((name for name, module in self.network.named_modules() if module is head), "")

    def adapter_options(self, names: Sequence[str]) -> dict[str, Any]:
        """As peft's default for language models: A is drawn uniformly (Kaiming), B is zero."""
        from transformers.pytorch_utils import Conv1D

        layers = [
            module
            for name, module in self.network.named_modules()
            if any(f".{name}".endswith(f".{chosen}") for chosen in names)
        ]
        transposed = any(isinstance(layer, Conv1D) for layer in layers)
        return {"init_lora_weights": True, "task_type": "CAUSAL_LM", "fan_in_fan_out": transposed}

    def adapter_key(self, part: str, name: str) -> str:
        """As `PeftModel.save_pretrained` calls it."""
        return f"base_model.model.{name}".replace(".default", "")

    def adapter_files(
        self, adapter: Mapping[str, Tensor], scale: float, alpha: float
    ) -> dict[str, dict[str, Tensor]]:
        """peft's file, opened by `PeftModel.from_pretrained(base, folder)`; the scale is in its
        configuration."""
        return {f"{FOLDER}/{FILE}": dict(adapter)}

    def save_adapter_config(self, config: Any, folder: Path) -> None:
        """peft's configuration, beside its file."""
        config.base_model_name_or_path = self.base.source
        config.inference_mode = True
        config.target_modules = sorted(config.target_modules)
        config.save_pretrained(folder / FOLDER)
