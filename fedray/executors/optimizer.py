"""A client's optimizer: torch's own steps over one flat tensor.

Through their functional forms, because torch's Optimizer classes import its whole compiler with the first
step: two seconds and more of every client actor's start, for what is never compiled here.
"""

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from fedray.scenario.training import AdamW, Optimizer


class FlatOptimizer:
    """Steps `weights` [n] along `gradient` [n], in place. `restart` makes it one that has seen nothing."""

    def __init__(self, section: Optimizer, weights: Tensor, gradient: Tensor) -> None:
        self.section, self.weights, self.gradient = section, weights, gradient
        self.restart()

    def restart(self) -> None:
        self.momentum: list[Tensor | None] = [None]
        self.moments: tuple[Tensor, Tensor, Tensor] | None = None  # Adam's two, and its steps

    def clipped(self, to: float | None) -> bool:
        """Whether the gradient is finite; it is no longer than `to` afterwards (as
        torch.nn.utils.clip_grad_norm_)."""
        norm = torch.linalg.vector_norm(self.gradient)
        if (finite := bool(torch.isfinite(norm))) and to is not None:
            self.gradient.mul_((to / (norm + 1e-6)).clamp(max=1.0))
        return finite

    @torch.no_grad()
    def step(self) -> None:
        s, weights, gradient = self.section, [self.weights], [self.gradient]
        if isinstance(s, AdamW):
            if self.moments is None:
                self.moments = torch.zeros_like(self.weights), torch.zeros_like(self.weights), torch.zeros(())
            first, second, steps = ([m] for m in self.moments)
            adamw(
                weights,
                gradient,
                first,
                second,
                [],
                steps,
                foreach=False,
                amsgrad=False,
                beta1=s.beta1,
                beta2=s.beta2,
                lr=s.learning_rate,
                weight_decay=s.weight_decay,
                eps=s.eps,
                maximize=False,
            )
            return
        sgd(
            weights,
            gradient,
            self.momentum,
            foreach=False,
            weight_decay=s.weight_decay,
            momentum=s.momentum,
            lr=s.learning_rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
