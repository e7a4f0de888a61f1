"""A client's passes in a split round, wherever they run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedray.data import holdings
from fedray.evaluation.leakage import distance_correlation
from fedray.executors import DataFailure, Job, TrainReport, attribute_error, refuse_infinite
from fedray.executors.holder import Holder
from fedray.executors.local_training import batches, seed_dropout
from fedray.executors.split.halves import Flight, Halves, Held
from fedray.executors.split.message import Air, Message, noised, pack, seed_of, unpack
from fedray.learners.cut import Named, named, tensors
from fedray.learners.stages import Values
from fedray.randomness import generator, key
from fedray.scenario.topology import DistanceCorrelation, Noise
from fedray.schedule import Pass
from fedray.topologies.split import parts


class Turn:
    """A client's turn in flight: its part, its draws, and the batch that is under way."""

    def __init__(self, work: "SplitClients", round: int, client: int, buffer: np.ndarray) -> None:
        scenario, training = work.job.scenario, work.job.scenario.training
        self.received = work.halves.client.numbers(buffer)  # [numel] fp32
        self.held = Held(work.halves.client, training, self.received)
        self.draws = torch.Generator().manual_seed(key(scenario.seed, round, client, "noise"))
        self.samples = len(work.held[client])
        drawn = generator(scenario.seed, round, client, "batches")
        self.indices = iter(batches(training.batches(self.samples), self.samples, drawn))
        self.losses: list[float] = []  # of batches
        self.sizes: list[int] = []  # of batches, in samples
        self.flight = Flight(self.held)
        # a batch's micro-batches, and what each weighs
        self.pieces: Iterator[tuple[Values, float]] = iter(())


