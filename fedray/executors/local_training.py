"""A client's local update: batches of its samples, from the weights it received. Nothing here knows of actors
or of other clients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedray.adversary.attackers import Attackers
from fedray.aggregation.rule import AdjustGradient, Rule, State
from fedray.data import Samples, holdings
from fedray.executors import DataFailure, Job, TrainReport, refuse_infinite
from fedray.executors.client_datasets import ClientDatasets
from fedray.executors.model import Model
from fedray.executors.optimizer import FlatOptimizer
from fedray.executors.round_samples import RoundSamples, UsedSamples
from fedray.randomness import generator, key
from fedray.scenario.kinds import implementation

AUDITED_AT_ONCE = 500  # samples
HOME = "home"  # numbers that train and stay at home, in a client's state


class AuditedData(NamedTuple):
    """A client's data under the global model."""

    client: int
    samples: int
    loss: float  # its local learning error
    gradient: np.ndarray  # [trained] fp32


@dataclass
class Turn:
    """A local update that is under way."""

    round_number: int  # from 1
    client: int
    shard: Any  # its encoded samples
    samples: int  # on how many it trains
    rule: Rule
    start: Tensor  # the weights [trained] that it began with
    state: State  # what the client kept
    adjust: AdjustGradient | None  # changes a gradient before each step
    draws: torch.Generator  # of the client's own
    batches: list[np.ndarray]  # samples of each step
    scale: float  # of the loss
    losses: list[float] = field(default_factory=list)  # each batch's loss times its samples
    samples_taken: int = 0  # that steps were taken for
    steps_taken: int = 0

    def add_loss(self, loss: float, samples: int) -> None:
        """The mean loss of the next batch, of so many samples.

        Raises:
            DataFailure: where it is not finite.
        """
        refuse_infinite(loss, len(self.losses), self.client)
        self.losses.append(loss * samples)


@dataclass
class LocalUpdate:
    """What a local update leaves, beside the weights in the worker's model."""

    report: TrainReport
    extra: Tensor | None  # what the rule sends beside the update
    state: State  # what the client keeps


