"""Clients whose updates are looked at."""

import numpy as np
from torch import Tensor

from fedray.data.clients import split_test_set
from fedray.executors import Job
from fedray.executors.client_worker import ClientWorker
from fedray.executors.global_step import hooks_state
from fedray.executors.spill import StateArrays
from fedray.randomness import SERVER, generator
from fedray.transport.hooks import HookContext


class ObservedClients(ClientWorker):
    """Clients that train from the global model of now, so that an observer can look at their updates. Nothing
    of that reaches the run."""

    def observed(self, client: int, received: Tensor, state: StateArrays) -> Tensor:
        """What an observer gets of a client's update [numel] fp32, after the client's hooks.

        Args:
            client: by number.
            received: the numbers [received] fp32 that the client got.
            state: the server's.

        Raises:
            DataFailure: where it cannot train.
        """
        update = self.run(0, client, received, {})
        change = self._change(update)
        context = HookContext(self.job.scenario.seed, 0, client, server=hooks_state(state))
        hooks = self.model.hooks
        layout = self.model.flat.layout
        if not self.job.scenario.topology.hands_model_on:
            return hooks.through(change, context)[: layout.numel].clone()
        change = hooks.on_client(change[: layout.numel], context)
        start = received[: layout.numel]
        return (start + change).to(layout.dtype).float() - start


def held_out(job: Job) -> np.ndarray:
    """Indices of the test samples that nobody trains on, in an order that is drawn once a run."""
    scenario = job.scenario
    _, measured_on = split_test_set(scenario, len(job.dataset.test))
    return generator(scenario.seed, 0, SERVER, "leakage").permutation(measured_on)
