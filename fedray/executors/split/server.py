"""The server's passes in a split round, wherever they run."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedray.aggregation.accumulators import Accumulator
from fedray.aggregation.rules import rule
from fedray.executors import Job, ServerRestarted, attribute_error, refuse_infinite
from fedray.executors.local_training import seed_dropout, summable
from fedray.executors.model import as_sent, master, returned
from fedray.executors.spill import StateArrays
from fedray.executors.split.crossings import crossing_seed, dropout_seed
from fedray.executors.split.split_model import InFlightBatch, PartWeights, SplitModel
from fedray.learners.cut import named, tensors
from fedray.steps import Pass
from fedray.transport.buffer import Layout
from fedray.transport.hooks import HookContext
from fedray.transport.messages import Message, NamedTensors, pack, unpack


class SplitServer:
    """Serves in the order in which it is asked. A round begins with `begin` and ends with `finish`."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job = job
        self.device = device
        self.model = SplitModel(job, device, "server")
        self.section = job.scenario.split
        self.cut = self.model.cut
        self.part = self.model.server
        self.wire = self.model.wire
        self.attempt: int | None = None

    def initial(self) -> tuple[np.ndarray, Layout, StateArrays]:
        sent, kept = as_sent(self.model.layout, self.model.initial)
        return sent, self.model.layout, kept

    def begin(self, attempt: int, round_number: int, buffer: np.ndarray, state: StateArrays) -> None:
        """Begins a round from a global buffer and the server's state. Attempts at rounds are numbered through
        a run.

        Args:
            attempt: the number of the attempt at a round, through the run.
            round_number: from 1.
            buffer: the global one.
            state: the server's.
        """
        self.attempt = attempt
        self.round_number = round_number
        self.master = master(self.model.layout, buffer, state)  # its own part does not travel
        # as clients have them, who get no master
        self.model.prepare_round(round_number, self.model.layout, self.model.layout.view(buffer))
        self.weights: dict[int, PartWeights] = {}  # by client with SplitFed v1, otherwise one for all
        self.batches: dict[int, InFlightBatch] = {}  # by client

    def go(self, attempt: int, round_number: int, step: Pass, arrived: Message) -> Message:
        """One pass of a client's (micro-)batch.

        Args:
            attempt: the one that began.
            round_number: from 1.
            step: the pass.
            arrived: what the client sent.
        """
        with attribute_error(round_number, "serving", step.client):
            return self._go(attempt, round_number, step, arrived)

    def _go(self, attempt: int, round_number: int, step: Pass, arrived: Message) -> Message:
        self._refuse_restarted(attempt)
        seed = dropout_seed(self.job.scenario.seed, round_number, step)
        seed_dropout(self.device, seed)
        weights, batch = self._of(step.client)
        if step.stage == "server_backward":
            return self._backward(round_number, step, arrived, weights, batch)
        seed = self._seed(round_number, step, "smashed")
        received = unpack(arrived, self.model.wire_up, seed, self.device)
        needing_gradient = [(names, t) for names, t in received if t.requires_grad]
        known = weights.run(self.cut.middle, named(received), batch.leaves)
        if step.stage == "server_forward":
            features = tensors(self.cut.features, known)
            batch.open[step.part] = (features, needing_gradient)
            return pack(features, self.wire, self._seed(round_number, step, "features"))
        loss = known["loss"] * arrived.share
        value = float(loss.detach())
        refuse_infinite(value, step.batch, step.client)
        gradients = batch.backward([loss], [torch.ones_like(loss)], [t for _, t in needing_gradient])
        seed = self._seed(round_number, step, "gradients")
        return self._sent(weights, batch, step, seed, needing_gradient, gradients, value)

    def _of(self, client: int) -> tuple[PartWeights, InFlightBatch]:
        """The server's weights for a client, and the batch that is under way."""
        owner = client if self.section.variant == "splitfed_v1" else 0
        if owner not in self.weights:
            numbers = self.master[self.part.places].to(self.device)
            self.weights[owner] = PartWeights(self.part, numbers, self.round_number)
        if client not in self.batches:
            self.batches[client] = InFlightBatch(self.weights[owner])
        return self.weights[owner], self.batches[client]

    def _backward(
        self, round_number: int, step: Pass, arrived: Message, weights: PartWeights, batch: InFlightBatch
    ) -> Message:
        """In U-shape, the way back through the server's part.

        Args:
            round_number: from 1.
            step: the pass.
            arrived: the gradients of the features.
            weights: the server's, for this client.
            batch: that is under way.
        """
        received = unpack(
            arrived, self.wire, self._seed(round_number, step, "feature_gradients"), self.device
        )
        features, needing_gradient = batch.open.pop(step.part)
        outputs = [t for _, t in features if t.requires_grad]
        gradients = batch.backward(outputs, [g for _, g in received], [t for _, t in needing_gradient])
        seed = self._seed(round_number, step, "gradients")
        return self._sent(weights, batch, step, seed, needing_gradient, gradients)

    def _sent(
        self,
        weights: PartWeights,
        batch: InFlightBatch,
        step: Pass,
        seed: int,
        needing_gradient: NamedTensors,
        gradients: list[Tensor],
        loss: float = 0.0,
    ) -> Message:
        """The gradients that go back; with the last of a batch, a step of the server's part.

        Args:
            weights: the server's, for this client.
            batch: that is under way.
            step: the pass.
            seed: of the crossing.
            needing_gradient: the tensors whose gradients these are.
            gradients: as many.
            loss: the (micro-)batch's share of it.
        """
        batch.done += 1
        if batch.done == step.parts:
            del self.batches[step.client]
            others = any(other.leaves is weights.leaves for other in self.batches.values())
            weights.step(batch.gradient, step, open_graphs=others)
        named_gradients = [(names, g) for (names, _), g in zip(needing_gradient, gradients, strict=True)]
        return pack(named_gradients, self.wire, seed, loss=loss)

    def finish(
        self, attempt: int, clients: Sequence[int], weights: Sequence[int], ends: Sequence[np.ndarray]
    ) -> Accumulator:
        """The round's updates over the whole model: of each client's own part, and of its copy of the
        server's, or of the one that served all.

        Args:
            attempt: at the round.
            clients: whose parts came back.
            weights: what each weighs.
            ends: what each sent (see SplitClients.end).
        """
        self._refuse_restarted(attempt)
        accumulator = rule(self.job.scenario.aggregation, self.model.layout).empty(sum(weights))
        for client, weight, end in zip(clients, weights, ends, strict=True):
            with attribute_error(self.round_number, "adding its update", client):
                update = self._update(client, end)
            with summable(client):
                accumulator.add(update, weight, client)
        return accumulator

    def _update(self, client: int, end: np.ndarray) -> Tensor:
        """How the whole model [numel] fp32 has changed with a client."""
        client_part = self.model.client
        part = client_part.layout.view(end)
        if self.section.variant == "vanilla":
            ours = self.master[client_part.places]
            part = returned(part, ours.to(part.dtype), ours) - ours
        update = torch.zeros(self.model.layout.numel)
        context = HookContext(self.job.scenario.seed, self.round_number, client)
        update[client_part.places] = self.model.hooks.on_server(part.to(torch.float32, copy=True), context)
        own = self.weights[client if self.section.variant == "splitfed_v1" else 0]
        update[self.part.places] = own.all().cpu() - self.master[self.part.places]
        return update

    def _refuse_restarted(self, attempt: int) -> None:
        if attempt != self.attempt:
            raise ServerRestarted("the server was started anew")

    def _seed(self, round_number: int, step: Pass, crossing: str) -> int:
        return crossing_seed(self.job.scenario.seed, round_number, step, crossing)
