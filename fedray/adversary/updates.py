"""Attacks on what an attacker sends: u is its own update."""

import torch
from torch import Tensor

from fedray.adversary.attack import Attack
from fedray.transport.hooks import HookContext


class SignFlip(Attack):
    """-scale u."""

    def on_client(self, update: Tensor, context: HookContext) -> Tensor:
        return -self.section.scale * update


class Scale(Attack):
    """factor u."""

    def on_client(self, update: Tensor, context: HookContext) -> Tensor:
        return self.section.factor * update


class Noise(Attack):
    """u + e, or e alone, of normal e whose deviation is `std` root mean squares of u."""

    def on_client(self, update: Tensor, context: HookContext) -> Tensor:
        e = _normal(update, context, "attack noise") * (self.section.std * update.square().mean().sqrt())
        return e if self.section.replaces else update + e


class ModelReplacement(Attack):
    """boost u: of n equal updates of which m are the attackers', n / m makes their mean the mean of all, as
    far as the others' are small (Bagdasaryan et al. 2020, Eq. 3)."""

    def on_client(self, update: Tensor, context: HookContext) -> Tensor:
        return self._boost * update

    @property
    def _boost(self) -> float:
        if self.section.boost is not None:
            return float(self.section.boost)
        scenario = self.scenario
        arriving = scenario.topology.updates(scenario.population.clients_per_round)
        share = len(scenario.attackers) / scenario.population.clients
        return float(max(1.0, arriving / max(1.0, share * arriving)))


class FreeRider(Attack):
    """0, or normal noise of deviation `std`."""

    def on_client(self, update: Tensor, context: HookContext) -> Tensor:
        return self.section.std * _normal(update, context, "attack noise")


def _normal(update: Tensor, context: HookContext, purpose: str) -> Tensor:
    draws = torch.Generator().manual_seed(context.key(purpose))
    return torch.randn(update.shape, generator=draws)
