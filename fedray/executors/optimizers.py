"""Clients' optimizers in torch's and bitsandbytes' own steps.

Through their functional forms, because torch's Optimizer classes import its whole compiler with the first
step: two seconds and more of every client actor's start, for what is never compiled here.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adadelta import adadelta
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam
from torch.optim.adamax import adamax
from torch.optim.adamw import adamw
from torch.optim.nadam import nadam
from torch.optim.radam import radam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from fedray.executors.optimizer import Optimizer

Tensors = list[Tensor]
ONE_BY_ONE: dict[str, Any] = {"foreach": False, "maximize": False}


class TorchOptimizer(Optimizer):
    """One whose state, of each tensor, is other tensors of its shape and a number of steps.

    Args:
        section: the scenario's `training.optimizer`.
    """

    def __init__(self, section: Any) -> None:
        super().__init__(section)
        self._kept: dict[str, Tensors] = {}

    def kept(self, name: str, make: Callable[[], Tensors]) -> Tensors:
        """Tensors of a name from step to step, as they are made in the first one."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def zeros(self, name: str, weights: Tensors) -> Tensors:
        """Tensors like the weights, zeros at first."""
        return self.kept(name, lambda: [torch.zeros_like(w) for w in weights])

    def steps(self, weights: Tensors) -> Tensors:
        """How many steps each of the weights has taken."""
        return self.kept("steps", lambda: [torch.zeros(()) for _ in weights])

    def moments(self, weights: Tensors) -> tuple[Tensors, Tensors]:
        """The means of gradients and of their squares."""
        return self.zeros("exp_avg", weights), self.zeros("exp_avg_sq", weights)


class Sgd(TorchOptimizer):
    """With torch's momentum: v = m v + g, w = w - lr v."""

    def step(self, weights: Tensors, gradients: Tensors, rate: float) -> None:
        s = self.section
        momentum: Any = self.kept("momentum", lambda: [None] * len(weights))  # type: ignore[list-item]
        sgd(
            weights, gradients, momentum, lr=rate, weight_decay=s.weight_decay, momentum=s.momentum,
            dampening=s.dampening, nesterov=s.nesterov, **ONE_BY_ONE,
        )  # fmt: skip


class Adam(TorchOptimizer):
    """Kingma and Ba 2015, Algorithm 1."""

    def step(self, weights: Tensors, gradients: Tensors, rate: float) -> None:
        self.take(adam, weights, gradients, rate)

    def take(self, function: Callable[..., None], weights: Tensors, gradients: Tensors, rate: float) -> None:
        s = self.section
        largest = self.zeros("max_exp_avg_sq", weights) if s.amsgrad else []
        function(
            weights, gradients, *self.moments(weights), largest, self.steps(weights), lr=rate,
            amsgrad=s.amsgrad, beta1=s.beta1, beta2=s.beta2, weight_decay=s.weight_decay, eps=s.eps,
            **ONE_BY_ONE,
        )  # fmt: skip


class AdamW(Adam):
    """Loshchilov and Hutter 2019, Algorithm 2."""

    def step(self, weights: Tensors, gradients: Tensors, rate: float) -> None:
        self.take(adamw, weights, gradients, rate)


class Adamax(TorchOptimizer):
    """Kingma and Ba 2015, Algorithm 2."""

    def step(self, weights: Tensors, gradients: Tensors, rate: float) -> None:
        s = self.section
        adamax(
            weights, gradients, *self.moments(weights), self.steps(weights), lr=rate, beta1=s.beta1,
            beta2=s.beta2, weight_decay=s.weight_decay, eps=s.eps, **ONE_BY_ONE,
        )  # fmt: skip


class NAdam(TorchOptimizer):
    """Dozat 2016."""

    def step(self, weights: Tensors, gradients: Tensors, rate: float) -> None:
        s = self.section
        products = self.kept("mu_product", lambda: [torch.ones(()) for _ in weights])
        nadam(
            weights, gradients, *self.moments(weights), products, self.steps(weights), lr=rate,
            beta1=s.beta1, beta2=s.beta2, weight_decay=s.weight_decay, momentum_decay=s.momentum_decay,
            eps=s.eps, decoupled_weight_decay=s.decoupled_weight_decay, **ONE_BY_ONE,
        )  # fmt: skip


