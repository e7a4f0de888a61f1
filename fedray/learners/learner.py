"""What every learner offers. No federation in them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedray.data import Samples
from fedray.learners.pictures import Shard
from fedray.learners.stages import Stage, run, within


class Learner(ABC):
    """A model with its loss. `Any` stands for the learner's own shard (a client's samples) and batch (a
    step's draws)."""

    parts: dict[str, nn.Module]  # what a tuning may train, by name; frozen until it does
    stages: tuple[Stage, ...]  # a step's pieces, from a batch's fields to `loss`
    size: int  # pixels a side, of pictures
    device: torch.device
    compute: torch.dtype
    # Patterns of names of parameters that train and stay with their client.
    home: tuple[str, ...] = ()
    # Sections with `patterns` of names and an `optimizer`, behind those of `training.groups`.
    groups: Sequence[Any] = ()
    keeps_shards = False  # whether a client's encoded samples are dear enough to be kept
    weights_file = "model.safetensors"  # the name under which `save` writes what a whole training changes

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        """To be called once the tuning has said what trains."""
        for part in self.parts.values():
            part.train()
            # what is normalised by means that nothing here learns, and that do not travel
            for module in part.modules():
                if hasattr(module, "running_mean") and not any(p.requires_grad for p in module.parameters()):
                    module.eval()

    def encode(self, samples: Samples, indices: np.ndarray) -> Any:
        """A client's samples on the learner's device. Raises ValueError for one that cannot be read."""
        return Shard.of(samples, indices, self.size, self.device)

    @property
    def tunable_parts(self) -> list[str]:
        """Parts that a tuning may train, its main one first."""
        return list(self.parts)

    def travelling_buffers(self) -> dict[str, Tensor]:
        """Numbers that are learnt without gradients and travel with what trains: means of batches, where what
        they normalise for trains."""
        buffers: dict[str, Tensor] = {}
        for part, whole in self.parts.items():
            for name, module in whole.named_modules():
                if any(p.requires_grad for p in module.parameters(recurse=False)):
                    means = module.named_buffers(recurse=False)
                    buffers |= {f"{part}.{name}.{k}": b for k, b in means if k.startswith("running_")}
        return buffers

    def encode_flops(self) -> float:
        """Floating-point operations of encoding a sample, where that is done once and kept. To be called on
        the meta device, once the tuning has said what trains."""
        return 0.0

    @abstractmethod
    def draw(self, shard: Any, indices: np.ndarray, generator: torch.Generator) -> Any:
        """One step's inputs, every draw made, on the CPU: the same on every device."""

    @abstractmethod
    def blank_batch(self) -> tuple[Any, int]:
        """A batch with nothing in it, for counting work, and how many samples it stands for."""

    def loss(self, batch: Any) -> Tensor:
        """What all its stages together make of a batch: the mean over its samples, each of which counts the
        same."""
        return run(self.stages, vars(batch))["loss"]

    @abstractmethod
    def save(self, folder: Path) -> None:
        """The whole model in its ecosystem's own files."""

    def staged(self, pieces: Sequence[Stage], loss: Stage) -> tuple[Stage, ...]:
        """A step: the network's pieces in the precision that is computed in, the loss in fp32."""
        return (*within(self.autocast, pieces), loss)

    def autocast(self) -> AbstractContextManager[None]:
        return (
            nullcontext() if self.compute == torch.float32 else torch.autocast(self.device.type, self.compute)
        )

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, nothing is dropped out, and no mean is learnt."""
        with in_evaluation(*self.parts.values()):
            yield


@contextmanager
def in_evaluation(*modules: nn.Module) -> Iterator[None]:
    training = [(inner, inner.training) for module in modules for inner in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for inner, was in training:
            inner.training = was
