"""LoRA (Hu et al. 2021): w' = w + (alpha / rank) B A, through peft."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fedray.learners.learner import Learner
from fedray.learners.spreading import adapters_follow
from fedray.randomness import SERVER, key
from fedray.scenario.base import Refused
from fedray.transport.buffer import Layout, Precision, safetensors_bytes
from fedray.tuning.batched_lora import batched_adapters
from fedray.tuning.tuning import Tuning


class LoraTuning(Tuning):
    """Adapters beside some layers: only they train and travel."""

    def __init__(self, section: Any, seed: int, frozen: Sequence[str] = ()) -> None:
        super().__init__(section, seed, frozen)
        self.configs: dict[str, Any] = {}  # peft's, by part

    def select(self, learner: Learner) -> dict[str, nn.Parameter]:
        """Puts adapters beside the target layers. Their first values are keyed by the seed; B is zero.

        Raises:
            Refused: for targets that no layer has.
        """
        for part, names in learner.adapter_targets(self.section.targets).items():
            self._inject(learner, part, names)
        chosen = adapters(learner)
        for parameter in chosen.values():
            parameter.requires_grad_(False)
        return chosen

    def client_part(self, layout: Layout, client: int) -> Tensor | None:
        rank = self.section.rank_of(client)
        return None if rank == self.section.rank else truncation(layout, rank)

    def left_out(self, layout: Layout) -> tuple[int, ...]:
        ranks = self.section.ranks or [self.section.rank]
        return tuple(layout.numel * (self.section.rank - rank) // self.section.rank for rank in ranks)

    def base_weights(self, learner: Learner, layout: Layout) -> list[Tensor]:
        """The frozen weights that the adapters stand beside, one a layer."""
        layers = {
            learner.adapter_key(part, name): module
            for part, model in learner.parts.items()
            for name, module in model.named_modules()
        }
        names = (n.removesuffix(".lora_A.weight") for n in layout.names if n.endswith(".lora_A.weight"))
        adapted = [cast(Any, layers[name]) for name in names]
        return [_as_product(layer) for layer in adapted]

    @property
    def base_scale(self) -> float:
        return float(self.section.scale)

    def batched(
        self, learner: Learner, places: Mapping[str, slice], weights: Tensor, gradients: Tensor
    ) -> AbstractContextManager[None]:
        return batched_adapters(learner, places, weights, gradients)

    def export(self, learner: Learner, layout: Layout, folder: Path, adapter: bool = True) -> None:
        """The adapter, where it is all that was learnt, and the whole model, merged: the learner has no
        adapter left afterwards.

        Args:
            learner: with its adapters.
            layout: of what travels.
            folder: where the files go.
            adapter: whether the adapter's own files are written, too.
        """
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        if adapter:
            for file, tensors in self._files(learner, layout).items():
                (folder / file).parent.mkdir(exist_ok=True)
                save_file(tensors, str(folder / file), metadata={"format": "pt"})
            learner.save_adapter_config(next(iter(self.configs.values())), folder)
        merge(learner.parts)
        learner.save(folder)

    def export_files(self, learner: Learner, layout: Layout) -> dict[str, int]:
        return {
            file: safetensors_bytes({n: (layout.precision, list(t.shape)) for n, t in tensors.items()})
            for file, tensors in self._files(learner, layout).items()
        }

    def base_files(self, learner: Learner) -> dict[str, int]:
        named = learner.parts[learner.tunable_parts[0]].named_parameters()
        own = {name.replace(".base_layer", ""): p for name, p in named if ".lora_" not in name}
        entries: dict[str, tuple[Precision, list[int]]] = {n: ("fp32", list(p.shape)) for n, p in own.items()}
        return {learner.weights_file: safetensors_bytes(entries)}

    def _files(self, learner: Learner, layout: Layout) -> dict[str, dict[str, Tensor]]:
        """The adapter's tensors by file, as they travel."""
        tensors = {n: p.detach().to(layout.dtype) for n, p in adapters(learner).items()}
        if learner.device.type != "meta":
            tensors = {n: t.cpu() for n, t in tensors.items()}
        return learner.adapter_files(tensors, self.section.scale, self.section.stored_alpha)

    def _inject(self, learner: Learner, part: str, names: list[str]) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        model = learner.parts[part]
        kinds = learner.adapter_layers
        layers = [name for name, module in model.named_modules() if isinstance(module, kinds)]
        for name in names:
            if not any(f".{layer}".endswith(f".{name}") for layer in layers):
                expected = f"names of layers of the {part}, such as {learner.layer_example}"
                raise Refused("tuning.targets", repr(name), expected)
        config = LoraConfig(
            r=self.section.rank,
            lora_alpha=self.section.alpha_or_rank,
            lora_dropout=self.section.dropout,
            use_rslora=self.section.rslora,
            target_modules=names,
            **learner.adapter_options(names),
        )
        self.configs.setdefault(part, config)
        meta = next(model.parameters()).is_meta
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(self.seed, 0, SERVER, f"adapter {part}"))
            inject_adapter_in_model(config, model, low_cpu_mem_usage=meta)
        if learner.context.devices:
            adapters_follow(model)


def _as_product(layer: Any) -> Tensor:
    """An adapted layer's weight [outputs, inputs], as B A is; transformers' Conv1D has it the other way
    round."""
    weight: Tensor = layer.get_base_layer().weight
    return weight.T if getattr(layer, "fan_in_fan_out", False) else weight


@lru_cache(maxsize=8)
def truncation(layout: Layout, rank: int) -> Tensor:
    """[numel] bool: what a client of this rank has of the adapters."""
    has = [torch.zeros(shape, dtype=torch.bool) for shape in layout.shapes]
    for name, part in zip(layout.names, has, strict=True):
        (part[:rank] if ".lora_A." in name else part[:, :rank]).fill_(True)
    return torch.cat([part.flatten() for part in has])


def adapters(learner: Learner) -> dict[str, nn.Parameter]:
    """Every adapter tensor by its key in the adapter's file, in the keys' order."""
    named = (
        (learner.adapter_key(part, name), p)
        for part, model in learner.parts.items()
        for name, p in model.named_parameters()
        if ".lora_" in name
    )
    return dict(sorted(named))


def merge(parts: Mapping[str, nn.Module]) -> None:
    """w' = w + v, in place, and the adapters gone: inference costs what the base's did (huang2023, Step
    4)."""
    from diffusers.utils import recurse_remove_peft_layers
    from peft.tuners.tuners_utils import BaseTunerLayer

    for part in parts.values():
        for module in part.modules():
            if isinstance(module, BaseTunerLayer):
                module.merge()
        recurse_remove_peft_layers(part)