class LocalTraining(ClientDatasets):
    """A resident model, and the data of the clients that train it. The encoded samples of a client are kept
    where they are dear; nothing else outlives a local update.

    Args:
        job: the run's.
        device: where the model is.
        site: of whose clients the data are, where data lie at sites.
        own: samples and who has them, instead of those that the scenario deals out.
    """

    def __init__(
        self,
        job: Job,
        device: torch.device,
        site: str | None = None,
        own: tuple[Samples, Mapping[int, np.ndarray]] | None = None,
    ) -> None:
        self.job = job
        self.model = Model(job, device)
        self.rule = self.model.rule
        held = own or holdings(job.scenario, job.folder, site, job.dataset)
        super().__init__(self.model.learner, *held, Attackers(job.scenario))
        self.optimizer = FlatOptimizer(
            job.scenario.training.optimizer,
            self.model.flat.trained.data,
            self.model.flat.gradient,
            self.model.groups,
        )
        privacy = job.scenario.privacy
        self.private: Any = None  # what takes a batch's gradient, where samples are private
        if privacy is not None and privacy.in_local_update:
            self.private = implementation(privacy)(privacy, job.scenario)
        self.resident: dict[str, Any] = {}  # whatever else is kept between rounds, such as an image generator

    def run(
        self,
        round_number: int,
        client: int,
        received: Tensor,
        state: State,
        extra_samples: RoundSamples | None = None,
    ) -> LocalUpdate:
        """One client's local update; the worker's model has its end.

        Args:
            round_number: from 1.
            client: whose.
            received: numbers [received] fp32 that the client got.
            state: what it kept of its last local update.
            extra_samples: that join its own, or which of its own it trains on.

        Raises:
            DataFailure: for samples that cannot be read, and for losses and gradients that are not finite.
        """
        turn = self.begin(round_number, client, received, state, extra_samples)
        seed_dropout(self.model.flat.all.device, key(self.job.scenario.seed, round_number, client, "dropout"))
        self.learner.prepare_round(round_number)
        optimizer = self.optimizer
        optimizer.restart()
        for indices in turn.batches:
            optimizer.gradient.zero_()
            if self.private is not None:
                self._take_private_gradient(turn, indices)
            else:
                loss = self.learner.loss(self.learner.draw(turn.shard, indices, turn.draws))
                turn.add_loss(float(loss.detach()), len(indices))
                (loss * turn.scale if turn.scale != 1 else loss).backward()
            self.step(turn, optimizer, len(indices))
        return self.end(turn)

    def _take_private_gradient(self, turn: Turn, indices: np.ndarray) -> None:
        """Clipped sample by sample, with noise, of a batch that may be empty."""
        step = len(turn.losses)
        sizes = self.job.scenario.training.batches(turn.samples)
        draw = key(self.job.scenario.seed, turn.round_number, turn.client, f"privacy {step}")

        def loss_of(i: int) -> Tensor:
            return self.learner.loss(self.learner.draw(turn.shard, indices[i : i + 1], turn.draws))

        expected = min(sizes[step], turn.samples)
        loss = self.private.gradient(self.optimizer.gradient, loss_of, len(indices), expected, draw)
        turn.add_loss(loss, len(indices))

    def begin(
        self,
        round_number: int,
        client: int,
        received: Tensor,
        state: State,
        extra_samples: RoundSamples | None = None,
    ) -> Turn:
        """A local update before its first step; the worker's model has its beginning. Takes and raises what
        `run` does.

        Args:
            round_number: from 1.
            client: whose.
            received: numbers [received] fp32 that the client got.
            state: what it kept of its last local update.
            extra_samples: that join its own, or which of its own it trains on.
        """
        scenario = self.job.scenario
        shard, samples = self._data(client, round_number, extra_samples)
        flat = self.model.flat
        received, state = self._load(client, received, state)
        if not scenario.trains_nothing(client):
            try:
                shard = self.learner.experience(shard, round_number, client)
            except ValueError as e:
                raise DataFailure("making its samples", str(e), client) from None
        start = received[: flat.layout.trained]
        rule = copy(self.rule)  # which may keep something until the local update ends, as others go on
        adjust = rule.on_client_start(start, received[flat.layout.numel :], state)
        draws = torch.Generator().manual_seed(key(scenario.seed, round_number, client, "noise"))
        if isinstance(extra_samples, UsedSamples):
            places = extra_samples.places(scenario.seed, round_number, client, samples)
            samples = len(places)
            order = [places[batch] for batch in self.batch_order(round_number, client, samples)]
        else:
            order = self.batch_order(round_number, client, samples)
        # fp16 gradients underflow: the loss is scaled, and a step whose scaled gradients overflow is left
        # out.
        scale = 1024.0 if scenario.training.precision == "fp16" else 1.0
        return Turn(round_number, client, shard, samples, rule, start, state, adjust, draws, order, scale)

    def batch_order(self, round_number: int, client: int, samples: int) -> list[np.ndarray]:
        """The batches of a local update: places of each one's samples among so many.

        Args:
            round_number: from 1.
            client: whose.
            samples: that it trains on.
        """
        rng = generator(self.job.scenario.seed, round_number, client, "batches")
        draw_batches = batches if self.private is None else self.private.batches
        return draw_batches(self.job.scenario.local_batches(client, samples), samples, rng)

    def step(self, turn: Turn, optimizer: FlatOptimizer, samples: int) -> None:
        """A step along the gradient that a batch has left, or none where scaled gradients overflow.

        Args:
            turn: the local update.
            optimizer: its own, with that gradient.
            samples: of the batch.

        Raises:
            DataFailure: where the gradient is not finite.
        """
        if turn.scale != 1:
            optimizer.gradient.div_(turn.scale)
        training = self.job.scenario.training
        # noise on each number makes a private gradient long, and says nothing of its samples
        if not optimizer.clipped(training.clip if self.private is None else training.part_clip):
            if turn.scale == 1:
                message = f"the gradient of step {len(turn.losses)} is not finite"
                raise DataFailure("training", message, turn.client)
            turn.scale /= 2
            return
        if turn.adjust is not None:
            home = len(optimizer.weights) - self.model.flat.layout.trained
            turn.adjust(optimizer.gradient[home:], optimizer.weights[home:])
        optimizer.step()
        turn.samples_taken += samples
        turn.steps_taken += 1

    def end(self, turn: Turn) -> LocalUpdate:
        """A local update after its last step; the worker's model has its end."""
        flat = self.model.flat
        scenario = self.job.scenario
        rate = scenario.training.optimizer.learning_rate
        taken = max(1, turn.steps_taken)
        extra, kept = turn.rule.on_client_end(turn.start, flat.travelling_trained, taken, rate, turn.state)
        if kept and not scenario.aggregation.keeps_client_state:
            kind = scenario.aggregation.kind
            raise ValueError(
                f"{kind}: keeps {', '.join(kept)}, expected keeps_client_state = True in its Section"
            )
        if flat.home_numbers:
            kept = kept | {HOME: flat.home.detach().clone()}
        loss = sum(turn.losses) / max(1, sum(len(batch) for batch in turn.batches))
        own = min(turn.samples, len(self.client_indices[turn.client]))
        report = TrainReport(
            turn.round_number, turn.client, own, turn.samples_taken, loss, steps=turn.steps_taken
        )
        return LocalUpdate(report, extra, kept)

    def audit(self, client: int, buffer: np.ndarray) -> AuditedData | None:
        """How the model in a buffer does on all of a client's own samples: its mean loss, and the loss's
        gradient. None for a client whose samples cannot be read."""
        self.model.receive(buffer)
        gradient = self.optimizer.gradient
        n = len(self.client_indices[client])
        try:
            shard = self.shard(client)
        except DataFailure:
            return None
        loss = 0.0
        gradient.zero_()
        for start in range(0, n, AUDITED_AT_ONCE):
            indices = np.arange(start, min(start + AUDITED_AT_ONCE, n))
            batch = self.learner.draw(shard, indices, torch.Generator())
            part = self.learner.loss(batch) * (len(indices) / n)
            part.backward()
            loss += float(part.detach())
        return AuditedData(client, n, loss, self.model.flat.travelling_gradient.cpu().numpy().copy())

    def _data(self, client: int, round_number: int, extra: RoundSamples | None) -> tuple[Any, int]:
        """A client's samples with those that join them, encoded, and how many there are."""
        shard = self.shard(client, round_number)
        n = len(self.client_indices[client])
        more = None if extra is None else extra.samples(client, self)
        if more is None:
            return shard, n
        return shard.joined(self.learner.encode(more, np.arange(len(more)))), n + len(more)

    def _load(self, client: int, received: Tensor, state: State) -> tuple[Tensor, State]:
        """Puts what a client received into the model; of a client that has a part of the numbers, the others
        are zero, and then their gradients are too. Gives both arguments on the model's device."""
        flat = self.model.flat
        device = flat.all.device
        self.model.load(received, state.get(HOME))
        received = received.to(device)
        part = self.model.tuning.client_part(flat.layout, client)
        if part is not None:
            part = part.to(device)
            flat.all[~part] = 0
            extra = len(received) - flat.layout.numel
            received = received.where(torch.nn.functional.pad(part, (0, extra), value=True), 0)
        return received, {name: value.to(device) for name, value in state.items() if name != HOME}


@contextmanager
def summable(client: int | None = None) -> Iterator[None]:
    """What cannot be added up is its client's failure."""
    try:
        yield
    except ValueError as e:
        raise DataFailure("training", f"{e} (a smaller learning rate?)", client) from None


def failed_report(round_number: int, client: int, samples: int, failure: DataFailure) -> TrainReport:
    """The report of a client that holds so many samples and could not train.

    Args:
        round_number: from 1.
        client: by number.
        samples: that it holds.
        failure: why it could not train.
    """
    return TrainReport(round_number, client, samples, 0, math.nan, str(failure), failure.stage)


def batches(sizes: Sequence[int], samples: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Index arrays of one local update: the samples in a fresh order each time they have all been used."""
    stream: list[int] = []
    out = []
    for size in sizes:
        while len(stream) < size:
            stream += rng.permutation(samples).tolist()
        out.append(np.array(stream[:size]))
        stream = stream[size:]
    return out


def seed_dropout(device: torch.device, seed: int) -> None:
    """What dropout draws from. `torch.manual_seed` asks every backend there might be, each time."""
    torch.random.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
