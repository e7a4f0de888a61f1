"""A learner that is cut, resident in a worker, and the weights of its sides in somebody's hands."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedray.executors import DataFailure, Job
from fedray.executors.model import make_deterministic
from fedray.executors.optimizer import FlatOptimizer
from fedray.learners.cut import cut
from fedray.learners.learners import load
from fedray.learners.stages import Stage, Values, run
from fedray.scenario.training import Training
from fedray.transport.buffer import DTYPES, Layout
from fedray.tuning.tunings import apply


class Composed(nn.Module):
    """Stages as a module, so that they can be run with weights that somebody else holds."""

    def __init__(self, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)

    def forward(self, stages: Sequence[Stage], values: Values) -> Values:
        return run(stages, values)


class Halves:
    """The whole is loaded; of its weights only those of `mine`, client or server, are kept."""

    def __init__(self, job: Job, device: torch.device, mine: str) -> None:
        scenario = job.scenario
        make_deterministic(scenario.runtime.threads)
        self.learner = load(scenario, job.folder, device, DTYPES[scenario.training.precision], job.dataset)
        named = apply(scenario.tuning, self.learner, scenario.seed)
        self.layout = Layout.of(named, scenario.payload)
        self.cut = cut(self.learner.stages, scenario.split)
        self.learner.prepare_training(gradient_checkpointing=False)
        composed = Composed(self.learner.parts)
        self.client = Side(self, composed, named, (*self.cut.front, *self.cut.tail), device)
        self.server = Side(self, composed, named, self.cut.middle, device)
        if mine == "server":  # whom the others have it from
            self.initial = torch.cat([t.detach().flatten().to("cpu", torch.float32) for t in named.values()])
        theirs = self.cut.middle if mine == "client" else (*self.cut.front, *self.cut.tail)
        for module in (module for stage in theirs for module in stage.modules):
            module.to("meta")


class Side:
    """Whose stages these are: which numbers of the global buffer, and which weights of the network."""

    def __init__(
        self,
        halves: Halves,
        composed: Composed,
        named: dict[str, Tensor],
        stages: Sequence[Stage],
        device: torch.device,
    ) -> None:
        self.composed, self.device, self.whole = composed, device, halves.layout
        modules = [module for stage in stages for module in stage.modules]
        mine = {id(t) for module in modules for t in (*module.parameters(), *module.buffers())}
        self.layout = halves.layout.part([name for name, t in named.items() if id(t) in mine])
        self.places = halves.layout.places(self.layout)
        paths = {id(t): path for path, t in (*composed.named_parameters(), *composed.named_buffers())}
        self.paths = [paths[id(named[name])] for name in self.layout.names]

    def numbers(self, buffer: np.ndarray) -> Tensor:
        """This side's [numel] in fp32, of a global buffer or of one that holds nothing else."""
        alone = len(buffer) == self.layout.nbytes
        found = self.layout.view(buffer) if alone else self.whole.view(buffer)[self.places]
        return found.to(self.device, torch.float32, copy=True)

    def buffer(self, numbers: Tensor) -> np.ndarray:
        """Numbers [numel] as they are sent."""
        return numbers.to("cpu", self.layout.dtype).view(torch.uint8).numpy()


class Held:
    """A side's weights in the hands of one client, or of the server: flat, with an optimizer."""

    def __init__(self, side: Side, training: Training, numbers: Tensor) -> None:
        self.side, self.training = side, training
        # Apart, since what is learnt without gradients changes while a graph over the weights is still open.
        self.weights, self.rest = (
            numbers[: side.layout.trained].clone(),
            numbers[side.layout.trained :].clone(),
        )
        # `step` brings the gradient
        self.optimizer = FlatOptimizer(training.optimizer, self.weights, self.weights)
        self.leaves = self._leaves()

    def all(self) -> Tensor:
        return torch.cat([self.weights, self.rest])

    def _leaves(self) -> list[Tensor]:
        """Views of the weights, each a leaf of the graphs made with it, then of the rest."""
        layout, trained = self.side.layout, 0
        found = []
        for shape, size in zip(layout.shapes, layout.sizes, strict=True):
            if trained < layout.trained:
                found.append(self.weights[trained : trained + size].view(shape).requires_grad_())
            else:
                found.append(
                    self.rest[trained - layout.trained : trained - layout.trained + size].view(shape)
                )
            trained += size
        return found

    def run(self, stages: Sequence[Stage], values: Values, leaves: list[Tensor]) -> Values:
        mine = dict(zip(self.side.paths, leaves, strict=True))
        result: Values = functional_call(self.side.composed, mine, (stages, values), tie_weights=False)
        return result

    def step(self, gradient: Tensor, client: int, batch: int, open_graphs: bool = False) -> None:
        """The optimizer's step along a `gradient` [trained]. Graphs over the weights that are still open keep
        them as they were (weight stashing, Harlap et al. 2018): they are copied first."""
        self.optimizer.gradient = gradient
        if not self.optimizer.clipped(self.training.part_clip):
            raise DataFailure("training", f"the gradient of step {batch + 1} is not finite", client)
        if open_graphs:
            self.weights = self.weights.clone()
            self.optimizer.weights = self.weights
            self.leaves = self._leaves()
        self.optimizer.step()


class Flight:
    """A batch between its first pass and its step: which weights it began with, and the gradient so far."""

    def __init__(self, held: Held) -> None:
        self.leaves = held.leaves
        self.gradient = torch.zeros_like(held.weights)
        self.open: dict[int, tuple[Any, ...]] = {}  # by micro-batch, what its way back needs
        self.done = 0  # micro-batches, of which the last one's gradients wait for the step

    def backward(
        self, outputs: Sequence[Tensor], given: Sequence[Tensor], wanted: Sequence[Tensor]
    ) -> list[Tensor]:
        """Adds to the gradient what flows back from `outputs`, `given` theirs, and gives that of the `wanted`
        leaves."""
        trained = [leaf for leaf in self.leaves if leaf.requires_grad]
        into = [*wanted, *trained]
        pairs = [(output, g) for output, g in zip(outputs, given, strict=True) if output.requires_grad]
        if not pairs or not into:
            return [torch.zeros_like(t) for t in wanted]
        found = torch.autograd.grad([o for o, _ in pairs], into, [g for _, g in pairs], allow_unused=True)
        start = 0
        for leaf, g in zip(trained, found[len(wanted) :], strict=True):
            if g is not None:
                self.gradient[start : start + leaf.numel()].add_(g.flatten())
            start += leaf.numel()
        return [torch.zeros_like(t) if g is None else g for t, g in zip(wanted, found, strict=False)]
