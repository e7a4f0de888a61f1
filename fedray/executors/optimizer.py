"""A client's optimizer: steps over one flat tensor, in one group or several."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedray.scenario.kinds import implementation
from fedray.scenario.optimizer import OptimizerSection

Group = tuple[Any, Sequence[slice]]  # an optimizer's section, and which numbers it steps


class Optimizer(ABC):
    """How weights follow their gradient in a local update, from one that has seen nothing. What it keeps from
    step to step is the object's own; it ends with the local update.

    Args:
        section: the scenario's `training.optimizer`, or that of a group.

    One of one's own, Lion (Chen et al. 2023, Algorithm 2):

        import torch
        from pydantic import Field

        import fedray

        class Lion(fedray.Optimizer):
            class Section(fedray.Optimizer.Section):
                beta1: float = Field(default=0.9, description="The share of the mean in a step.")
                beta2: float = Field(default=0.99, description="The decay of the mean.")
                weight_decay: float = Field(default=0.0, description="The weight decay coefficient.")

            means = None

            def step(self, weights, gradients, rate):
                s = self.section
                self.means = self.means or [torch.zeros_like(w) for w in weights]
                for w, g, mean in zip(weights, gradients, self.means):
                    w.mul_(1 - rate * s.weight_decay)
                    w.sub_(torch.sign(torch.lerp(g, mean, s.beta1)), alpha=rate)
                    mean.lerp_(g, 1 - s.beta2)
    """

    Section: ClassVar[type[OptimizerSection]] = OptimizerSection

    def __init__(self, section: Any) -> None:
        self.section = section

    @abstractmethod
    def step(self, weights: list[Tensor], gradients: list[Tensor], rate: float) -> None:
        """A step, without gradients of its own.

        Args:
            weights: each [n] fp32, of which many parameters may follow each other; changed in place.
            gradients: of each, [n] fp32; clipped, and not needed afterwards.
            rate: the learning rate of this step.
        """


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
        self.optimizers: list[Optimizer] = [implementation(section)(section) for section, _ in self.groups]

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
        for (section, places), optimizer in zip(self.groups, self.optimizers, strict=True):
            weights = [self.weights[s] for s in places]
            gradients = [self.gradient[s] for s in places]
            optimizer.step(weights, gradients, section.learning_rate * factor)


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
