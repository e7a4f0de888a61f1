"""A learner that is cut, resident in a worker, and the weights of its parts in somebody's hands."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedray.executors import DataFailure, Job
from fedray.executors.model import make_deterministic
from fedray.executors.optimizer import FlatOptimizer, grouped
from fedray.learners.cut import cut
from fedray.learners.learners import load
from fedray.learners.stages import Stage, Values, run
from fedray.scenario.training import Training
from fedray.steps import Pass
from fedray.transport.buffer import DTYPES, Layout, places
from fedray.transport.compression import codecs, hook_chain
from fedray.transport.messages import WireFormat
from fedray.tuning.tuning import Tuned
from fedray.tuning.tunings import tuning


class Composed(nn.Module):
    """Stages as a module, so that they can be run with weights that somebody else holds."""

    def __init__(self, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)

    def forward(self, stages: Sequence[Stage], values: Values) -> Values:
        return run(stages, values)


class SplitModel:
    """The whole model is loaded; of its weights only those of one part are kept.

    Args:
        job: the run's.
        device: where the part is.
        kept: `client` or `server`.
    """

    def __init__(self, job: Job, device: torch.device, kept: str) -> None:
        scenario = job.scenario
        make_deterministic(scenario.runtime.threads)
        self.learner = load(scenario, job.folder, device, DTYPES[scenario.training.precision], job.dataset)
        tuned = tuning(scenario.tuning, scenario.seed, scenario.aggregation.frozen).apply(self.learner)
        self.layout = Layout.of(tuned.travelling, scenario.payload)
        self.cut = cut(self.learner.stages, scenario.split)
        self.hooks = hook_chain(scenario)
        self.wire = WireFormat(codecs(scenario.split.compression), DTYPES[scenario.training.precision])
        # what arrives over the air has no format: numbers as the receiver measures them
        self.wire_up = WireFormat((), torch.float32) if self.cut.on_air else self.wire
        self.training = scenario.training
        self.learner.prepare_training(gradient_checkpointing=False)
        composed = Composed(self.learner.parts)
        client_stages = (*self.cut.front, *self.cut.tail)
        self.client = ModelPart(self, composed, tuned, client_stages, device)
        self.server = ModelPart(self, composed, tuned, self.cut.middle, device)
        if kept == "server":  # whom the others have it from
            tensors = tuned.travelling.values()
            self.initial = torch.cat([t.detach().flatten().to("cpu", torch.float32) for t in tensors])
        others = self.cut.middle if kept == "client" else client_stages
        for module in (module for stage in others for module in stage.modules):
            module.to("meta")

    def prepare_round(self, round_number: int, layout: Layout, numbers: Tensor) -> None:
        """Tells the learner which round it is, and the travelling buffers that it begins from.

        Args:
            round_number: from 1.
            layout: of the numbers: the whole model's, or a part's.
            numbers: as they came [numel], in any dtype.
        """
        spans = places(layout.names, layout.sizes)
        shapes = dict(zip(layout.names, layout.shapes, strict=True))
        self.learner.receive_buffers(
            {
                name: numbers[span].view(shapes[name]).to(self.client.device, torch.float32, copy=True)
                for name, span in spans.items()
                if span.start >= layout.trained
            }
        )
        self.learner.prepare_round(round_number)


class ModelPart:
    """The client's part of a cut model, or the server's: which numbers of the global buffer, and which
    weights of the network.

    Args:
        model: the whole.
        composed: its stages as a module.
        tuned: its tensors, by their names in the layout.
        stages: the part's.
        device: where it is.
    """

    def __init__(
        self,
        model: SplitModel,
        composed: Composed,
        tuned: Tuned,
        stages: Sequence[Stage],
        device: torch.device,
    ) -> None:
        self.composed = composed
        self.device = device
        self.whole = model.layout
        self.training = model.training
        modules = [module for stage in stages for module in stage.modules]
        own = {id(t) for module in modules for t in (*module.parameters(), *module.buffers())}
        self.layout = model.layout.part([name for name, t in tuned.travelling.items() if id(t) in own])
        self.places = model.layout.places(self.layout)
        home = {name: t for name, t in tuned.home.items() if id(t) in own}
        self.home = Layout.of(home, "fp32")  # buffers that stay at home, then parameters that do
        self.initial_home = torch.cat([torch.empty(0, device=device), *(_flat(t) for t in home.values())])
        paths = {id(t): path for path, t in (*composed.named_parameters(), *composed.named_buffers())}
        travelling = {name: tuned.travelling[name] for name in self.layout.names}
        # what trains, and then what does not; of both first what stays at home
        everything = sorted({**home, **travelling}.items(), key=lambda entry: not _trains(entry[1]))
        self.paths = [paths[id(t)] for _, t in everything]
        self.shapes = [t.shape for _, t in everything]
        groups = [*model.training.groups, *model.learner.groups]
        trained = {name: t.numel() for name, t in everything if _trains(t)}
        sizes = list(trained.values())
        self.groups = grouped(model.training.optimizer, groups, list(trained), sizes)

    def numbers(self, buffer: np.ndarray) -> Tensor:
        """This part's [numel] in fp32, of a global buffer or of one that holds nothing else."""
        alone = len(buffer) == self.layout.nbytes
        numbers = self.layout.view(buffer) if alone else self.whole.view(buffer)[self.places]
        return numbers.to(self.device, torch.float32, copy=True)

    def buffer(self, numbers: Tensor) -> np.ndarray:
        """Numbers [numel] as they are sent."""
        return numbers.to("cpu", self.layout.dtype).view(torch.uint8).numpy()