class SplitClients(Holder):
    """Makes any client's passes; several may be in flight. A turn begins with its first pass and ends with
    `end`."""

    def __init__(self, job: Job, device: torch.device, site: str | None = None) -> None:
        self.job, self.device, self.halves = job, device, Halves(job, device, "client")
        self.section, self.cut, self.air = job.scenario.split, self.halves.cut, Air.of(job.scenario)
        super().__init__(self.halves.learner, *holdings(job.scenario, job.folder, site))
        self.turns: dict[int, Turn] = {}
        self.failures: dict[int, DataFailure] = {}

    def go(self, round: int, step: Pass, then: Pass | None, arrived: Any, *awaited: Any) -> Message | float:
        """One pass, and the front that follows it, if any. What arrived is what the step waits for: the
        client's part for the first, nothing for another front, messages for the rest. It gives the message
        that goes on, or at the turn's end the batch's loss."""
        given = self._go(round, step, arrived)
        return self._go(round, then, None) if then else given

    def _go(self, round: int, step: Pass, arrived: Any) -> Message | float:
        with attribute_error(round, "training", step.client), self._failing(step):
            seed_dropout(self.device, key(self.job.scenario.seed, round, step.client, f"dropout {step.id}"))
            if step.stage == "front":
                if step.batch == step.part == 0:
                    self.turns[step.client] = Turn(self, round, step.client, arrived)
                return self._front(round, self.turns[step.client], step)
            turn = self.turns[step.client]
            return (
                self._tail(round, turn, step, arrived)
                if step.stage == "tail"
                else self._back(round, turn, step, arrived)
            )

    @contextmanager
    def _failing(self, step: Pass) -> Iterator[None]:
        """A turn that has failed goes on failing, so that all its later passes tell of the first failure."""
        if step.stage == "front" and step.batch == step.part == 0:
            self.failures.pop(step.client, None)
        if step.client in self.failures:
            raise self.failures[step.client]
        try:
            yield
        except DataFailure as e:
            self.failures[step.client] = e
            raise

    def end(self, round: int, client: int, loss: float) -> tuple[np.ndarray, TrainReport]:
        """What the client sends when its turn has ended, and what it says of it: how its part has changed, to
        the server; the part itself, where it is handed on to the next client."""
        turn = self.turns.pop(client)
        part = turn.held.all()
        sent = part if self.section.variant == "vanilla" else part - turn.received
        seen = sum(turn.sizes)
        loss = sum(value * size for value, size in zip(turn.losses, turn.sizes, strict=True)) / max(1, seen)
        return self.halves.client.buffer(sent), TrainReport(
            round, client, turn.samples, seen, loss, steps=len(turn.sizes)
        )

    def _front(self, round: int, turn: Turn, step: Pass) -> Message:
        if step.part == 0:
            turn.flight = Flight(turn.held)
            turn.losses.append(0.0)
            turn.sizes.append(0)
            turn.pieces = self._pieces(turn, step)
        values, share = next(turn.pieces)
        turn.sizes[-1] += step.samples
        known = turn.held.run(self.cut.front, values, turn.flight.leaves)
        out = tensors(self.cut.smashed, known)
        extra: list[Tensor] = []
        defence = self.section.defence
        if isinstance(defence, DistanceCorrelation):
            sent = torch.cat([t.flatten(1).float() for _, t in out if t.is_floating_point()], 1)
            extra = [defence.weight * distance_correlation(values[self.cut.secret], sent)]
        elif isinstance(defence, Noise):
            draws = torch.Generator().manual_seed(
                key(self.job.scenario.seed, round, step.client, f"defence {step.id}")
            )
            out = noised(out, defence.std, draws)
        home = {name: known[name] for name in self.cut.home}
        turn.flight.open[step.part] = (out, home, extra, share)
        return pack(out, self.air, seed_of(self.job, round, step, "smashed"), share)

    def _pieces(self, turn: Turn, step: Pass) -> Iterator[tuple[Values, float]]:
        """The next batch's micro-batches."""
        whole: Values = vars(self.learner.draw(self.shard(step.client), next(turn.indices), turn.draws))
        size, start = len(next(iter(whole.values()))), 0
        for part in parts(size, step.parts):
            piece = {name: value[start : start + part] for name, value in whole.items()}
            start += part
            yield piece, part / size

    def _tail(self, round: int, turn: Turn, step: Pass, arrived: Message) -> Message:
        """The loss, and the way back to what came down. What stayed at home waits for the rest of its
        gradient."""
        out, home, extra, share = turn.flight.open[step.part]
        received = unpack(arrived, self.air, seed_of(self.job, round, step, "features"), self.device)
        mine = tensors(tuple(home), home)
        leaves: Named = [(names, t.detach().requires_grad_(t.requires_grad)) for names, t in mine]
        known = turn.held.run(self.cut.tail, named([*received, *leaves]), turn.flight.leaves)
        loss = self._judged(turn, step, known["loss"] * share)
        asked, kept = ([t for _, t in some if t.requires_grad] for some in (received, leaves))
        found = turn.flight.backward([loss], [torch.ones_like(loss)], [*asked, *kept])
        turn.flight.open[step.part] = (
            out,
            [t for _, t in mine if t.requires_grad],
            found[len(asked) :],
            extra,
        )
        errors = [
            (names, g)
            for (names, t), g in zip([r for r in received if r[1].requires_grad], found, strict=False)
        ]
        return pack(errors, self.air, seed_of(self.job, round, step, "errors"))

    def _back(self, round: int, turn: Turn, step: Pass, arrived: Message) -> float:
        flight = turn.flight
        if self.cut.tail:
            out, kept, theirs, extra = flight.open.pop(step.part)
        else:
            out, _, extra, _ = flight.open.pop(step.part)
            kept, theirs = [], []
            self._judged(turn, step, torch.tensor(arrived.loss))
        came = unpack(arrived, self.air, seed_of(self.job, round, step, "gradients"), self.device)
        outputs = [*(t for _, t in out if t.requires_grad), *kept, *extra]
        flight.backward(outputs, [*(g for _, g in came), *theirs, *(torch.ones_like(t) for t in extra)], [])
        if step.part == step.parts - 1:
            turn.held.step(flight.gradient, step.client, step.batch)
        return turn.losses[-1]

    def _judged(self, turn: Turn, step: Pass, loss: Tensor) -> Tensor:
        turn.losses[-1] += float(loss.detach())
        refuse_infinite(turn.losses[-1], step.batch, step.client)
        return loss
