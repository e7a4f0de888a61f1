"""A client's own model in a worker: which global model it takes, the steps that train what stays at home, and
what it uses itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fedray.aggregation.rule import Rule, State
from fedray.executors import Job, refuse_infinite
from fedray.executors.model import Model
from fedray.executors.optimizer import FlatOptimizer, Group
from fedray.executors.turn import Turn, batches, in_chunks
from fedray.learners.learner import AT_ONCE, Learner
from fedray.personal.personal import Adjust, Part, Personal
from fedray.randomness import generator, key
from fedray.scenario.kinds import implementation

HOME = "home"  # numbers that train and stay at home, in a client's state
OWN = "personal: "  # begins what a kind of `personal` keeps


class Training(Protocol):
    """What is needed here of a worker that trains (see local_training.LocalTraining)."""

    job: Job
    model: Model
    learner: Learner
    optimizer: FlatOptimizer
    client_indices: Mapping[int, np.ndarray]

    def shard(self, client: int, round_number: int = 0) -> Any: ...

    def load_client(self, client: int, received: Tensor, state: State) -> tuple[Tensor, State]: ...

    def take_gradient(self, turn: Turn, indices: np.ndarray) -> float: ...

    def step(self, turn: Turn, optimizer: FlatOptimizer, samples: int) -> None: ...

    def rate_factor(self, turn: Turn, step: int, steps: int) -> float: ...

    def take_step(
        self, turn: Turn, optimizer: FlatOptimizer, adjust: Adjust | None, factor: float
    ) -> bool: ...


def parts_of(state: Mapping[str, Tensor], device: torch.device) -> tuple[State, State]:
    """Of what a client keeps: the rule's, and that of a model of its own."""
    rules = {n: t.to(device) for n, t in state.items() if n != HOME and not n.startswith(OWN)}
    own = {n.removeprefix(OWN): t.to(device) for n, t in state.items() if n.startswith(OWN)}
    return rules, own


