"""Server optimizers (Reddi et al. 2021, Algorithm 2): the mean update, with its sign turned, is the server's
gradient."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fedray.aggregation.rule import Rule, State


class FedOpt(Rule, ABC):
    """Any of torch's optimizers, afresh each round with the state it had."""

    @abstractmethod
    def optimizer(self, weights: torch.nn.Parameter) -> torch.optim.Optimizer: ...

    def step(
        self, old: Tensor, combined: Tensor, state: State, participation: float, seed: int
    ) -> tuple[Tensor, State]:
        weights = torch.nn.Parameter(old.clone())
        weights.grad = -combined
        optimizer = self.optimizer(weights)
        optimizer.state[weights] = {name: value.clone() for name, value in state.items()}
        optimizer.step()
        return weights.detach(), {
            name: value for name, value in optimizer.state[weights].items() if isinstance(value, Tensor)
        }


class FedAvgM(FedOpt):
    """Hsu et al. 2019: v = beta v + gradient, w = w - eta v."""

    def optimizer(self, weights: torch.nn.Parameter) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            [weights], lr=self.section.server_learning_rate, momentum=self.section.momentum
        )


class FedAdam(FedOpt):
    def optimizer(self, weights: torch.nn.Parameter) -> torch.optim.Optimizer:
        s = self.section
        return torch.optim.Adam([weights], lr=s.server_learning_rate, betas=(s.beta1, s.beta2), eps=s.tau)


class FedYogi(FedAdam):
    """torch has no Yogi. v = v - (1 - beta_2) g^2 sign(v - g^2) grows no faster than it shrinks; without bias
    correction, and v_0 = tau^2, as in the paper."""

    def step(
        self, old: Tensor, combined: Tensor, state: State, participation: float, seed: int
    ) -> tuple[Tensor, State]:
        s = self.section
        square = combined.square()
        m = s.beta1 * state.get("exp_avg", torch.zeros_like(combined)) + (1 - s.beta1) * combined
        v = state.get("exp_avg_sq", torch.full_like(combined, s.tau**2))
        v = v - (1 - s.beta2) * square * torch.sign(v - square)
        return old + s.server_learning_rate * m / (v.sqrt() + s.tau), {"exp_avg": m, "exp_avg_sq": v}
