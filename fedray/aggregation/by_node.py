"""Updates of a round of several models, accumulated by whose model they are for."""

from collections.abc import Mapping

from torch import Tensor

from fedray.aggregation.accumulators import Accumulator, ExactSum


class ByNode(Accumulator):
    """An accumulator a node, of those that got an update.

    Args:
        numel: numbers of an update.
        round_weight: of all clients of the round.
        kind: of each node's accumulator.
        node_of: the node of each client.
    """

    def __init__(
        self, numel: int, round_weight: int, kind: type[Accumulator], node_of: Mapping[int, int]
    ) -> None:
        super().__init__(numel, round_weight)
        self.kind = kind
        self.node_of = node_of
        self.nodes: dict[int, Accumulator] = {}

    def _add(self, update: Tensor, weight: int, client: int, base: Tensor | None) -> None:
        node = self.node_of[client]
        if node not in self.nodes:
            self.nodes[node] = self.kind(self.numel, self.round_weight)
        self.nodes[node].add(update, weight, client, base)

    def _merge(self, other: "ByNode") -> None:
        for node, accumulated in other.nodes.items():
            if node in self.nodes:
                self.nodes[node].merge(accumulated)
            else:
                self.nodes[node] = accumulated

    def result(self, rows: int, part: slice) -> dict[int, object]:
        """What each node has, by node."""
        return {node: self.nodes[node].result(rows, part) for node in sorted(self.nodes)}

    @staticmethod
    def refuse(update: Tensor, base: Tensor | None = None) -> None:
        """As an exact sum: one bound for what a client may send, whatever becomes of it."""
        ExactSum.refuse(update, base)
