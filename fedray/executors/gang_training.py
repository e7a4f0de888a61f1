"""The local updates of several clients in one forward pass over one base model (`runtime.gang`).

Each client has a row of its own: weights, gradient, optimizer, draws, loss, clipping, and a failure. What the
clients share is a step's forward and backward pass.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from fedray.executors import DataFailure
from fedray.executors.local_training import LocalTraining, LocalUpdate, Turn
from fedray.executors.optimizer import FlatOptimizer
from fedray.learners.micro_batches import micro_batches
from fedray.learners.stages import Values, inputs, run
from fedray.transport.buffer import places


class GangTraining:
    """Trains clients side by side with a worker's model.

    Args:
        training: the worker's; its own numbers are written over.
    """

    def __init__(self, training: LocalTraining) -> None:
        self.training = training
        self.learner = training.learner
        flat = training.model.flat
        assert flat.home_layout.numel == flat.home_layout.trained, "adapters keep no means at home"
        self.places = places(flat.trained_names, flat.trained_sizes)
        k = training.job.scenario.runtime.gang
        self.weights = torch.zeros(k, len(flat.trained), device=flat.all.device)
        self.gradients = torch.zeros_like(self.weights)
        section = training.job.scenario.training.optimizer
        groups = training.model.groups
        rows = zip(self.weights, self.gradients, strict=True)
        self.optimizers = [FlatOptimizer(section, *row, groups) for row in rows]

    def run(self, begin: Mapping[int, Callable[[], Turn]]) -> dict[int, Callable[[], LocalUpdate]]:
        """Local updates of clients whose batches have equal sizes: by client, what gives its own, or raises
        its DataFailure; the worker's model has its end then. A client that fails changes nothing of the
        others'.

        Args:
            begin: by client, what begins its local update.
        """
        turns: list[Turn] = []
        failures: dict[int, DataFailure] = {}
        for client, begin_turn in begin.items():
            try:
                turns.append(begin_turn())
            except DataFailure as e:
                failures[client] = e
            else:
                self.weights[len(turns) - 1].copy_(self.training.model.flat.trained.data)
        if turns:
            failures |= self._train(turns)
        rows = {turn.client: row for row, turn in enumerate(turns)}
        return {c: partial(self._end, turns, rows.get(c), failures.get(c)) for c in begin}

    def _end(self, turns: Sequence[Turn], row: int | None, failure: DataFailure | None) -> LocalUpdate:
        if failure is not None:
            raise failure
        assert row is not None
        self.training.model.flat.trained.data.copy_(self.weights[row])
        return self.training.end(turns[row])

    def _train(self, turns: Sequence[Turn]) -> dict[int, DataFailure]:
        """All steps of these local updates; the failures of those that have one. A row that has failed is
        computed further, so that the others' batches stay as they are, and takes no step."""
        k = len(turns)
        first = turns[0]
        self.learner.prepare_round(first.round_number)
        failures: dict[int, DataFailure] = {}
        for optimizer in self.optimizers[:k]:
            optimizer.restart()
        model = self.training.model
        with model.tuning.batched(self.learner, self.places, self.weights[:k], self.gradients[:k]):
            for number in range(len(first.batches)):
                self.gradients[:k].zero_()
                means = self._take_gradients(turns, number)
                for turn, mean, optimizer in zip(turns, means, self.optimizers, strict=False):
                    if turn.client not in failures:
                        samples = len(turn.batches[number])
                        try:
                            turn.add_loss(mean, samples)
                            self.training.step(turn, optimizer, samples)
                        except DataFailure as e:
                            failures[turn.client] = e
        return failures

    def _take_gradients(self, turns: Sequence[Turn], number: int) -> list[float]:
        """Adds the gradient of each client's batch of this number, times its turn's scale, to its row; the
        batches' mean losses."""
        size = len(turns[0].batches[number])
        most = self.training.job.scenario.training.batch_size
        drawn = [self.learner.draw_training(turn.shard, turn.batches[number], turn.draws) for turn in turns]
        pieces = [micro_batches(self.learner, batch, size, most) for batch in drawn]
        means = [0.0] * len(turns)
        for one_each in zip(*pieces, strict=True):
            losses = self._losses([inputs(piece) for piece, _ in one_each])
            shares = [share for _, share in one_each]
            rows = zip(turns, losses, shares, strict=True)
            torch.stack([loss * (turn.scale * share) for turn, loss, share in rows]).sum().backward()
            means = [m + float(loss.detach()) * s for m, loss, s in zip(means, losses, shares, strict=True)]
        return means

    def _losses(self, turns: Sequence[Values]) -> list[Tensor]:
        """Each client's loss of its own micro-batch."""
        together = {name: torch.cat([values[name] for values in turns]) for name in turns[0]}
        *pieces, last = self.learner.stages
        known = run(pieces, together)
        parts = {name: value.chunk(len(turns)) for name, value in known.items()}
        rows = [{name: part[row] for name, part in parts.items()} for row in range(len(turns))]
        return [run([last], values)["loss"] for values in rows]
