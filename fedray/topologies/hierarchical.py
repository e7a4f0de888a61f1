"""Hierarchical rounds (HierFAVG; Liu et al. 2020, Algorithm 1): edge servers average the updates of their own
clients, and every so many rounds the server averages the models of the edge servers.

edge server -> each of its clients -> edge server                          (every round)
edge servers -> server -> edge servers                                     (every edge_rounds-th round)
"""

from collections.abc import Mapping, Sequence

from fedray.mixing import Mixing
from fedray.randomness import SERVER_ID
from fedray.scenario.base import Refused
from fedray.schedule import Schedule
from fedray.steps import FIRST_EDGE, Aggregate, Send, Step, Train
from fedray.topologies.topology import RoundContext, Topology


def hierarchical(
    round_number: int,
    members: Mapping[int, Sequence[int]],
    from_server: bool,
    to_server: bool,
    models: Mixing,
) -> Schedule:
    """One round of edge servers and their clients.

    Args:
        round_number: t, counted from 1.
        members: the clients of the round by their edge server, of all edge servers from 0.
        from_server: whether edge servers first get the server's model.
        to_server: whether they send theirs at the end.
        models: with which model each client begins, and what becomes of them.
    """
    steps: list[Step] = []
    ends = []
    for edge, clients in members.items():
        number = FIRST_EDGE - edge
        got: tuple[str, ...] = ()
        if from_server:
            steps.append(Send(f"down-edge-{edge}", SERVER_ID, number, "backhaul"))
            got = (steps[-1].id,)
        ups = []
        for k in clients:
            down = Send(f"down-{k}", number, k, "downlink", got)
            train = Train(f"train-{k}", k, (down.id,))
            up = Send(f"up-{k}", k, number, "uplink", (train.id,))
            steps += [down, train, up]
            ups.append(up.id)
        steps.append(Aggregate(f"aggregate-edge-{edge}", (*ups, *(got if not ups else ())), at=number))
        if to_server:
            steps.append(Send(f"up-edge-{edge}", number, SERVER_ID, "backhaul", (steps[-1].id,)))
        ends.append(steps[-1].id)
    steps.append(Aggregate("aggregate", tuple(ends), only_ends=not to_server))
    return Schedule(round_number, tuple(steps), models=models)


def edge_of(client: int, edges: int, population: int) -> int:
    """A client's edge server: as many clients each as there can be, in the order of their numbers."""
    return client * edges // population


class HierarchicalTopology(Topology):
    """Clients, edge servers and a server above them."""

    def schedule(self, context: RoundContext) -> Schedule:
        edges, edge_of_client = self._edges(context)
        node_of = {client: edge_of_client[client] for client in context.clients}
        weights = context.weights or (1,) * context.population
        shares = [0] * edges
        for client, weight in enumerate(weights):
            shares[edge_of_client[client]] += weight
        every = self.section.edge_rounds
        to_server = context.round_number % every == 0
        mean = {edge: share / sum(shares) for edge, share in enumerate(shares)}
        models = Mixing(node_of, dict.fromkeys(range(edges), mean) if to_server else {}, tuple(shares))
        members = {edge: [c for c in context.clients if node_of[c] == edge] for edge in range(edges)}
        from_server = context.round_number > 1 and (context.round_number - 1) % every == 0
        return hierarchical(context.round_number, members, from_server, to_server, models)

    def _edges(self, context: RoundContext) -> tuple[int, Sequence[int]]:
        """How many edge servers there are, and that of each client of the population."""
        if not self.section.follows_cells:
            edges = self.section.edges
            return edges, [edge_of(client, edges, context.population) for client in range(context.population)]
        cells = context.cells()
        if cells.idle:
            got = f"nearest_cell, where nobody is served by {_named(cells.idle)} of {cells.count} at any time"
            raise Refused("topology.edges", got, "cells that each serve a client: an edge server needs one")
        return cells.count, cells.serving


def _named(cells: Sequence[int]) -> str:
    return f"cell{'s' if len(cells) > 1 else ''} {', '.join(map(str, cells))}"
