"""A client's passes in a split round, wherever they run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedray.adversary.attackers import Attackers
from fedray.data import holdings
from fedray.executors import DataFailure, Job, TrainReport, attribute_error, refuse_infinite
from fedray.executors.client_datasets import ClientDatasets
from fedray.executors.client_tests import ClientStates, GlobalModel, HoldoutTests, TestRow, rows_of
from fedray.executors.local_training import HOME, batches, seed_dropout
from fedray.executors.model import Model
from fedray.executors.spill import StateArrays
from fedray.executors.split.crossings import crossing_seed, dropout_seed
from fedray.executors.split.defences import defence
from fedray.executors.split.split_model import InFlightBatch, PartWeights, SplitModel
from fedray.learners.cut import named, tensors
from fedray.learners.micro_batches import part_of
from fedray.learners.stages import Values, inputs
from fedray.randomness import generator, key
from fedray.steps import Pass
from fedray.topologies.split import parts
from fedray.transport.hooks import HookContext
from fedray.transport.messages import Message, NamedTensors, pack, unpack


class SplitUpdate:
    """A client's local update in a split round: its part, its draws, and the batch that is under way.

    Args:
        work: the worker's.
        round_number: from 1.
        client: by number.
        buffer: the global one, or the client's part.
        state: what the client kept of its last local update, or got from another client.
    """

    def __init__(
        self,
        work: "SplitClients",
        round_number: int,
        client: int,
        buffer: np.ndarray,
        state: StateArrays | None,
    ) -> None:
        scenario = work.job.scenario
        self.received = work.model.client.numbers(buffer)  # [numel] fp32
        work.model.prepare_round(round_number, work.model.client.layout, self.received)
        self.learner_state = work.learner.update_state
        self.weights = PartWeights(work.model.client, self.received, round_number, (state or {}).get(HOME))
        self.draws = torch.Generator().manual_seed(key(scenario.seed, round_number, client, "noise"))
        self.samples = len(work.client_indices[client])
        rng = generator(scenario.seed, round_number, client, "batches")
        self.indices = iter(batches(scenario.training.batches(self.samples), self.samples, rng))
        self.losses: list[float] = []  # of batches
        self.sizes: list[int] = []  # of batches, in samples
        self.batch = InFlightBatch(self.weights)
        # a batch's micro-batches, and what each weighs
        self.pieces: Iterator[tuple[Values, float]] = iter(())


class SplitClients(ClientDatasets):
    """Makes any client's passes; several may be under way. A local update begins with its first pass and ends
    with `end`."""

    def __init__(self, job: Job, device: torch.device, site: str | None = None) -> None:
        self.job = job
        self.device = device
        self.site = site
        self.model = SplitModel(job, device, "client")
        self.section = job.scenario.split
        self.cut = self.model.cut
        self.wire = self.model.wire
        self.defence = defence(self.section.defence)
        held = holdings(job.scenario, job.folder, site, job.dataset)
        super().__init__(self.model.learner, *held, Attackers(job.scenario))
        self.updates: dict[int, SplitUpdate] = {}
        self.failures: dict[int, DataFailure] = {}

    def go(
        self, round_number: int, step: Pass, then: Pass | None, arrived: Any, *awaited: Any
    ) -> Message | float:
        """One pass, and the front that follows it, if any.

        Args:
            round_number: from 1.
            step: the pass.
            then: the front.
            arrived: what the pass waits for: the client's part for the first, nothing for another front,
                messages for the rest.
            awaited: for the first, the state that the client goes on with; otherwise what it only waits for.

        Returns:
            The message that goes on, or at the local update's end the batch's loss.
        """
        result = self._go(round_number, step, arrived, *awaited)
        return self._go(round_number, then, None) if then else result

    def _go(self, round_number: int, step: Pass, arrived: Any, *awaited: Any) -> Message | float:
        with attribute_error(round_number, "training", step.client), self._failing(step):
            seed = dropout_seed(self.job.scenario.seed, round_number, step)
            seed_dropout(self.device, seed)
            if step.stage == "front":
                if step.begins_turn:
                    state = awaited[0] if awaited else None
                    self.updates[step.client] = SplitUpdate(self, round_number, step.client, arrived, state)
                return self._front(round_number, self.updates[step.client], step)
            update = self.updates[step.client]
            if step.stage == "tail":
                return self._tail(round_number, update, step, arrived)
            return self._back(round_number, update, step, arrived)

    @contextmanager
    def _failing(self, step: Pass) -> Iterator[None]:
        """A local update that has failed goes on failing, so that all its later passes raise the first
        failure."""
        if step.begins_turn:
            self.failures.pop(step.client, None)
        if step.client in self.failures:
            raise self.failures[step.client]
        try:
            yield
        except DataFailure as e:
            self.failures[step.client] = e
            raise

    def end(
        self, round_number: int, client: int, loss: float
    ) -> tuple[np.ndarray, TrainReport, StateArrays | None]:
        """What the client sends when its local update has ended, its report, and what it keeps. It sends how
        its part has changed, to the server; the part itself, where it is handed on to the next client."""
        update = self.updates.pop(client)
        part = update.weights.all()
        context = HookContext(self.job.scenario.seed, round_number, client)
        hooks = self.attackers.sender(self.model.hooks, context)
        change = part - update.received
        if hooks.changes_updates:
            with attribute_error(round_number, "training", client):
                change = hooks.on_client(change.cpu(), context).to(change)
            part = update.received + change
        sent = part if self.section.variant == "vanilla" else change
        seen = sum(update.sizes)
        losses = zip(update.losses, update.sizes, strict=True)
        loss = sum(value * size for value, size in losses) / max(1, seen)
        steps = len(update.sizes)
        report = TrainReport(round_number, client, update.samples, seen, loss, steps=steps)
        home = update.weights.home()
        return self.model.client.buffer(sent), report, {HOME: home.cpu().numpy()} if len(home) else None

    def test_clients(
        self, tested: GlobalModel, clients: Sequence[int], states: ClientStates
    ) -> list[TestRow]:
        """How the global model does on what is held out of clients' samples: the whole of it, as evaluation
        has it.

        Args:
            tested: the global model, and the round.
            clients: by number.
            states: what they keep.
        """
        return rows_of([self._holdout], tested, clients, states)

    @cached_property
    def _holdout(self) -> HoldoutTests:
        return HoldoutTests(self.job, self.site, Model(self.job, self.device))

    def _front(self, round_number: int, update: SplitUpdate, step: Pass) -> Message:
        if step.part == 0:
            update.batch = InFlightBatch(update.weights)
            update.losses.append(0.0)
            update.sizes.append(0)
            update.pieces = self._pieces(round_number, update, step)
        values, share = next(update.pieces)
        update.sizes[-1] += step.samples
        self.learner.update_state = update.learner_state
        known = update.weights.run(self.cut.front, values, update.batch.leaves)
        update.learner_state = self.learner.update_state
        out = tensors(self.cut.smashed, known)
        loss: list[Tensor] = []
        if self.defence is not None:
            loss = self.defence.loss(values[self.cut.secret], out)
            seed = key(self.job.scenario.seed, round_number, step.client, f"defence {step.id}")
            out = self.defence.sent(out, torch.Generator().manual_seed(seed))
        optional = [name for name in self.cut.optional if name in known]
        home = {name: known[name] for name in (*self.cut.home, *optional)}
        update.batch.open[step.part] = (out, home, loss, share)
        return pack(out, self.model.wire_up, self._seed(round_number, step, "smashed"), share)

    def _pieces(self, round_number: int, update: SplitUpdate, step: Pass) -> Iterator[tuple[Values, float]]:
        """The next batch's micro-batches."""
        shard = self.shard(step.client, round_number)
        drawn = self.learner.draw_training(shard, next(update.indices), update.draws)
        if step.snr_db is not None:
            drawn = self.learner.at_snr(drawn, step.snr_db)
        whole: Values = inputs(drawn)
        if withheld := self.cut.withheld(whole):
            names = " and ".join(withheld)
            raise ValueError(f"{names}: got some where the server has the loss, expected a tail")
        size = len(next(iter(whole.values())))
        counted = self.learner.counted(drawn, size)
        start = 0
        for part in parts(size, step.parts):
            piece = part_of(drawn, slice(start, start + part))
            start += part
            yield inputs(piece), self.learner.counted(piece, part) / counted

    def _tail(self, round_number: int, update: SplitUpdate, step: Pass, arrived: Message) -> Message:
        """The loss, and the way back to what came down. What stayed at home waits for the rest of its
        gradient."""
        out, home, extra, share = update.batch.open[step.part]
        seed = self._seed(round_number, step, "features")
        received = unpack(arrived, self.wire, seed, self.device)
        stayed = tensors(tuple(home), home)
        leaves: NamedTensors = [(names, t.detach().requires_grad_(t.requires_grad)) for names, t in stayed]
        known = update.weights.run(self.cut.tail, named([*received, *leaves]), update.batch.leaves)
        loss = self._judged(update, step, known["loss"] * share)
        needing_gradient, kept = ([t for _, t in some if t.requires_grad] for some in (received, leaves))
        gradients = update.batch.backward([loss], [torch.ones_like(loss)], [*needing_gradient, *kept])
        waiting = [t for _, t in stayed if t.requires_grad]
        update.batch.open[step.part] = (out, waiting, gradients[len(needing_gradient) :], extra)
        trained = [r for r in received if r[1].requires_grad]
        feature_gradients = [(names, g) for (names, _), g in zip(trained, gradients, strict=False)]
        return pack(feature_gradients, self.wire, self._seed(round_number, step, "feature_gradients"))

    def _back(self, round_number: int, update: SplitUpdate, step: Pass, arrived: Message) -> float:
        batch = update.batch
        waiting: list[Tensor] = []
        their_gradients: list[Tensor] = []
        if self.cut.tail:
            out, waiting, their_gradients, extra = batch.open.pop(step.part)
        else:
            out, _, extra, _ = batch.open.pop(step.part)
            self._judged(update, step, torch.tensor(arrived.loss))
        came = unpack(arrived, self.wire, self._seed(round_number, step, "gradients"), self.device)
        outputs = [*(t for _, t in out if t.requires_grad), *waiting, *extra]
        gradients = [*(g for _, g in came), *their_gradients, *(torch.ones_like(t) for t in extra)]
        batch.backward(outputs, gradients, [])
        if step.part == step.parts - 1:
            update.weights.step(batch.gradient, step)
        return update.losses[-1]

    def _judged(self, update: SplitUpdate, step: Pass, loss: Tensor) -> Tensor:
        update.losses[-1] += float(loss.detach())
        refuse_infinite(update.losses[-1], step.batch, step.client)
        return loss

    def _seed(self, round_number: int, step: Pass, crossing: str) -> int:
        return crossing_seed(self.job.scenario.seed, round_number, step, crossing)
