"""Which pictures clients trained on: updates inverted."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedray.evaluation.inversion import SimulatedUpdate, Steps, invert, labels_of, share_of_labels
from fedray.evaluation.similarity import matched, psnr, ssim
from fedray.executors import DataFailure, Job
from fedray.executors.observers.clients import ObservedClients, held_out
from fedray.executors.spill import StateArrays
from fedray.learners.learner import Learner
from fedray.learners.sheets import write_sheet
from fedray.randomness import SERVER, key

SHOWN = 8  # pictures, and what is made of them
OTHERS = 500  # held-out pictures at most, whose mean is guessed


class PicturesObserver:
    """Inverts the updates of stand-in clients, which hold pictures that nobody trains on. Their numbers are
    beyond those of the scenario's own clients: none of them attacks, and their draws are their own.

    Args:
        job: the run's.
        device: where the model is.
    """

    def __init__(self, job: Job, device: torch.device) -> None:
        scenario = job.scenario
        section = scenario.evaluation.leakage
        assert section is not None
        self.section = section
        self.seed = scenario.seed
        self.samples = job.dataset.test
        updates, turns = section.seen(scenario)
        order = held_out(job)
        n = updates * turns * section.pictures
        self.indices = order[:n]
        self.others = order[n:][:OTHERS]
        first = scenario.population.clients
        parts = np.split(np.arange(n), updates * turns)
        own = {first + i: self.indices[part] for i, part in enumerate(parts)}
        self.worker = ObservedClients(job, device, own=(self.samples, own))
        self.chains = np.array(list(own)).reshape(updates, turns).tolist()
        self.batches = [
            [self._batches(client, parts[client - first]) for client in chain] for chain in self.chains
        ]

    def measure(
        self, learner: Learner, buffer: np.ndarray, state: StateArrays, sheet: Path
    ) -> dict[str, float]:
        """How well pictures and labels are recovered, beside guessing the mean picture of others (`_floor`);
        nothing where stand-in clients cannot train.

        Args:
            learner: has the global model.
            buffer: the global one.
            state: the server's.
            sheet: the PNG file to write: originals above what is made of them.
        """
        received = self.worker.model.flat.layout.view(buffer).float()
        try:
            updates = [self._observed(chain, received, state) for chain in self.chains]
        except DataFailure:
            return {}
        self.worker.model.load(received)
        trained = self.worker.model.flat.layout.trained
        observed = torch.stack(updates).mean(0)[:trained].to(self.worker.learner.device)
        batch = self._batch(self.indices)
        originals = in_unit_range(batch.images)
        made = matched(in_unit_range(self._inverted(observed, batch)), originals)
        guess = in_unit_range(self._batch(self.others).images).mean(0).expand_as(originals)
        pictures = torch.cat([originals[:SHOWN], made[:SHOWN]]).cpu()
        sheet.parent.mkdir(parents=True, exist_ok=True)
        write_sheet(pictures.expand(-1, 3, -1, -1), len(originals[:SHOWN]), sheet)
        values = {
            "eval_leakage_psnr": psnr(made, originals),
            "eval_leakage_psnr_floor": psnr(guess, originals),
            "eval_leakage_ssim": ssim(made, originals),
            "eval_leakage_ssim_floor": ssim(guess, originals),
        }
        metrics = {name: round(float(each.mean()), 6) for name, each in values.items()}
        return metrics | self._labels(observed, batch.labels.tolist())

    def _batches(self, client: int, places: np.ndarray) -> list[Tensor]:
        """Of a stand-in client's local update: where each batch's pictures are among all."""
        order = self.worker.batch_order(0, client, len(places))
        return [torch.from_numpy(places[batch]) for batch in order]

    def _batch(self, indices: np.ndarray) -> Any:
        """Test pictures as a step of the learner takes them."""
        learner = self.worker.learner
        return learner.draw(learner.encode(self.samples, indices), np.arange(len(indices)), torch.Generator())

    def _observed(self, chain: list[int], received: Tensor, state: StateArrays) -> Tensor:
        """What is seen of local updates [numel] fp32, each from where the one before it ended."""
        n = self.worker.model.flat.layout.numel
        reached = received.clone()
        for client in chain:
            reached[:n] += self.worker.observed(client, reached, state)
        return reached[:n] - received[:n]

    def _inverted(self, observed: Tensor, batch: Any) -> Tensor:
        """Pictures as in a batch, made of an update [trained]."""
        section = self.section
        return invert(
            observed,
            self._simulated(batch),
            batch.images.shape,
            section.attack_steps,
            section.total_variation,
            key(self.seed, 0, SERVER, "attack"),
        )

    def _simulated(self, batch: Any) -> SimulatedUpdate:
        """What the attacker computes of pictures in place of a batch's: the update from the worker's model of
        now."""
        training = self.worker.job.scenario.training
        optimizer = training.optimizer
        assert optimizer.kind == "sgd"
        return SimulatedUpdate(
            self.worker.learner,
            self._names(),
            self.worker.model.flat.travelling_trained,
            Steps(optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay, training.clip),
            self.batches,
            batch,
        )

    def _names(self) -> list[str]:
        """Of the weights that train, in the order in which updates have them."""
        learner = self.worker.learner
        named = {
            f"{part}.{name}": weight
            for part, module in learner.parts.items()
            for name, weight in module.named_parameters()
            if weight.requires_grad
        }
        return sorted(named, key=lambda name: named[name].storage_offset())

    def _labels(self, observed: Tensor, labels: list[int]) -> dict[str, float]:
        """The share of labels that are recovered from the update [trained] alone; nothing where no bias of
        the last layer trains."""
        n = len(labels)
        layout = self.worker.model.flat.layout
        counted = {"eval_leakage_images": float(n)}
        bias = (len(self.samples.label_names),)
        if bias not in layout.shapes:
            return counted
        last = max(i for i, shape in enumerate(layout.shapes) if shape == bias)
        start = sum(layout.sizes[:last])
        guessed = labels_of(-observed[start : start + bias[0]].cpu(), n)
        return counted | {"eval_leakage_labels": round(share_of_labels(guessed, labels), 6)}


def in_unit_range(pictures: Tensor) -> Tensor:
    """Pictures in -1..1 as such in 0..1."""
    return (pictures / 2 + 0.5).clamp(0, 1)
