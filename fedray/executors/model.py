"""A learner with its tuning, resident in a worker; and the global model as the server has it."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from fedray.aggregation.rules import rule
from fedray.executors import Job
from fedray.executors.optimizer import Group, grouped
from fedray.executors.spill import StateArrays
from fedray.files import naming
from fedray.learners.learners import load
from fedray.randomness import SERVER, key
from fedray.scenario.quantized_formats import QUANTIZED
from fedray.transport.buffer import DTYPES, FlatParameters, Layout
from fedray.transport.compression import hook_chain
from fedray.tuning.tunings import tuning

EMA = "ema"  # the moving average of the global model, in the server's state
MASTER = "master"  # the global model in fp32, in the server's state, where what is sent has less precision


def master(layout: Layout, buffer: np.ndarray, state: StateArrays | None) -> Tensor:
    """The global numbers [received] in fp32 as the server has them. They are the buffer's own where that is
    fp32."""
    if state and MASTER in state:
        return torch.from_numpy(state[MASTER])
    return layout.view(buffer).float()


def returned(end: Tensor, sent: Tensor, ours: Tensor) -> Tensor:
    """The numbers of a model [n] that went from hand to hand, as the server is to take them: where it came
    back as it was `sent` nobody has changed it, and the server's own fp32 ones are what they were, not
    rounded."""
    return end.float().where(end != sent, ours[: len(end)])


def as_sent(layout: Layout, numbers: Tensor) -> tuple[np.ndarray, StateArrays]:
    """The buffer that is sent of global numbers [received] fp32, and what the server keeps of them beside
    it."""
    if layout.dtype == torch.float32:
        return numbers.contiguous().view(torch.uint8).numpy(), {}
    return numbers.to(layout.dtype).view(torch.uint8).numpy(), {MASTER: numbers.numpy()}


class Model:
    """A learner with its tuning, resident, and the flat buffer over what trains."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job = job
        scenario = job.scenario
        make_deterministic(scenario.runtime.threads)
        self.scenario = scenario
        self.learner = load(scenario, job.folder, device, DTYPES[scenario.training.precision], job.dataset)
        self.tuning = tuning(scenario.tuning, scenario.seed, scenario.aggregation.frozen)
        self.tuned = tuned = self.tuning.apply(self.learner)
        self.flat = FlatParameters(tuned.travelling, scenario.payload, device, tuned.home)
        layout = self.flat.layout
        known = {id(t) for t in (*tuned.travelling.values(), *tuned.home.values())}
        modules = (module for part in self.learner.parts.values() for module in part.modules())
        # which neither travel nor stay with a client: no local update sees what another one left in them. By
        # their names, as a module that moves to another device has other tensors then
        self._other_buffers = [
            (module, name, buffer.clone())
            for module in modules
            for name, buffer in module.named_buffers(recurse=False)
            if id(buffer) not in known
        ]
        self.rule = rule(scenario.aggregation, layout)
        self.hooks = hook_chain(scenario)
        bases = self.tuning.base_weights(self.learner, layout) if self.rule.updates_base_weights else []
        self._bases = [(weight, weight.detach().float().clone()) for weight in bases]
        self.learner.prepare_training(scenario.training.gradient_checkpointing)

    @property
    def groups(self) -> list[Group]:
        """The numbers that train by the optimizer that steps them."""
        training = self.scenario.training
        names = self.flat.trained_names
        sizes = self.flat.trained_sizes
        return grouped(training.optimizer, [*training.groups, *self.learner.groups], names, sizes)

    def initial(self) -> tuple[np.ndarray, StateArrays]:
        """The buffer before the first round and the server's state: this model's numbers as they are now, and
        zeros for what the rule adds."""
        models = [self.flat.all.detach().cpu().clone()]
        models += [self._other_initial(number) for number in range(1, self.rule.models)]
        numbers = torch.cat(models)
        return as_sent(self.flat.layout, F.pad(numbers, (0, self.rule.received - len(numbers))))

    def _other_initial(self, number: int) -> Tensor:
        """What travels [numel] of the same model with weights drawn from another seed."""
        seed = key(self.scenario.seed, 0, SERVER, f"model {number}")
        other = replace(self.job, scenario=self.scenario.model_copy(update={"seed": seed}))
        return Model(other, self.learner.device).flat.all.detach().cpu()

    def export(self, buffer: np.ndarray, state: StateArrays, folder: Path) -> None:
        """The result's files, as the last thing it does: its adapter is merged then."""
        runtime = self.scenario.runtime
        spread = self.learner.context.devices
        # adapters are merged into the base's own weights, and where those are: a spread base fits in no GPU
        if spread or runtime.base_precision in QUANTIZED:
            runtime = runtime.model_copy(update={"base_precision": None, "gpus_per_actor": "auto"})
            scenario = self.scenario.model_copy(update={"runtime": runtime})
            device = torch.device("cpu") if spread else self.learner.device
            Model(replace(self.job, scenario=scenario), device).export(buffer, state, folder)
            return
        self._export_others(buffer, state, folder)
        self.receive(buffer, state)
        adapter = not self.rule.updates_base_weights
        try:
            with naming(folder):
                self.tuning.export(self.learner, self.flat.layout, folder, adapter)
        except SafetensorError as e:  # a disk that is full, among others
            raise OSError(errno.EIO, str(e), str(folder)) from None

    def _export_others(self, buffer: np.ndarray, state: StateArrays, folder: Path) -> None:
        """Of several global models all but the first, each in a folder of its own."""
        numbers = master(self.flat.layout, buffer, state)
        n = self.flat.layout.numel
        for number in range(1, self.rule.models):
            model = Model(self.job, self.learner.device)
            model.load(numbers[number * n : (number + 1) * n])
            with naming(folder):
                model.tuning.export(model.learner, model.flat.layout, folder / f"cluster-{number + 1}")

    def receive(
        self, buffer: np.ndarray, state: StateArrays | None = None, home: Tensor | None = None
    ) -> None:
        """The model in a global buffer; with the server's state, its master or its moving average where there
        is one; with a client's own numbers where it is given them."""
        self.load(master(self.flat.layout, buffer, state), home)
        if state and EMA in state:
            self.flat.all.copy_(torch.from_numpy(state[EMA]))

    def load(self, numbers: Tensor, home: Tensor | None = None) -> None:
        """The model of global numbers [received] fp32: what travels, then what is added to base weights.

        Args:
            numbers: global.
            home: a client's own numbers; None: the initial ones, as at the server.
        """
        n = self.flat.layout.numel
        self.flat.all.copy_(numbers[:n])
        self.flat.load_home(home)
        for module, name, initial in self._other_buffers:
            module.get_buffer(name).copy_(initial)
        if self._bases:
            changes = numbers[n:].split([weight.numel() for weight, _ in self._bases])
            for (weight, original), change in zip(self._bases, changes, strict=True):
                weight.copy_(original + self.tuning.base_scale * change.to(original).view_as(original))


def make_deterministic(threads: int) -> None:
    """The same bits from the same numbers. On CUDA strictly: with warnings alone, attention's backward pass
    stays one that adds in any order. None of our models, losses and metrics uses what torch documents to have
    no deterministic form (torch.use_deterministic_algorithms), so that nothing raises; a base from elsewhere
    whose layers do ends the run."""
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        # which cuBLAS asks for before its first product
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
