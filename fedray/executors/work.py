"""What each kind of step does, wherever it runs: a client's turn, the server's part. Nothing here knows of actors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from fedray.aggregation.fedavg import FedAvg
from fedray.data import holdings
from fedray.executors import Job, TrainReport
from fedray.learners.bases import locate
from fedray.learners.text_to_image import Shard, TextToImage
from fedray.parameters import DTYPES, FlatParameters, Layout, sha256
from fedray.randomness import generator, key
from fedray.scenario.training import AdamW, Optimizer
from fedray.tuning.tunings import apply, export


class DataFailure(Exception):
    """A client's own failure: its data or its loss, not the machine it runs on."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


class Model:
    """A learner with its tuning, resident, and the flat buffer over what trains."""

    def __init__(self, job: Job, device: torch.device) -> None:
        scenario = job.scenario
        _make_deterministic(scenario.runtime.threads)
        self.scenario = scenario
        self.learner = TextToImage.load(
            scenario.model, locate(scenario.model.base, job.folder), device, DTYPES[scenario.training.precision]
        )
        named = apply(scenario.tuning, self.learner, scenario.seed)
        self.flat = FlatParameters(named, scenario.payload, device)
        self.learner.prepare_training(scenario.training.gradient_checkpointing)

    def export(self, buffer: np.ndarray, folder: Path) -> None:
        """The result's files, as the last thing it does: its adapter is merged then."""
        self.flat.receive(buffer)
        export(self.scenario.tuning, self.learner, self.flat.layout, buffer, folder)


class ClientWork:
    """Runs any client's turn. A client's encoded samples are kept; nothing else outlives a turn."""

    def __init__(self, job: Job, device: torch.device, site: str | None = None) -> None:
        self.job, self.model = job, Model(job, device)
        self.samples, self.held = holdings(job.scenario, job.folder, site)
        self._shards: dict[int, Shard] = {}

    def initial(self) -> tuple[np.ndarray, Layout]:
        """The buffer before the first round, the same from every worker."""
        return self.model.flat.send(), self.model.flat.layout

    def train(self, round: int, client: int, buffer: np.ndarray) -> tuple[np.ndarray, TrainReport]:
        """One turn (huang2023, Sec. IV, Step 2) from `buffer`. A client that fails hands on what it was given."""
        held = len(self.held[client])
        try:
            loss, trained = self._turn(round, client, buffer)
            new = self.model.flat.send()
            layout = self.model.flat.layout
            try:
                FedAvg.refuse_unsummable(layout.view(new), layout.view(buffer))
            except ValueError as e:
                raise DataFailure("training", f"{e} (a smaller learning rate?)") from None
        except DataFailure as e:
            return buffer, TrainReport(round, client, held, 0, math.nan, failure=str(e), stage=e.stage)
        return new, TrainReport(round, client, held, trained, loss)

    def export(self, buffer: np.ndarray, folder: Path) -> None:
        self.model.export(buffer, folder)

    def _turn(self, round: int, client: int, buffer: np.ndarray) -> tuple[float, int]:
        scenario, training, learner, flat = self.job.scenario, self.job.scenario.training, self.model.learner, self.model.flat
        shard = self._shard(client)
        flat.receive(buffer)
        torch.manual_seed(key(scenario.seed, round, client, "dropout"))
        draws = torch.Generator().manual_seed(key(scenario.seed, round, client, "noise"))
        # fp16 gradients underflow: the loss is scaled, and a step whose scaled gradients overflow is left out.
        scale = 1024.0 if training.precision == "fp16" else 1.0
        optimizer = make_optimizer(training.optimizer, flat.master)
        losses, trained = [], 0
        for step, indices in enumerate(
            batches(training.batches(len(shard)), len(shard), generator(scenario.seed, round, client, "batches"))
        ):
            flat.master.grad.zero_()  # type: ignore[union-attr]
            loss = learner.loss(learner.draw(shard, indices, draws))
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise DataFailure(
                    "training", f"the loss of step {step + 1} is {losses[-1]}, expected a finite number (a smaller learning rate?)"
                )
            (loss * scale).backward()
            flat.master.grad.div_(scale)  # type: ignore[union-attr]
            norm = torch.nn.utils.clip_grad_norm_([flat.master], training.clip_norm or math.inf)
            if not torch.isfinite(norm):
                if scale == 1:
                    raise DataFailure("training", f"the gradient of step {step + 1} is not finite")
                scale /= 2
                continue
            optimizer.step()
            trained += len(indices)
        return sum(losses) / len(losses), trained

    def _shard(self, client: int) -> Shard:
        if client not in self._shards:
            try:
                self._shards[client] = self.model.learner.encode(self.samples, [int(i) for i in self.held[client]])
            except ValueError as e:
                raise DataFailure("preparing its data", str(e)) from None
        return self._shards[client]


class ServerWork:
    """The server's part. It keeps nothing between calls that it could not build again, so it may be restarted."""

    def __init__(self, job: Job) -> None:
        self.job = job
        _make_deterministic(job.scenario.runtime.threads)

    def aggregate(self, layout: Layout, buffer: np.ndarray, arrived: Sequence[tuple[np.ndarray, Sequence[TrainReport]]]) -> np.ndarray:
        """The next global buffer, from what each chain sent and the reports of the turns that made it. A chain weighs
        what its clients that trained hold."""
        base = layout.flat(buffer)
        total = FedAvg.zero(layout.numel, sum(r.samples for _, reports in arrived for r in reports))
        for local, reports in arrived:
            if samples := sum(r.samples for r in reports if r.failure is None):
                total.add(layout.flat(local), base, samples)
        return total.finish(base).view(torch.uint8).numpy()

    def checkpoint(self, layout: Layout, buffer: np.ndarray, file: Path) -> str:
        layout.save(buffer, file)
        return sha256(buffer)

    def restore(self, layout: Layout, file: Path, expected: str) -> np.ndarray:
        buffer = layout.load(file)
        if (got := sha256(buffer)) != expected:
            raise ValueError(f"{file} has sha256 {got[:12]}..., expected {expected[:12]}...")
        return buffer


class EvaluatorWork:
    """Looks at global buffers with a model of its own, off the rounds' path."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.device = job, device

    def evaluate(self, buffer: np.ndarray, grid: Path) -> dict[str, float]:
        from fedray.evaluation.evaluate import evaluate

        self._model.flat.receive(buffer)
        return evaluate(self.job.scenario, self.job.folder, self._model.learner, grid)

    def export(self, buffer: np.ndarray, folder: Path) -> None:
        self._model.export(buffer, folder)

    @cached_property
    def _model(self) -> Model:
        return Model(self.job, self.device)


def batches(sizes: Sequence[int], samples: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Index arrays of one turn: the samples in a fresh order each time they have all been used."""
    stream: list[int] = []
    out = []
    for size in sizes:
        while len(stream) < size:
            stream += rng.permutation(samples).tolist()
        out.append(np.array(stream[:size]))
        stream = stream[size:]
    return out


def make_optimizer(section: Optimizer, parameter: torch.nn.Parameter) -> torch.optim.Optimizer:
    if isinstance(section, AdamW):
        betas = (section.beta1, section.beta2)
        return torch.optim.AdamW([parameter], lr=section.learning_rate, weight_decay=section.weight_decay, betas=betas, eps=section.eps)
    return torch.optim.SGD([parameter], lr=section.learning_rate, weight_decay=section.weight_decay, momentum=section.momentum)


def _make_deterministic(threads: int) -> None:
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
