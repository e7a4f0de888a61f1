"""The server's passes in a split round, wherever they run."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedray.aggregation.exact_sum import ExactSum
from fedray.executors import Job, ServerRestarted, attribute_error, refuse_infinite
from fedray.executors.local_training import seed_dropout, summable
from fedray.executors.model import as_sent, master, returned
from fedray.executors.spill import Kept
from fedray.executors.split.halves import Flight, Halves, Held
from fedray.executors.split.message import Air, Message, pack, seed_of, unpack
from fedray.learners.cut import Named, named, tensors
from fedray.randomness import key
from fedray.schedule import Pass
from fedray.transport.buffer import Layout


class SplitServer:
    """Serves in the order in which it is asked. A round begins with `begin` and ends with `finish`."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.device, self.halves = job, device, Halves(job, device, "server")
        self.section, self.cut, self.side = job.scenario.split, self.halves.cut, self.halves.server
        self.air = Air.of(job.scenario)
        self.attempt: int | None = None

    def initial(self) -> tuple[np.ndarray, Layout, Kept]:
        sent, kept = as_sent(self.halves.layout, self.halves.initial)
        return sent, self.halves.layout, kept

    def begin(self, attempt: int, buffer: np.ndarray, state: Kept) -> None:
        """Begins a round from a global buffer and the server's state. Attempts at rounds are numbered through
        a run."""
        self.attempt = attempt
        self.master = master(self.halves.layout, buffer, state)  # its own part does not travel
        self.held: dict[int, Held] = {}  # by client with SplitFed v1, otherwise one for all
        self.flights: dict[int, Flight] = {}  # by client

    def go(self, attempt: int, round: int, step: Pass, arrived: Message) -> Message:
        """One pass of a client's (micro-)batch."""
        with attribute_error(round, "serving", step.client):
            return self._go(attempt, round, step, arrived)

    def _go(self, attempt: int, round: int, step: Pass, arrived: Message) -> Message:
        self._refuse_lost(attempt)
        seed_dropout(self.device, key(self.job.scenario.seed, round, step.client, f"dropout {step.id}"))
        whose = step.client if self.section.variant == "splitfed_v1" else 0
        if whose not in self.held:
            self.held[whose] = Held(
                self.side, self.job.scenario.training, self.master[self.side.places].to(self.device)
            )
        held = self.held[whose]
        if step.client not in self.flights:
            self.flights[step.client] = Flight(held)
        flight = self.flights[step.client]
        compression, back = self.air, seed_of(self.job, round, step, "gradients")
        came = "errors" if step.stage == "middle_back" else "smashed"
        received = unpack(arrived, compression, seed_of(self.job, round, step, came), self.device)
        asked = [(names, t) for names, t in received if t.requires_grad]
        if step.stage == "middle_back":
            features, asked = flight.open.pop(step.part)
            outputs = [t for _, t in features if t.requires_grad]
            found = flight.backward(outputs, [g for _, g in received], [t for _, t in asked])
            return self._sent(held, flight, step, back, asked, found)
        known = held.run(self.cut.middle, named(received), flight.leaves)
        if step.stage == "middle":
            features = tensors(self.cut.features, known)
            flight.open[step.part] = (features, asked)
            return pack(features, compression, seed_of(self.job, round, step, "features"))
        loss = known["loss"] * arrived.share
        refuse_infinite(value := float(loss.detach()), step.batch, step.client)
        found = flight.backward([loss], [torch.ones_like(loss)], [t for _, t in asked])
        return self._sent(held, flight, step, back, asked, found, value)

    def _sent(
        self,
        held: Held,
        flight: Flight,
        step: Pass,
        seed: int,
        asked: Named,
        found: list[Tensor],
        loss: float = 0.0,
    ) -> Message:
        """The gradients that go back; with the last of a batch, a step of the server's part."""
        flight.done += 1
        if flight.done == step.parts:
            del self.flights[step.client]
            others = any(other.leaves is held.leaves for other in self.flights.values())
            held.step(flight.gradient, step.client, step.batch, open_graphs=others)
        gradients = [(names, g) for (names, _), g in zip(asked, found, strict=True)]
        return pack(gradients, self.air, seed, loss=loss)

    def _refuse_lost(self, attempt: int) -> None:
        if attempt != self.attempt:
            raise ServerRestarted("the server was started anew")

    def finish(
        self, attempt: int, clients: Sequence[int], weights: Sequence[int], ends: Sequence[np.ndarray]
    ) -> ExactSum:
        """The sum of the round's updates over the whole model, each client's of its weight: of its own part,
        and of its copy of the server's, or of the one that served all. `ends` are what clients sent (see
        SplitClients.end)."""
        self._refuse_lost(attempt)
        whole, theirs = self.halves.layout, self.halves.client
        total = ExactSum.zero(whole.numel, sum(weights))
        for client, weight, end in zip(clients, weights, ends, strict=True):
            update = torch.zeros(whole.numel)
            part = theirs.layout.view(end)
            if self.section.variant == "vanilla":
                ours = self.master[theirs.places]
                part = returned(part, ours.to(part.dtype), ours) - ours
            update[theirs.places] = part.float()
            held = self.held[client if self.section.variant == "splitfed_v1" else 0]
            update[self.side.places] = held.all().cpu() - self.master[self.side.places]
            with summable(client):
                total.add(update, weight)
        return total
