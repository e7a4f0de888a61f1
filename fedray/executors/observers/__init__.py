"""What an observer learns of the clients' samples (`evaluation.leakage`): one file an attack."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from fedray.executors import Job
from fedray.executors.spill import StateArrays
from fedray.learners.learner import Learner


class Observer(Protocol):
    def measure(
        self, learner: Learner, buffer: np.ndarray, state: StateArrays, sheet: Path
    ) -> dict[str, float]:
        """What the attack tells of the clients' samples: metrics by name.

        Args:
            learner: has the global model.
            buffer: the global one.
            state: the server's.
            sheet: the PNG file that is written, of pictures.
        """


def observer(job: Job, device: torch.device) -> Observer:
    """Who looks at what the scenario's view shows.

    Args:
        job: whose `evaluation.leakage` says how.
        device: where models are.
    """
    section = job.scenario.evaluation.leakage
    assert section is not None
    if section.view == "activations":
        from fedray.executors.split.leaks import ActivationsObserver

        return ActivationsObserver(job)
    if job.scenario.model.inverts_updates:
        from fedray.executors.observers.pictures import PicturesObserver

        return PicturesObserver(job, device)
    from fedray.executors.observers.members import MembersObserver

    return MembersObserver(job, device)
