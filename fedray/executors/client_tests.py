"""Each client's own model, tested on its own distribution (`evaluation.clients`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedray.data import holdings_for_tests
from fedray.executors import attribute_error
from fedray.executors.relay_worker import tensors
from fedray.executors.spill import StateArrays

if TYPE_CHECKING:
    from fedray.executors.local_training import LocalTraining

TestRow = dict[str, Any]  # client, samples, and what the learner measures of them


class ClientTests:
    """Tests with a worker's model, of the clients that the worker may open samples of.

    Args:
        training: the worker's; its model's numbers are written over.
    """

    def __init__(self, training: LocalTraining) -> None:
        self.training = training
        job = training.job
        self.samples, self.held = holdings_for_tests(job.scenario, job.folder, training.site, job.dataset)

    def rows(
        self,
        round_number: int,
        buffer: np.ndarray,
        clients: Sequence[int],
        states: Mapping[int, StateArrays | None],
    ) -> list[TestRow]:
        """Of each client that has something to be tested on, how the model does that it would use now.

        Args:
            round_number: after which it is tested.
            buffer: the global one.
            clients: by number.
            states: what they keep.
        """
        layout = self.training.model.flat.layout
        received = layout.view(buffer).float()
        result: list[TestRow] = []
        for client in clients:
            indices = self.held[client]
            if not len(indices):
                continue
            with attribute_error(round_number, "testing its model", client):
                self.training.load_own_model(round_number, client, received, tensors(states.get(client)))
                measured = self.training.learner.measure(self.samples, indices)
            measured.pop("eval_samples", None)
            named = {name.removeprefix("eval_"): float(value) for name, value in measured.items()}
            result.append({"client": client, "samples": len(indices)} | named)
        return result
