"""FoolsGold (Fung et al. 2020, Algorithm 1)."""

import torch
from torch import Tensor

from fedray.aggregation.accumulators import Updates
from fedray.aggregation.robust import WholeUpdateRule, products, weighted_sum
from fedray.aggregation.rule import State

HISTORY = "history"  # the sum of each client's updates [clients so far, numbers] fp32
CLIENTS = "clients"  # whose they are, by number [clients so far]


class FoolsGold(WholeUpdateRule):
    """The mean of the updates, weighted by how little each client's history is similar to another's. The
    paper adds the weighted updates up; their mean keeps the length of one update whatever the weights are."""

    def combine_with_state(self, result: Updates, state: State) -> tuple[Tensor, State]:
        values = result.values[:, 0]
        known = state[CLIENTS].tolist() if CLIENTS in state else []
        clients = list(dict.fromkeys([*known, *result.clients]))
        place_of = {client: place for place, client in enumerate(clients)}
        history = values.new_zeros(len(clients), values.shape[1])
        if known:
            history[: len(known)] = state[HISTORY]
        places = torch.tensor([place_of[client] for client in result.clients])
        history[places] += values
        weights = learning_rates(_cosines(history[places]), self.section.kappa)
        kept = {HISTORY: history, CLIENTS: torch.tensor(clients)}
        return weighted_sum(values, weights / weights.sum().clamp(min=1e-12))[None], kept

    def server_bytes(self, updates: int, clients: int) -> int:
        return super().server_bytes(updates, clients) + 4 * self.summed * clients


def learning_rates(cosines: Tensor, kappa: float) -> Tensor:
    """How much each of n clients counts, from 0 to 1 [n].

    Args:
        cosines: of each two clients' histories [n, n] float64.
        kappa: of the logit.
    """
    cosines = cosines.clone().fill_diagonal_(0)
    largest = cosines.amax(1)  # v_i
    pardoned = largest[:, None] < largest  # honest clients that are similar to attackers by chance
    cosines = torch.where(pardoned, cosines * largest[:, None] / largest.clamp(min=1e-12), cosines)
    rates = (1 - cosines.amax(1)).clamp(0, 1)
    rates = rates / rates.max().clamp(min=1e-12)
    return (kappa * (torch.logit(rates) + 0.5)).clamp(0, 1)


def _cosines(history: Tensor) -> Tensor:
    """Of each two histories [n, numbers]: [n, n] float64; 0 for one of zeros."""
    gram = products(history, history)
    sizes = gram.diagonal().sqrt().clamp(min=1e-12)
    return gram / sizes[:, None] / sizes