class RAdam(TorchOptimizer):
    """Liu et al. 2020, Algorithm 2."""

    def step(self, weights: Tensors, gradients: Tensors, rate: float) -> None:
        s = self.section
        radam(
            weights, gradients, *self.moments(weights), self.steps(weights), lr=rate, beta1=s.beta1,
            beta2=s.beta2, weight_decay=s.weight_decay, eps=s.eps,
            decoupled_weight_decay=s.decoupled_weight_decay, **ONE_BY_ONE,
        )  # fmt: skip


class Adagrad(TorchOptimizer):
    """Duchi et al. 2011."""

    def step(self, weights: Tensors, gradients: Tensors, rate: float) -> None:
        s = self.section
        begin = s.initial_accumulator_value
        squares = self.kept("sum", lambda: [torch.full_like(w, begin) for w in weights])
        adagrad(
            weights, gradients, squares, self.steps(weights), lr=rate, weight_decay=s.weight_decay,
            lr_decay=s.lr_decay, eps=s.eps, **ONE_BY_ONE,
        )  # fmt: skip


class Adadelta(TorchOptimizer):
    """Zeiler 2012, Algorithm 1."""

    def step(self, weights: Tensors, gradients: Tensors, rate: float) -> None:
        s = self.section
        squares = self.zeros("square_avg", weights)
        adadelta(
            weights, gradients, squares, self.zeros("acc_delta", weights), self.steps(weights), lr=rate,
            rho=s.rho, eps=s.eps, weight_decay=s.weight_decay, **ONE_BY_ONE,
        )  # fmt: skip


class RMSprop(TorchOptimizer):
    """Tieleman and Hinton 2012."""

    def step(self, weights: Tensors, gradients: Tensors, rate: float) -> None:
        s = self.section
        means = self.zeros("grad_avg", weights) if s.centered else []
        momentum = self.zeros("momentum", weights) if s.momentum else []
        rmsprop(
            weights, gradients, self.zeros("square_avg", weights), means, momentum, self.steps(weights),
            lr=rate, alpha=s.alpha, eps=s.eps, weight_decay=s.weight_decay, momentum=s.momentum,
            centered=s.centered, **ONE_BY_ONE,
        )  # fmt: skip


class AdamW8bit(Optimizer):
    """AdamW with both means in 8 bits (Dettmers et al. 2022, Sec. 2), in bitsandbytes' own steps.

    Args:
        section: the scenario's `training.optimizer`.
    """

    BLOCK = 256  # numbers with a scale of their own
    FEWEST = 4096  # numbers in a row; fewer stay in 32 bits

    def __init__(self, section: Any) -> None:
        super().__init__(section)
        self.taken = 0  # steps
        self.means: list[tuple[Tensors, Tensors, Tensors]] = []  # both, their code books and scales

    def step(self, weights: Tensors, gradients: Tensors, rate: float) -> None:
        from bitsandbytes import functional as bnb

        self.means = self.means or [self._begin(w) for w in weights]
        self.taken += 1
        s = self.section
        for w, g, (means, codes, scales) in zip(weights, gradients, self.means, strict=True):
            first, second = means
            if not codes:
                bnb.optimizer_update_32bit(
                    "adam", g, w, first, s.beta1, s.eps, self.taken, rate, second, s.beta2,
                    weight_decay=s.weight_decay,
                )  # fmt: skip
                continue
            bnb.optimizer_update_8bit_blockwise(
                "adam", g, w, first, second, s.beta1, s.beta2, 0.0, 0.0, s.eps, self.taken, rate, *codes,
                *scales, weight_decay=s.weight_decay,
            )  # fmt: skip

    def _begin(self, weights: Tensor) -> tuple[Tensors, Tensors, Tensors]:
        """Both means of some weights [n], their code books and their scales, before the first step."""
        from bitsandbytes.functional import create_dynamic_map

        if len(weights) < self.FEWEST:
            return [torch.zeros_like(weights), torch.zeros_like(weights)], [], []
        means = [torch.zeros_like(weights, dtype=torch.uint8) for _ in range(2)]
        codes = [create_dynamic_map(signed=signed).to(weights.device) for signed in (True, False)]
        blocks = -(-len(weights) // self.BLOCK)
        return means, codes, [torch.zeros(blocks, device=weights.device) for _ in range(2)]
