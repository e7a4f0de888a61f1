"""A client's optimizer: torch's own steps over one flat tensor, in one group or several.

Through their functional forms, because torch's Optimizer classes import its whole compiler with the first
step: two seconds and more of every client actor's start, for what is never compiled here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

Group = tuple[Any, Sequence[slice]]  # an optimizer's section, and which numbers it steps


class FlatOptimizer:
    """Steps `weights` [n] along `gradient` [n], in place. `restart` makes it one that has seen nothing.

    Args:
        section: the scenario's `training.optimizer`.
        weights: what it steps.
        gradient: along what; may be replaced.
        groups: parts of the numbers that have optimizers of their own; none: all have the section's.
    """

    def __init__(self, section: Any, weights: Tensor, gradient: Tensor, groups: Sequence[Group] = ()) -> None:
        self.weights = weights
        self.gradient = gradient
        self.groups = groups or [(section, [slice(0, len(weights))])]
        self.restart()

    def restart(self) -> None:
        self.states = [STEPS[section.kind](section) for section, _ in self.groups]

    def clipped(self, to: float | None) -> bool:
        """Whether the gradient is finite; it is no longer than `to` afterwards (as
        torch.nn.utils.clip_grad_norm_)."""
        norm = torch.linalg.vector_norm(self.gradient)
        if (finite := bool(torch.isfinite(norm))) and to is not None:
            self.gradient.mul_((to / (norm + 1e-6)).clamp(max=1.0))
        return finite

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        """A step, with every learning rate times a factor."""
        for (section, places), state in zip(self.groups, self.states, strict=True):
            weights = [self.weights[s] for s in places]
            gradients = [self.gradient[s] for s in places]
            state.step(weights, gradients, section.learning_rate * factor)


class AdamWState:
    """Loshchilov and Hutter 2019."""

    def __init__(self, section: Any) -> None:
        self.section = section
        self.moments: tuple[list[Tensor], list[Tensor], list[Tensor]] | None = (
            None  # Adam's two, and its steps
        )

    def step(self, weights: list[Tensor], gradients: list[Tensor], rate: float) -> None:
        s = self.section
        if self.moments is None:
            first = [torch.zeros_like(w) for w in weights]
            second = [torch.zeros_like(w) for w in weights]
            self.moments = first, second, [torch.zeros(()) for _ in weights]
        first, second, steps = self.moments
        adamw(
            weights, gradients, first, second, [], steps, foreach=False, amsgrad=False, beta1=s.beta1,
            beta2=s.beta2, lr=rate, weight_decay=s.weight_decay, eps=s.eps, maximize=False,
        )  # fmt: skip


class SgdState:
    """With torch's momentum: v = m v + g, w = w - lr v."""

    def __init__(self, section: Any) -> None:
        self.section = section
        self.momentum: list[Tensor | None] = []

    def step(self, weights: list[Tensor], gradients: list[Tensor], rate: float) -> None:
        s = self.section
        if not self.momentum:
            self.momentum = [None] * len(weights)
        sgd(
            weights, gradients, self.momentum, foreach=False, weight_decay=s.weight_decay,
            momentum=s.momentum, lr=rate, dampening=0.0, nesterov=False, maximize=False,
        )  # fmt: skip


STEPS: dict[str, Any] = {"adamw": AdamWState, "sgd": SgdState}


def grouped(section: Any, groups: Sequence[Any], names: Sequence[str], sizes: Sequence[int]) -> list[Group]:
    """The numbers of a flat tensor by the group that steps them.

    Args:
        section: the optimizer of what no group names.
        groups: sections with `patterns` of names (as in a shell) and an `optimizer`; the first that fits
            counts.
        names: of the tensors that the flat one holds, in its order.
        sizes: how many numbers each has.
    """
    from fnmatch import fnmatchcase

    sections = [section, *(group.optimizer for group in groups)]
    places: list[list[slice]] = [[] for _ in sections]
    start = 0
    for name, size in zip(names, sizes, strict=True):
        fitting = (
            i for i, group in enumerate(groups, 1) if any(fnmatchcase(name, p) for p in group.patterns)
        )
        chosen = places[next(fitting, 0)]
        if chosen and chosen[-1].stop == start:
            chosen[-1] = slice(chosen[-1].start, start + size)
        else:
            chosen.append(slice(start, start + size))
        start += size
    return [(s, p) for s, p in zip(sections, places, strict=True) if p]
