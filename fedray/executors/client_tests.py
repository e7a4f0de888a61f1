"""Models tested on clients' own distributions: each client's own (`evaluation.clients`), and the global one
on what is held out of every client's samples (`data.holdout`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from fedray.data import held_out, holdings_for_tests
from fedray.evaluation.client_tests import HOLDOUT
from fedray.executors import Job, attribute_error
from fedray.executors.model import Model
from fedray.executors.own_model import HOME
from fedray.executors.relay_worker import tensors
from fedray.executors.spill import StateArrays

if TYPE_CHECKING:
    from fedray.executors.local_training import LocalTraining

TestRow = dict[str, Any]  # client, samples, and what the learner measures of them
ClientStates = Mapping[int, StateArrays | None]


@dataclass(frozen=True)
class GlobalModel:
    """What is tested.

    Attributes:
        round_number: after which; 0: the base model.
        buffer: the global one.
        server: what the server keeps beside it, where that is evaluated.
        own: the buffers of clients that begin with models of their own, by client.
    """

    round_number: int
    buffer: np.ndarray
    server: StateArrays
    own: Mapping[int, np.ndarray] = field(default_factory=dict)


class OwnModelTests:
    """Tests of clients' own models.

    Args:
        training: the worker's; its model's numbers are written over.
    """

    def __init__(self, training: LocalTraining) -> None:
        self.training = training
        job = training.job
        self.samples, self.held = holdings_for_tests(job.scenario, job.folder, training.site, job.dataset)

    def row(self, tested: GlobalModel, client: int, state: dict[str, Tensor]) -> TestRow:
        """How the model does that a client would use now; nothing where it has no samples for that."""
        indices = self.held[client]
        if not len(indices) or not tested.round_number:
            return {}
        training = self.training
        buffer = tested.own.get(client, tested.buffer)
        received = training.model.flat.layout.view(buffer).float()
        with attribute_error(tested.round_number, "testing its model", client):
            training.load_own_model(tested.round_number, client, received, state)
            measured = training.learner.measure(self.samples, indices)
        return {"samples": len(indices)} | _named(measured, "")


class HoldoutTests:
    """Tests of the global model, with what stays at home of each client.

    Args:
        job: the run's.
        site: of whose clients the data are, where data lie at sites.
        model: whose numbers are written over.
        choose: which of several global models a client takes, of round, client, all their numbers [received]
            fp32 and what it keeps; None: there is one.
    """

    def __init__(
        self, job: Job, site: str | None, model: Model, choose: Callable[..., Tensor] | None = None
    ) -> None:
        self.section = job.scenario.evaluation
        self.model = model
        self.choose = choose
        self.samples, self.held = held_out(job.scenario, job.folder, site, job.dataset)

    def row(self, tested: GlobalModel, client: int, state: dict[str, Tensor]) -> TestRow:
        """How the global model does on a client's held-out samples; nothing where it holds none."""
        indices = self.held[client]
        if not len(indices):
            return {}
        model = self.model
        with attribute_error(tested.round_number, "measuring its held-out samples", client):
            if self.choose is None:
                model.receive(tested.buffer, tested.server, state.get(HOME))
            else:
                received = model.flat.layout.view(tested.buffer).float()
                received = self.choose(tested.round_number, client, received, state)
                model.load(received, state.get(HOME))
            measured = model.learner.measure_held_out(self.samples, indices, self.section, client)
        return {f"{HOLDOUT}samples": len(indices)} | _named(measured, HOLDOUT)


def _named(measured: dict[str, float], prefix: str) -> TestRow:
    """A learner's metrics by what a client's row calls them."""
    return {
        prefix + name.removeprefix("eval_"): float(value)
        for name, value in measured.items()
        if name != "eval_samples"
    }


def rows_of(
    tests: Sequence[OwnModelTests | HoldoutTests],
    tested: GlobalModel,
    clients: Sequence[int],
    states: ClientStates,
) -> list[TestRow]:
    """A row of each client that has something to be tested on.

    Args:
        tests: that are made.
        tested: the model.
        clients: by number.
        states: what they keep.
    """
    rows: list[TestRow] = []
    for client in clients:
        state = tensors(states.get(client))
        row: TestRow = {}
        for test in tests:
            row |= test.row(tested, client, state)
        if row:
            rows.append({"client": client} | row)
    return rows
