"""Where a learner takes adapters, and the files that they have for those who open them elsewhere."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from fedray.scenario.base import Refused

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"  # opened by `load_lora_weights(folder)`
KOHYA_FILE = "kohya_lora.safetensors"  # for ComfyUI and A1111


class TakesAdapters:
    """The part of a learner that says where adapters stand; its section says whether it `takes_adapters`.

    Attributes:
        section: the scenario's `model`.
        layer_example: the name of a layer that may have adapters, for errors.
    """

    section: Any
    layer_example: ClassVar[str] = "to_q"

    @property
    @abstractmethod
    def tunable_parts(self) -> list[str]:
        """Names of the parts that a tuning may train, the main one first."""

    def adapter_targets(self, chosen: str | Sequence[str]) -> dict[str, list[str]]:
        """Names of the layers that have adapters, by part; raises Refused for what it does not know. Here: a
        list of names in the first part.

        Args:
            chosen: `tuning.targets`.
        """
        if isinstance(chosen, str):
            raise Refused("tuning.targets", chosen, f"a list of names of layers for a {self.section.kind}")
        return {self.tunable_parts[0]: list(chosen)}

    @property
    def adapter_layers(self) -> tuple[type, ...]:
        """The kinds of layers that may have adapters."""
        return nn.Linear, nn.Conv2d, nn.Embedding

    def adapter_options(self, names: Sequence[str]) -> dict[str, Any]:
        """How peft makes adapters: arguments of its LoraConfig beside the tuning's own. Here: A is drawn from
        a normal distribution with deviation 1 / rank, as diffusers' scripts have it, and B is zero.

        Args:
            names: of the layers that have adapters.
        """
        return {"init_lora_weights": "gaussian"}

    def save_adapter_config(self, config: Any, folder: Path) -> None:
        """Writes what readers of the adapter's files need beside its tensors. Here: nothing.

        Args:
            config: peft's LoraConfig of the main part's adapters.
            folder: where the files go.
        """

    def adapter_key(self, part: str, name: str) -> str:
        """An adapter tensor's key in a file, from its name in a part."""
        return peft_key(part, name)

    def adapter_files(
        self, adapter: Mapping[str, Tensor], scale: float, alpha: float
    ) -> dict[str, dict[str, Tensor]]:
        """Tensors by file, the file that others read first. That says no alpha, so that there B carries the
        scale.

        Args:
            adapter: tensors by their keys.
            scale: alpha / rank, by which B A is multiplied.
            alpha: for files that name it.
        """
        scaled = {n: t * scale if n.endswith(".lora_B.weight") else t for n, t in adapter.items()}
        return {DIFFUSERS_FILE: scaled}


def peft_key(part: str, name: str) -> str:
    """An adapter tensor's key as peft names it, below its part."""
    return f"{part}.{name.replace('.default.', '.')}"
