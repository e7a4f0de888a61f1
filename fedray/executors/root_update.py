"""The update that the server makes itself, of clean samples that no client has (FLTrust, Cao et al. 2021)."""

import numpy as np
import torch
from torch import Tensor

from fedray.data.clients import split_test_set
from fedray.executors import Job
from fedray.executors.client_worker import ClientWorker
from fedray.executors.model import master
from fedray.executors.spill import StateArrays
from fedray.randomness import SERVER


class RootUpdate:
    """Trains as clients do, on the samples of the test set that are held out for it. Its model stays in the
    processor's memory from round to round."""

    def __init__(self, job: Job) -> None:
        samples = job.dataset.test
        held_out, _ = split_test_set(job.scenario, len(samples))
        self.worker = ClientWorker(job, torch.device("cpu"), own=(samples, {SERVER: held_out}))

    def of(self, round_number: int, buffer: np.ndarray, state: StateArrays) -> Tensor:
        """How far the server's local update goes from the global model [numel] fp32; zeros where its data
        make it impossible.

        Args:
            round_number: from 1.
            buffer: the global one.
            state: the server's.
        """
        start = master(self.worker.model.flat.layout, buffer, state)
        end, _ = self.worker.train_apart(round_number, SERVER, start.numpy())
        return torch.from_numpy(end) - start
