"""Which pictures an update was made of: Inverting Gradients (Geiping et al. 2020), through the steps of local
training, and the labels behind it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedray.learners.learner import Learner

Batches = Sequence[Tensor]  # of a local update: each one's places [b] among all pictures
STEP = 0.1  # of a picture's numbers, in -1..1, at first
MILESTONES = (3 / 8, 5 / 8, 7 / 8)  # of the attacker's steps, after which these are a tenth as long


@dataclass(frozen=True)
class Steps:
    """How a client takes its steps: stochastic gradient descent."""

    learning_rate: float
    momentum: float
    weight_decay: float
    clip: float | None  # the largest norm of a gradient; None: no limit


class SimulatedUpdate:
    """The mean update of clients that train on some pictures, as a function of these pictures that can be
    differentiated.

    Args:
        learner: the model, whose weights stay as they are.
        weights: names of those that train, as `part.name`, in the order in which updates have them.
        start: their numbers [trained] fp32, where training begins.
        steps: how clients train.
        chains: for each update that is averaged, its local updates, one from where another ended; each is
            given by its batches.
        batch: `images` and `labels` of all pictures, as the learner draws them.
    """

    def __init__(
        self,
        learner: Learner,
        weights: Sequence[str],
        start: Tensor,
        steps: Steps,
        chains: Sequence[Sequence[Batches]],
        batch: Any,
    ) -> None:
        self.model = _LossOf(learner)
        parameters = dict(self.model.named_parameters())
        self.names = [f"parts.{name}" for name in weights]
        self.shapes = [parameters[name].shape for name in self.names]
        self.start = start.detach()
        self.steps = steps
        self.batch = batch
        alike: dict[Any, list[Any]] = {}  # chains by the sizes of their batches, which go side by side
        for chain in chains:
            alike.setdefault(tuple(tuple(map(len, turn)) for turn in chain), []).append(chain)
        self.groups = [_stacked(group) for group in alike.values()]
        self.count = len(chains)

    def __call__(self, pictures: Tensor) -> Tensor:
        """The mean update [trained] of clients that train on pictures [n, c, h, w] in -1..1."""
        total = torch.zeros_like(self.start)
        for chains in self.groups:
            batches = [[(pictures[at], self.batch.labels[at]) for at in turn] for turn in chains]
            total = total + self._changes(batches).sum(0)
        return total / self.count

    def _changes(self, turns: Any) -> Tensor:
        """By how much each chain's weights change [chains, trained]: as `_change`, of images [chains, b, c,
        h, w] and labels [chains, b]."""
        if len(turns[0][0][1]) > 1:
            return vmap(self._change)(turns)
        return self._change([[(x[0], y[0]) for x, y in batches] for batches in turns])[None]

    def _change(self, turns: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> Tensor:
        """By how much weights change [trained] over local updates, given as images and labels of batches."""
        steps = self.steps
        change = torch.zeros_like(self.start)
        for batches in turns:
            velocity = torch.zeros_like(self.start)
            for images, labels in batches:
                weights = self.start + change
                gradient = grad(self._loss)(weights, images, labels)
                if steps.clip is not None:
                    length = torch.linalg.vector_norm(gradient)
                    gradient = gradient * (steps.clip / (length + 1e-6)).clamp(max=1.0)
                velocity = steps.momentum * velocity + gradient + steps.weight_decay * weights
                change = change - steps.learning_rate * velocity
        return change

    def _loss(self, weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        parts = weights.split([shape.numel() for shape in self.shapes])
        named = {n: p.view(s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}
        loss: Tensor = functional_call(
            self.model, named, (replace(self.batch, images=images, labels=labels),)
        )
        return loss


def _stacked(chains: Sequence[Sequence[Batches]]) -> list[list[Tensor]]:
    """Chains whose batches have equal sizes as one: of each batch the places [chains, b]."""
    return [[torch.stack(batch) for batch in zip(*turns, strict=True)] for turns in zip(*chains, strict=True)]


class _LossOf(nn.Module):
    """A learner's loss as a module, whose weights may be others."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(learner.parts)
        self.loss = learner.loss

    def forward(self, batch: Any) -> Tensor:
        return self.loss(batch)


def invert(
    observed: Tensor,
    simulated: Callable[[Tensor], Tensor],
    shape: Sequence[int],
    steps: int,
    total_variation: float,
    seed: int,
) -> Tensor:
    """Pictures [n, c, h, w] in -1..1 whose update points where the observed one does (Geiping et al. 2020,
    Eq. 4): the cosine distance and the total variation fall by Adam on the gradient's signs.

    Args:
        observed: the update [trained].
        simulated: the update of pictures, differentiable.
        shape: [n, c, h, w], of the pictures.
        steps: of the attacker.
        total_variation: its weight.
        seed: of the noise that the attacker begins with.
    """
    noise = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))
    pictures = noise.to(observed.device).requires_grad_(True)
    optimizer = torch.optim.Adam([pictures], STEP)
    milestones = [int(share * steps) for share in MILESTONES]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.1)
    with torch.enable_grad():
        for _ in range(steps):
            distance = 1 - F.cosine_similarity(simulated(pictures), observed, dim=0)
            objective = distance + total_variation * variation(pictures)
            pictures.grad = torch.autograd.grad(objective, pictures)[0].sign()
            optimizer.step()
            schedule.step()
            pictures.data.clamp_(-1, 1)
    return pictures.detach()


def variation(pictures: Tensor) -> Tensor:
    """The total variation of pictures [n, c, h, w]: the mean difference of neighbours, down and across."""
    down = (pictures[..., 1:, :] - pictures[..., :-1, :]).abs().mean()
    across = (pictures[..., 1:] - pictures[..., :-1]).abs().mean()
    return down + across


def labels_of(gradient: Tensor, n: int) -> list[int]:
    """The labels of n pictures, sorted, by the gradient [labels] of the last layer's bias, of whatever scale
    (LLG, Wainakh et al. 2022, who sum over the layer's weights instead). Of one picture it is the label with
    the negative entry (iDLG, Zhao et al. 2020). Labels that come up often are recovered less well."""
    left = gradient.double().clone()
    negative = (left < 0).nonzero().flatten()
    impact = left[negative].sum() * (1 + 1 / len(left)) / n
    chosen = negative[left[negative].argsort(stable=True)][:n].tolist()
    left[torch.tensor(chosen, dtype=torch.int64)] -= impact
    while len(chosen) < n:
        chosen.append(int(left.argmin()))
        left[chosen[-1]] -= impact
    return sorted(chosen)


def share_of_labels(guessed: Sequence[int], labels: Sequence[int]) -> float:
    """The share of labels that are among the guessed ones, each as often as it was guessed."""
    left = list(guessed)
    right = 0
    for label in labels:
        if label in left:
            left.remove(label)
            right += 1
    return right / len(labels)
