"""Attacks that are made from all honest updates of a round."""

from scipy.special import ndtri
from torch import Tensor

from fedray.adversary.attack import Attack
from fedray.transport.hooks import HookContext


class Alie(Attack):
    """Mean - z deviations of the honest updates, number by number, from each attacker."""

    def collude(self, honest: Tensor, own: Tensor, context: HookContext) -> Tensor:
        z = self.section.z
        if z is None:
            z = largest_z(len(honest) + len(own), len(own))
        values = honest.double()
        deviation = values.std(0, correction=0)
        return (values.mean(0) - z * deviation).float().expand_as(own).clone()


class Ipm(Attack):
    """-epsilon times the honest updates' mean, from each attacker."""

    def collude(self, honest: Tensor, own: Tensor, context: HookContext) -> Tensor:
        return (-self.section.epsilon * honest.double().mean(0)).float().expand_as(own).clone()


def largest_z(clients: int, attackers: int) -> float:
    """How many deviations away attackers are still nearer to the mean than enough honest updates (Baruch et
    al. 2019, Algorithm 3); 0 where there are none such."""
    supporters = clients // 2 + 1 - attackers
    share = (clients - attackers - supporters) / (clients - attackers)
    return max(0.0, float(ndtri(share))) if 0 < share < 1 else 0.0
