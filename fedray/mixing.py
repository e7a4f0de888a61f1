"""Rounds of several models: with whose model each client begins, and how models are mixed after it.

A node is what has a model of its own: a client in gossip, an edge server in a hierarchy, for the length of a
round a client of a cluster. Nodes are numbered from 0, and all begin with the same model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

Weights = Mapping[int, Mapping[int, float]]  # W_ij by i and j


@dataclass(frozen=True)
class Mixing:
    """What becomes of the nodes' models in a round: each node adds the mean of its clients' updates to its
    own, then w_i <- sum_j W_ij w_j.

    Attributes:
        node_of: the node with whose model each client of the round begins, and to which its update is added.
        weights: W_ij by i and j, of nodes that mix, i itself among the j; any other keeps its model.
        shares: what each node's model weighs in the mean of all, which is what is evaluated [nodes].
        keeps_mass: whether a node divides by the weights that have come to it (push-sum): then columns of W
            add up to 1, and not rows.
        over_sidelinks: whether nodes are clients, and a weight W_ij needs that the hop from j to i arrives.
        more: the weights of mixings after the first, in their order.
        clusters: by the node that sends its model to a server, all nodes of its cluster. Then there is one
            model between rounds: the server's, the mean of those that are sent, by the sums of the `shares`
            of their clusters, and nodes mix by shares, too. None: each node keeps its own.
    """

    node_of: Mapping[int, int]
    weights: Weights
    shares: tuple[int, ...]
    keeps_mass: bool = False
    over_sidelinks: bool = False
    more: tuple[Weights, ...] = ()
    clusters: Mapping[int, tuple[int, ...]] | None = None

    @property
    def kept(self) -> range:
        """The nodes whose models are kept from round to round."""
        return range(0 if self.clusters is not None else len(self.shares))

    def arriving(self, *hops: Collection[tuple[int, int]]) -> Mixing:
        """The same round in which these hops alone arrive: what a node would have given to another one stays
        with it. Without push-sum two nodes mix where both hops between them arrive, so that W stays doubly
        stochastic.

        Args:
            hops: of each mixing, sender and receiver, by their nodes.
        """
        if not self.over_sidelinks:
            return self
        first, *more = map(self._arriving, (self.weights, *self.more), hops)
        return replace(self, weights=first, more=tuple(more))

    def _arriving(self, whole: Weights, hops: Collection[tuple[int, int]]) -> Weights:
        """One mixing's weights, where these hops between nodes arrive."""
        weights = {node: dict(row) for node, row in whole.items()}
        for receiver, row in whole.items():
            for sender, weight in row.items():
                back = self.keeps_mass or (receiver, sender) in hops
                if sender == receiver or ((sender, receiver) in hops and back):
                    continue
                del weights[receiver][sender]
                weights[sender][sender] += weight
        return weights


def metropolis(neighbours: Mapping[int, Collection[int]]) -> dict[int, dict[int, float]]:
    """Metropolis weights of an undirected graph (Xiao and Boyd 2004, Sec. 4.2): 1 / (1 + max(d_i, d_j)) for
    neighbours of degrees d, and what is left on the diagonal. Rows and columns add up to 1.

    Args:
        neighbours: of each node.
    """
    degree = {node: len(others) for node, others in neighbours.items()}
    weights: dict[int, dict[int, float]] = {}
    for i, others in neighbours.items():
        row = {j: 1 / (1 + max(degree[i], degree[j])) for j in others}
        weights[i] = dict(sorted({**row, i: 1 - sum(row.values())}.items()))
    return weights


def push_sum(receivers: Mapping[int, Collection[int]]) -> dict[int, dict[int, float]]:
    """Weights of push-sum over a directed graph (Kempe et al. 2003; Assran et al. 2019, Sec. 3): each node
    keeps as much as it gives to each of those that it sends to. Columns add up to 1.

    Args:
        receivers: to whom each node sends.
    """
    weights: dict[int, dict[int, float]] = {node: {} for node in sorted(receivers)}
    for j in sorted(receivers):
        part = 1 / (1 + len(receivers[j]))
        for i in (j, *receivers[j]):
            weights[i][j] = part
    return weights
