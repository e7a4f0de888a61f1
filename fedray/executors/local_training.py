"""A client's local update: batches of its samples, from the weights it received. Nothing here knows of actors
or of other clients."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedray.adversary.attackers import Attackers
from fedray.aggregation.rule import AdjustGradient, State
from fedray.data import Samples, holdings
from fedray.executors import DataFailure, Job, TrainReport
from fedray.executors.client_datasets import ClientDatasets
from fedray.executors.model import Model
from fedray.executors.optimizer import FlatOptimizer
from fedray.executors.own_model import HOME, OwnModel, parts_of
from fedray.executors.round_samples import RoundSamples, UsedSamples
from fedray.executors.turn import AuditedData as AuditedData
from fedray.executors.turn import LocalUpdate as LocalUpdate
from fedray.executors.turn import Turn as Turn
from fedray.executors.turn import batches as batches
from fedray.executors.turn import failed_report as failed_report
from fedray.executors.turn import seed_dropout as seed_dropout
from fedray.executors.turn import summable as summable
from fedray.learners.micro_batches import micro_batches
from fedray.randomness import generator, key
from fedray.scenario.kinds import implementation

AUDITED_AT_ONCE = 500  # samples


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
        self.site = site
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
        self.own_model = OwnModel(self)
        self.resident: dict[str, Any] = {}  # whatever else is kept between rounds, such as an image generator

    def run(
        self,
        round_number: int,
        client: int,
        received: Tensor,
        state: State,
        extra_samples: RoundSamples | None = None,
        staleness: int = 0,
    ) -> LocalUpdate:
        """One client's local update; the worker's model has its end.

        Args:
            round_number: from 1.
            client: whose.
            received: numbers [received] fp32 that the client got.
            state: what it kept of its last local update.
            extra_samples: that join its own, or which of its own it trains on.
            staleness: by how many server steps `received` is older than the newest.

        Raises:
            DataFailure: for samples that cannot be read, and for losses and gradients that are not finite.
        """
        turn = self.begin(round_number, client, received, state, extra_samples, staleness)
        seed_dropout(self.model.flat.all.device, key(self.job.scenario.seed, round_number, client, "dropout"))
        self.learner.prepare_round(round_number)
        optimizer = self.optimizer
        optimizer.restart()
        if self.own_model.kind is not None:
            return self.end(turn, self.own_model.train(turn))
        for indices in turn.batches:
            optimizer.gradient.zero_()
            if self.private is not None:
                self._take_private_gradient(turn, indices)
            else:
                turn.add_loss(self.take_gradient(turn, indices), len(indices))
            self.step(turn, optimizer, len(indices))
        return self.end(turn)

    def take_gradient(self, turn: Turn, indices: np.ndarray) -> float:
        """Adds a batch's gradient, times the turn's scale, and gives its mean loss."""
        whole = self.learner.draw_training(turn.shard, indices, turn.draws)
        most = self.job.scenario.training.batch_size
        mean = 0.0
        for piece, share in micro_batches(self.learner, whole, len(indices), most):
            loss = self.learner.loss(piece)
            weight = share * turn.scale
            (loss * weight if weight != 1 else loss).backward()
            mean += float(loss.detach()) * share
        return mean

    def _take_private_gradient(self, turn: Turn, indices: np.ndarray) -> None:
        """Clipped sample by sample, with noise, of a batch that may be empty."""
        step = len(turn.losses)
        sizes = self.job.scenario.training.batches(turn.samples)
        draw = key(self.job.scenario.seed, turn.round_number, turn.client, f"privacy {step}")

        def loss_of(i: int) -> Tensor:
            return self.learner.loss(self.learner.draw_training(turn.shard, indices[i : i + 1], turn.draws))

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
        staleness: int = 0,
    ) -> Turn:
        """A local update before its first step; the worker's model has its beginning. Takes and raises what
        `run` does.

        Args:
            round_number: from 1.
            client: whose.
            received: numbers [received] fp32 that the client got.
            state: what it kept of its last local update.
            extra_samples: that join its own, or which of its own it trains on.
            staleness: by how many server steps `received` is older than the newest.
        """
        scenario = self.job.scenario
        shard, samples = self._data(client, round_number, extra_samples)
        flat = self.model.flat
        rule = copy(self.rule)  # which may keep something until the local update ends, as others go on
        received = self.own_model.chosen(round_number, client, received, state, rule)
        everything = state
        received, state = self.load_client(client, received, state)
        if not scenario.trains_nothing(client):
            try:
                shard = self.learner.experience(shard, round_number, client)
            except ValueError as e:
                raise DataFailure("making its samples", str(e), client) from None
        start = received[: flat.layout.trained]
        adjust = rule.on_client_start(start, received[flat.layout.numel :], state)
        draws = torch.Generator().manual_seed(key(scenario.seed, round_number, client, "noise"))
        groups = getattr(shard, "groups", None)
        places = None
        if isinstance(extra_samples, UsedSamples):
            places = extra_samples.places(scenario.seed, round_number, client, samples)
            samples = len(places)
            groups = None if groups is None else groups[places]
        order = self.batch_order(round_number, client, samples, groups)
        order = order if places is None else [places[batch] for batch in order]
        # fp16 gradients underflow: the loss is scaled, and a step whose scaled gradients overflow is left
        # out.
        scale = 1024.0 if scenario.training.precision == "fp16" else 1.0
        own = parts_of(everything, flat.all.device)[1]
        return Turn(
            round_number, client, shard, samples, rule, start, state, adjust, draws, order, scale,
            received[: flat.layout.numel], own, places, staleness,
        )  # fmt: skip

    def batch_order(
        self, round_number: int, client: int, samples: int, groups: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """The batches of a local update: places of each one's samples among so many.

        Args:
            round_number: from 1.
            client: whose.
            samples: that it trains on.
            groups: of each of them, of which a batch has one; None: there are none.
        """
        rng = generator(self.job.scenario.seed, round_number, client, "batches")
        draw_batches = partial(batches, groups=groups) if self.private is None else self.private.batches
        return draw_batches(self.job.scenario.local_batches(client, samples), samples, rng)

    def step(self, turn: Turn, optimizer: FlatOptimizer, samples: int) -> None:
        """A step along the gradient that a batch has left, or none where scaled gradients overflow.

        Args:
            turn: the local update.
            optimizer: its own, with that gradient, which ends with that of what travels.
            samples: of the batch.

        Raises:
            DataFailure: where the gradient is not finite.
        """
        adjust = None
        if turn.adjust is not None:
            home = len(optimizer.weights) - self.model.flat.layout.trained

            def adjust(gradient: Tensor, weights: Tensor) -> None:
                assert turn.adjust is not None
                turn.adjust(gradient[home:], weights[home:])

        factor = self.rate_factor(turn, len(turn.losses) - 1, len(turn.batches))
        if self.take_step(turn, optimizer, adjust, factor):
            turn.samples_taken += samples
            turn.steps_taken += 1
            turn.factors += factor

    def rate_factor(self, turn: Turn, step: int, steps: int) -> float:
        """By what the schedule multiplies the learning rate in a step: in the round that follows the model
        that the client began with.

        Args:
            turn: the local update.
            step: its number, from 0.
            steps: how many there are.
        """
        return self.job.scenario.training.rate_factor(turn.round_number - turn.staleness, step, steps)

    def take_step(
        self, turn: Turn, optimizer: FlatOptimizer, adjust: AdjustGradient | None, factor: float
    ) -> bool:
        """Whether a step is taken along an optimizer's gradient; raises what `step` does.

        Args:
            turn: the local update.
            optimizer: with its gradient.
            adjust: changes that gradient, once it is clipped.
            factor: on the learning rate.
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
            return False
        if adjust is not None:
            adjust(optimizer.gradient, optimizer.weights)
        optimizer.step(factor)
        return True

    def end(self, turn: Turn, own: State | None = None) -> LocalUpdate:
        """A local update after its last step; the worker's model has its end. `own`: what the client keeps
        for a model of its own."""
        flat = self.model.flat
        scenario = self.job.scenario
        taken = max(1, turn.steps_taken)
        # the mean of the steps': times their number it is how far gradients of norm 1 would have gone
        rate = scenario.training.optimizer.learning_rate * (turn.factors / taken or 1.0)
        extra, kept = turn.rule.on_client_end(turn.start, flat.travelling_trained, taken, rate, turn.state)
        if kept and not scenario.aggregation.keeps_client_state:
            kind = scenario.aggregation.kind
            raise ValueError(
                f"{kind}: keeps {', '.join(kept)}, expected keeps_client_state = True in its Section"
            )
        if flat.home_numbers:
            kept = kept | {HOME: flat.home.detach().clone()}
        kept = kept | (own or {})
        loss = sum(turn.losses) / max(1, sum(len(batch) for batch in turn.batches))
        report = TrainReport(
            turn.round_number,
            turn.client,
            min(turn.samples, len(self.client_indices[turn.client])),
            turn.samples_taken + turn.own_samples_taken,
            loss,
            steps=turn.steps_taken + turn.own_steps_taken,
        )
        return LocalUpdate(report, extra, kept, turn.received.cpu(), turn.rule)

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

    def load_client(self, client: int, received: Tensor, state: State) -> tuple[Tensor, State]:
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
        return received, parts_of(state, device)[0]

    def load_own_model(self, round_number: int, client: int, received: Tensor, state: State) -> None:
        """Puts the model that a client uses itself into the worker's.

        Args:
            round_number: after which that is.
            client: whose.
            received: the global numbers [received] fp32.
            state: what it keeps.
        """
        received = self.own_model.chosen(round_number, client, received, state, copy(self.rule))
        self.load_client(client, received, state)
        self.own_model.load(state)