class OwnModel:
    """What a worker's clients do for models of their own.

    Args:
        training: the worker's.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        section = training.job.scenario.personal
        self.kind: Personal | None = None if section is None else implementation(section)(section)

    def train(self, turn: Turn) -> State:
        """A local update's steps, as the kind has them; what the client keeps of it."""
        assert self.kind is not None
        section = self.kind.section
        kept = self.kind.local_update(OwnSteps(self.training, turn))
        if kept and not section.keeps_state:
            got = f"{section.kind}: keeps {', '.join(kept)}"
            raise ValueError(f"{got}, expected keeps_state = True in its Section")
        return {f"{OWN}{name}": value.detach().clone() for name, value in kept.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Of the global model with what its client keeps at home, which is in the worker's, makes the one
        that the client uses itself."""
        if self.kind is not None:
            numbers = self.training.model.flat.numbers
            self.kind.load(numbers, parts_of(state, numbers.device)[1])

    def chosen(self, round_number: int, client: int, received: Tensor, state: State, rule: Rule) -> Tensor:
        """What a client goes on with of what it received: of several global models its own one.

        Args:
            round_number: in or after which it chooses.
            client: by number.
            received: [received] fp32.
            state: what it keeps.
            rule: the client's, which is told which one it is.
        """
        if rule.models == 1:
            return received
        numel = rule.layout.numel
        models = received[: rule.models * numel].view(rule.models, numel)
        losses = [self.losses(round_number, client, numbers, state)["loss"] for numbers in models]
        rng = generator(self.training.job.scenario.seed, round_number, client, "cluster")
        return models[rule.choose(losses, rng)]

    @torch.no_grad()
    def losses(self, round_number: int, client: int, numbers: Tensor, state: State) -> dict[str, float]:
        """The mean loss of a model over a client's own samples, and what its learner measures beside it; two
        models of a round are measured under the same draws.

        Args:
            round_number: from 1.
            client: by number.
            numbers: of the model [n] fp32.
            state: what the client keeps.
        """
        training = self.training
        learner = training.learner
        shard = training.shard(client)
        n = len(training.client_indices[client])
        training.load_client(client, numbers, state)
        learner.prepare_round(round_number)
        draws = torch.Generator().manual_seed(
            key(training.job.scenario.seed, round_number, client, "validation")
        )
        totals: dict[str, float] = {}
        with learner.evaluating():
            for indices in in_chunks(shard, n, AT_ONCE):
                batch = learner.draw(shard, indices, draws)
                means = {"loss": float(learner.loss(batch))} | learner.metrics(batch)
                for name, value in means.items():
                    name = name.removeprefix("eval_")
                    totals[name] = totals.get(name, 0.0) + value * len(indices)
        return {name: total / n for name, total in totals.items()}


class OwnSteps:
    """A client's model in its local update, as a kind of `personal` trains it (see personal.ClientModel).

    Args:
        training: the worker's.
        turn: the local update, whose beginning is in the worker's model.
    """

    def __init__(self, training: Training, turn: Turn) -> None:
        self.training = training
        self.turn = turn
        flat = training.model.flat
        self.numbers = flat.numbers
        self.received = flat.numbers.clone()
        self.trained = flat.trained_places
        self.state: Mapping[str, Tensor] = turn.own_state
        self.batches: Sequence[np.ndarray] = turn.batches
        self.own_steps = 0  # begun
        self.most_own_steps = 0  # of the batches that were asked for
        self.optimizers: dict[Part, FlatOptimizer] = {"all": training.optimizer}

    def own_batches(self, epochs: int | None) -> list[np.ndarray]:
        turn = self.turn
        scenario = self.training.job.scenario
        if scenario.trains_nothing(turn.client):
            return []
        sizes = scenario.training.batches(turn.samples)
        if epochs is not None:
            sizes = scenario.training.model_copy(
                update={"local_epochs": epochs, "local_steps": None}
            ).batches(turn.samples)
        rng = generator(scenario.seed, turn.round_number, turn.client, "own batches")
        self.most_own_steps += len(sizes)
        groups = getattr(turn.shard, "groups", None)
        if turn.places is None:
            return batches(sizes, turn.samples, rng, groups)
        groups = None if groups is None else groups[turn.places]
        return [turn.places[batch] for batch in batches(sizes, turn.samples, rng, groups)]

    def step(self, batch: np.ndarray, part: Part = "all") -> None:
        self.turn.add_loss(self._gradient(batch, part), len(batch))
        self.training.step(self.turn, self._optimizer(part), len(batch))

    def own_step(self, batch: np.ndarray, part: Part = "all", adjust: Adjust | None = None) -> None:
        turn = self.turn
        refuse_infinite(self._gradient(batch, part), turn.own_steps_taken, turn.client)
        factor = self.training.rate_factor(turn, self.own_steps, max(1, self.most_own_steps))
        self.own_steps += 1
        if self.training.take_step(turn, self._optimizer(part), adjust, factor):
            turn.own_samples_taken += len(batch)
            turn.own_steps_taken += 1

    def restart(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.restart()

    def _gradient(self, batch: np.ndarray, part: Part) -> float:
        """Leaves a batch's gradient of a part, and gives its mean loss."""
        self.training.optimizer.gradient.zero_()
        with self._alone(part):
            return self.training.take_gradient(self.turn, batch)

    @contextmanager
    def _alone(self, part: Part) -> Iterator[None]:
        """Inside, nothing else has a gradient, and none is computed."""
        tuned = self.training.model.tuned
        other = {"all": {}, "home": tuned.travelling, "travelling": tuned.home}[part]
        frozen = [t for t in other.values() if t.requires_grad]
        for tensor in frozen:
            tensor.requires_grad_(False)
        try:
            yield
        finally:
            for tensor in frozen:
                tensor.requires_grad_(True)

    def _optimizer(self, part: Part) -> FlatOptimizer:
        if part not in self.optimizers:
            flat = self.training.model.flat
            home = flat.home_layout.trained
            place = slice(0, home) if part == "home" else slice(home, len(flat.trained))
            training = self.training.job.scenario.training
            groups = within(self.training.model.groups, place)
            weights = flat.trained.data[place]
            gradient = flat.gradient[place]
            self.optimizers[part] = FlatOptimizer(training.optimizer, weights, gradient, groups)
        return self.optimizers[part]


def within(groups: Sequence[Group], place: slice) -> list[Group]:
    """The groups of the numbers of one place alone, counted from its beginning."""
    result: list[Group] = []
    for section, slices in groups:
        parts = [slice(max(s.start, place.start), min(s.stop, place.stop)) for s in slices]
        inside = [slice(s.start - place.start, s.stop - place.start) for s in parts if s.start < s.stop]
        if inside:
            result.append((section, inside))
    return result
