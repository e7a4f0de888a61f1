"""Which samples clients trained on, by their losses: membership inference."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from fedray.data import Samples, holdings
from fedray.evaluation.membership import auc, losses, true_positives
from fedray.executors import DataFailure, Job
from fedray.executors.observers.clients import ObservedClients, held_out
from fedray.executors.spill import StateArrays
from fedray.learners.learner import Learner
from fedray.learners.sheets import write_sheet
from fedray.randomness import SERVER, generator, key

SHOWN = 8  # pictures of either kind


class MembersObserver:
    """Compares the losses of samples that clients trained on with those of held-out samples. One client's
    update is seen as the model that it makes of the global one; a sum of updates, and a relay's whole chain,
    as the global model itself, on which samples of any client may have been trained.

    Args:
        job: the run's.
        device: where the model is.
    """

    def __init__(self, job: Job, device: torch.device) -> None:
        section = job.scenario.evaluation.leakage
        assert section is not None
        self.job = job
        self.device = device
        self.section = section
        topology = job.scenario.topology
        whole_chain = section.view == "server" and topology.hands_model_on
        self.sees_one_client = section.view != "sum" and not whole_chain

    def measure(
        self, learner: Learner, buffer: np.ndarray, state: StateArrays, sheet: Path
    ) -> dict[str, float]:
        """How well members are distinguished from others; nothing where the client cannot train.

        Args:
            learner: has the global model.
            buffer: the global one.
            state: the server's.
            sheet: the PNG file to write: the pictures of either kind with the lowest losses.
        """
        if self.sees_one_client:
            worker = self._worker
            received = worker.model.flat.layout.view(buffer).float()
            try:
                update = worker.observed(self._client, received, state)
            except DataFailure:
                return {}
            seen = received.clone()
            seen[: len(update)] += update
            worker.model.load(seen)
            learner = worker.learner
        train, members = self._members
        test = self.job.dataset.test
        others = self._others
        of_members = self._losses(learner, train, members)
        of_others = self._losses(learner, test, others)
        if train.has_images:
            surest = [
                samples.pixels(indices[np.argsort(loss, kind="stable")[:SHOWN]], learner.size)
                for samples, indices, loss in ((train, members, of_members), (test, others, of_others))
            ]
            pictures = torch.from_numpy(np.concatenate(surest)).float() / 255
            sheet.parent.mkdir(parents=True, exist_ok=True)
            write_sheet(pictures.expand(-1, 3, -1, -1), SHOWN, sheet)
        return {
            "eval_membership_auc": round(auc(of_members, of_others), 6),
            "eval_membership_tpr": round(true_positives(of_members, of_others), 6),
            "eval_membership_samples": float(len(members)),
        }

    def _losses(self, learner: Learner, samples: Samples, indices: np.ndarray) -> np.ndarray:
        seed = key(self.job.scenario.seed, 0, SERVER, "membership")
        return losses(learner, samples, indices, self.section.draws, seed)

    @cached_property
    def _worker(self) -> ObservedClients:
        return ObservedClients(self.job, self.device)

    @cached_property
    def _client(self) -> int:
        """The client that is looked at: drawn once a run, among those with the most samples."""
        indices = self._worker.client_indices
        largest = max(len(indices[c]) for c in indices)
        draw = generator(self.job.scenario.seed, 0, SERVER, "observed client")
        return int(draw.choice([c for c in indices if len(indices[c]) == largest]))

    @cached_property
    def _members(self) -> tuple[Samples, np.ndarray]:
        """Training samples, and indices of those that are tried."""
        if self.sees_one_client:
            samples = self._worker.samples
            own = self._worker.client_indices[self._client]
        else:
            samples, held = holdings(self.job.scenario, self.job.folder, None, self.job.dataset)
            own = np.concatenate([held[client] for client in held])
        n = min(self.section.samples // 2, len(own))
        draw = generator(self.job.scenario.seed, 0, SERVER, "members")
        return samples, np.sort(draw.choice(own, n, replace=False))

    @cached_property
    def _others(self) -> np.ndarray:
        """Indices of the test samples that are tried."""
        return np.sort(held_out(self.job)[: self.section.samples // 2])
