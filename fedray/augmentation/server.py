"""The server's part of GenFL: it paints, trains the augmented model, and weighs it against the clients'
(Qiang et al. 2024)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedray import shipped
from fedray.augmentation import quality
from fedray.augmentation.extra_samples import CandidateImages, SharedImages, SharedLabels
from fedray.augmentation.image_generator import GeneratedImages, ImageGenerator
from fedray.augmentation.labels import painted
from fedray.augmentation.trial import Trial, chosen, mean_scores
from fedray.augmentation.weighting import Weighting, WeightingContext, mixed
from fedray.data import Samples
from fedray.data.clients import split_test_set
from fedray.data.samples import Array
from fedray.evaluation import judge as judges
from fedray.executors import Job, TrainReport
from fedray.executors.client_worker import ClientWorker
from fedray.executors.companion import COMPANION_KAPPA, COMPANION_SCORES, COMPANION_STATE
from fedray.executors.local_training import AuditedData
from fedray.executors.model import as_sent, master
from fedray.executors.spill import StateArrays
from fedray.planning.workload import measure
from fedray.randomness import SERVER
from fedray.scenario.kinds import implementation
from fedray.scenario.tune_first import GENERATOR
from fedray.transport.buffer import Layout


class AugmentationServer:
    """Holds the generator and a model like the clients', both resident. The pictures lie in the run
    folder."""

    def __init__(self, job: Job, device: torch.device) -> None:
        assert job.scenario.augmentation is not None
        self.job = job
        self.device = device
        self.section = section = job.scenario.augmentation
        self.info = job.dataset.info
        keep = job.run / "pictures" if job.run is not None else None
        if section.tune_first is not None and job.run is not None:
            tuned = job.run / GENERATOR / "model"
            section = section.model_copy(update={"generator": str(tuned)})
        self.generator = ImageGenerator(section, job.folder, self.info, job.scenario.seed, device, keep)

    @cached_property
    def client(self) -> ClientWorker:
        """Trains as clients do; its only client is the server, its samples the pictures."""
        return ClientWorker(self.job, self.device, own=(self._nothing(), {}))

    def prepare(self, task: SharedLabels | Trial, state: StateArrays) -> SharedImages | CandidateImages:
        """Pictures for each client: of these labels, to train on, or of a trial's candidates, to score."""
        if isinstance(task, Trial):
            pictures = self.generator.candidate_images(task.candidates, task.images)
            if self.job.run is not None:
                quality.candidates_sheet(pictures, task.images, self.job.run / "samples" / "candidates.png")
            return CandidateImages(pictures, task.images)
        return SharedImages(self._painted(task.labels, state), task.each)

    def choose(self, task: Trial, state: StateArrays, reports: Sequence[TrainReport]) -> StateArrays:
        """The server's state with each candidate's mean score."""
        scores = {r.client: r.scores for r in reports if r.scores and r.client in task.scorers}
        means = mean_scores(task, scores, len(self.info.label_names))
        return {**state, COMPANION_SCORES: means}

    def train(
        self, round_number: int, labels: np.ndarray, buffer: np.ndarray, state: StateArrays
    ) -> tuple[np.ndarray, TrainReport]:
        """The augmented model w_a [numel] fp32, which never travels, trained on the pictures of these labels
        from the global model, or from its own last weights; and its report, with the kappa_2 of the round
        before, where that is kept.

        Args:
            round_number: from 1.
            labels: of the pictures [n].
            buffer: the global one.
            state: the server's.
        """
        self.client.samples = self._painted(labels, state).samples(self.info)
        self.client.client_indices = {SERVER: np.arange(len(labels))}
        start = master(self.client.model.flat.layout, buffer, state).numpy()
        if self.section.start == "own":
            start = state.get(COMPANION_STATE, start)
        end, report = self.client.train_apart(round_number, SERVER, start)
        before = state.get(COMPANION_KAPPA)
        return end, report if before is None else replace(report, metrics={"kappa_2": float(before)})

    def mix(
        self,
        layout: Layout,
        round_number: int,
        combined: np.ndarray,
        state: StateArrays,
        trained: tuple[np.ndarray, TrainReport],
    ) -> tuple[np.ndarray, StateArrays, TrainReport]:
        """Eq. (1): kappa_1 times the clients' mean and kappa_2 times w_a; kappa_2 in the report. A model that
        failed weighs nothing.

        Args:
            layout: of what travels.
            round_number: from 1.
            combined: the global buffer that the clients' round made.
            state: the server's.
            trained: what `train` gave.
        """
        augmented, report = trained
        if report.failure is not None:
            return combined, state | self._kept(report.metrics.get("kappa_2")), _weighed(report, 0.0)
        clients = master(layout, combined, state)
        own = torch.from_numpy(augmented)
        first, second = self.weighting.kappas(self._context(round_number, clients, own, report))
        sent, kept = as_sent(layout, mixed(clients, own, first, second))
        kept |= {COMPANION_STATE: augmented} if self.section.start == "own" else {}
        return sent, state | kept | self._kept(second), _weighed(report, second)

    def audit(
        self,
        buffer: np.ndarray,
        state: StateArrays,
        labels: np.ndarray,
        grid: Path,
        audited: Sequence[AuditedData | None],
    ) -> dict[str, Any]:
        """How good the data are (Sec. II-B1): each client's local learning error, and how far the gradient of
        its loss lies from that of all of them, as a share of the latter; the same for the pictures, of which
        a sheet is written to `grid`, and beside real images what a judge says of them.

        Args:
            buffer: the global one.
            state: the server's.
            labels: of the pictures [n]; none: clients alone are audited.
            grid: the file of the sheet.
            audited: each client's data; None for one whose data cannot be read.
        """
        clients = sorted(c for c in audited if c is not None)  # added up in one order
        whole = sum(c.samples for c in clients)
        mean = np.zeros(self.client.model.flat.layout.trained, np.float32)
        for c in clients:
            mean += np.float32(c.samples / whole) * c.gradient
        rows = [
            {
                "client": c.client,
                "samples": c.samples,
                "learning_error": c.loss,
                "gradient_gap": quality.gap(c.gradient, mean),
            }
            for c in clients
        ]
        tried = self._tried(state)
        if not len(labels):
            return {"clients": rows} | tried
        pictures = self._painted(labels, state)
        self.client.samples = pictures.samples(self.info)
        self.client.client_indices = {SERVER: np.arange(len(labels))}
        ours = self.client.audit(SERVER, buffer)
        assert ours is not None
        result = {
            "images": len(labels),
            "learning_error": ours.loss,
            "gradient_gap": quality.gap(ours.gradient, mean),
        }
        quality.sheet(pictures, grid)
        if self.section.judge is not None:
            judge = judges.load(shipped.resolve(self.section.judge, self.job.folder))
            result |= quality.judged(judge, pictures, self.info, self._real, self.job.scenario.seed)
        return {"clients": rows, "pictures": result} | tried

    def _tried(self, state: StateArrays) -> dict[str, Any]:
        """Each candidate prompt with its score, and whether it was chosen."""
        if COMPANION_SCORES not in state:
            return {}
        scores = state[COMPANION_SCORES]
        best = chosen(scores)
        prompts = [
            {
                "label": self.info.label_names[label],
                "prompt": self.generator.filled(label, template),
                "score": float(score),
                "chosen": best[label] == template,
            }
            for label, row in enumerate(scores)
            for template, score in enumerate(row)
            if not np.isnan(score)
        ]
        return {"prompts": prompts}

    @cached_property
    def weighting(self) -> Weighting:
        made: Weighting = implementation(self.section.weighting)(self.section.weighting)
        return made

    def _context(
        self, round_number: int, clients: Tensor, augmented: Tensor, report: TrainReport
    ) -> WeightingContext:
        """What the two models of a round are weighed by.

        Args:
            round_number: from 1.
            clients: their mean [numel] fp32.
            augmented: the augmented model [numel] fp32.
            report: of its training.
        """
        return WeightingContext(
            round_number=round_number,
            rounds=self.job.scenario.training.rounds,
            clients=clients,
            augmented=augmented,
            kappa_2=report.metrics.get("kappa_2"),
            measure=self.measured,
            augmented_flops=lambda: self._augmented_flops(round_number, report.trained),
        )

    def _augmented_flops(self, round_number: int, trained: int) -> float:
        """Of generating a round's images, and of training on so many."""
        work = measure(self.job.scenario, self.job.folder, self.job.dataset)
        names = len(self.info.label_names)
        rounds = map(self.section.prompts.painting_round, (round_number - 1, round_number))
        until = [painted(self.section, names, rounds_of_painting) for rounds_of_painting in rounds]
        return (until[1] - until[0]) * work.flops_per_picture + trained * work.flops_per_sample

    def measured(self, numbers: Tensor) -> dict[str, float]:
        """Accuracy and loss of a model [numel] fp32 on the held-out images."""
        model = self.client.model
        model.load(numbers)
        held_out, _ = split_test_set(self.job.scenario, len(self._real))
        metrics = model.learner.measure(self._real, held_out)
        return {name: metrics[f"eval_{name}"] for name in ("accuracy", "loss")}

    def _kept(self, kappa_2: float | None) -> StateArrays:
        """What the server keeps of a round's weights."""
        keeps = self.section.weighting.keeps_kappa and kappa_2 is not None
        return {COMPANION_KAPPA: np.array(kappa_2)} if keeps else {}

    @cached_property
    def _real(self) -> Samples:
        return self.job.dataset.test

    def _painted(self, labels: np.ndarray, state: StateArrays) -> GeneratedImages:
        """Pictures of these labels, of the prompts that clients' scores have chosen."""
        if COMPANION_SCORES in state:
            self.generator.chosen = chosen(state[COMPANION_SCORES])
        return self.generator.generate(SERVER, labels)

    def _nothing(self) -> Array:
        empty = np.zeros((0, self.info.channels, 1, 1), np.uint8)
        return Array(lambda: empty, np.zeros(0, int), self.info.label_names)


def _weighed(report: TrainReport, kappa_2: float) -> TrainReport:
    """With what the augmented model adds to the round's metrics."""
    loss = None if report.failure else report.loss
    metrics = {"augmented_loss": loss, "pictures": report.samples, "kappa_2": kappa_2}
    return replace(report, metrics={**report.metrics, **metrics})