def _flat(tensor: Tensor) -> Tensor:
    """A copy of its numbers in one row, in fp32."""
    return tensor.detach().flatten().float().clone()


def _trains(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)


class PartWeights:
    """A part's weights in the hands of one client, or of the server: flat, with an optimizer.

    Args:
        part: whose.
        numbers: those that travel [numel] fp32.
        round_number: of the round, from 1.
        home: those that stay at home, as the client kept them; None: as they are at first.
    """

    def __init__(
        self, part: ModelPart, numbers: Tensor, round_number: int, home: np.ndarray | None = None
    ) -> None:
        self.part = part
        self.round_number = round_number
        self.training: Training = part.training
        kept = part.initial_home if home is None else torch.from_numpy(np.array(home)).to(part.device)
        buffers = part.home.numel - part.home.trained
        # Apart, since what is learnt without gradients changes while a graph over the weights is still open.
        self.weights = torch.cat([kept[buffers:], numbers[: part.layout.trained]])
        self.rest = torch.cat([kept[:buffers], numbers[part.layout.trained :]])
        # `step` brings the gradient.
        optimizer = self.training.optimizer
        self.optimizer = FlatOptimizer(optimizer, self.weights, self.weights, part.groups)
        self.leaves = self._leaves()

    def all(self) -> Tensor:
        """What travels [numel]."""
        home = self.part.home
        return torch.cat([self.weights[home.trained :], self.rest[home.numel - home.trained :]])

    def home(self) -> Tensor:
        """What stays at home."""
        home = self.part.home
        return torch.cat([self.rest[: home.numel - home.trained], self.weights[: home.trained]])

    def _leaves(self) -> list[Tensor]:
        """Views of the weights, each a leaf of the graphs made with it, then of the rest."""
        trained = len(self.weights)
        leaves = []
        start = 0
        for shape in self.part.shapes:
            size = shape.numel()
            if start < trained:
                leaves.append(self.weights[start : start + size].view(shape).requires_grad_())
            else:
                leaves.append(self.rest[start - trained : start - trained + size].view(shape))
            start += size
        return leaves

    def run(self, stages: Sequence[Stage], values: Values, leaves: list[Tensor]) -> Values:
        weights = dict(zip(self.part.paths, leaves, strict=True))
        result: Values = functional_call(self.part.composed, weights, (stages, values), tie_weights=False)
        return result

    def step(self, gradient: Tensor, last: Pass, open_graphs: bool = False) -> None:
        """The optimizer's step.

        Args:
            gradient: [trained].
            last: the last pass of the batch that it is of.
            open_graphs: whether there are graphs over the weights that are still open. They keep the weights
                as they were (weight stashing, Harlap et al. 2018), which are copied first.
        """
        self.optimizer.gradient = gradient
        if not self.optimizer.clipped(self.training.part_clip):
            raise DataFailure("training", f"the gradient of step {last.batch + 1} is not finite", last.client)
        if open_graphs:
            self.weights = self.weights.clone()
            self.optimizer.weights = self.weights
            self.leaves = self._leaves()
        self.optimizer.step(self.training.rate_factor(self.round_number, last.batch, last.batches))


class InFlightBatch:
    """A batch between its first pass and its step: which weights it began with, and the gradient so far."""

    def __init__(self, weights: PartWeights) -> None:
        self.leaves = weights.leaves
        self.gradient = torch.zeros_like(weights.weights)
        self.open: dict[int, tuple[Any, ...]] = {}  # by micro-batch, what its way back needs
        self.done = 0  # micro-batches, of which the last one's gradients wait for the step

    def backward(
        self, outputs: Sequence[Tensor], gradients: Sequence[Tensor], wanted: Sequence[Tensor]
    ) -> list[Tensor]:
        """Adds to the batch's gradient what flows back from `outputs` with these `gradients`, and gives the
        gradients of the `wanted` leaves."""
        trained = [leaf for leaf in self.leaves if leaf.requires_grad]
        into = [*wanted, *trained]
        pairs = [(output, g) for output, g in zip(outputs, gradients, strict=True) if output.requires_grad]
        if not pairs or not into:
            return [torch.zeros_like(t) for t in wanted]
        grads = torch.autograd.grad([o for o, _ in pairs], into, [g for _, g in pairs], allow_unused=True)
        start = 0
        for leaf, g in zip(trained, grads[len(wanted) :], strict=True):
            if g is not None:
                self.gradient[start : start + leaf.numel()].add_(g.flatten())
            start += leaf.numel()
        return [torch.zeros_like(t) if g is None else g for t, g in zip(wanted, grads, strict=False)]
