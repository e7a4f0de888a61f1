"""FLTrust (Cao et al. 2021, Algorithm 2): how the server weighs updates by one of its own, the root update,
that it makes of clean samples."""

import torch
from torch import Tensor

from fedray.aggregation.accumulators import Updates
from fedray.aggregation.robust import WholeUpdateRule, lengths, products, weighted_sum
from fedray.randomness import SERVER


class FLTrust(WholeUpdateRule):
    """The server's own update is among those of the round, as that of the client SERVER."""

    def combine(self, result: Updates) -> Tensor:
        is_client = torch.tensor([client != SERVER for client in result.clients])
        values = result.values[:, 0]
        return trusted_mean(values[is_client], values[~is_client][0])[None]

    def server_bytes(self, updates: int, clients: int) -> int:
        return super().server_bytes(updates + 1, clients)


def trusted_mean(values: Tensor, root: Tensor) -> Tensor:
    """The mean of the updates, each scaled to the root update's length and weighted by its trust score, the
    cosine with the root update where that is above 0 (Eq. 2 to 4); zeros where no update has a score.

    Args:
        values: the updates [n, numbers] fp32.
        root: the root update [numbers].

    Returns:
        [numbers] float64.
    """
    sizes = lengths(values).clamp(min=1e-12)
    size = lengths(root[None])
    trust = (products(values, root[None])[:, 0] / (sizes * size.clamp(min=1e-12))).clamp(min=0)
    return weighted_sum(values, trust * size / sizes / trust.sum().clamp(min=1e-12))
