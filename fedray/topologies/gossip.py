"""Gossip (decentralized SGD; Lian et al. 2017, Algorithm 1): each client has a model of its own, trains it,
and averages it with its neighbours'. There is no server.

each client <-> its neighbours
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fedray.mixing import Mixing, metropolis, push_sum
from fedray.scenario.base import Refused
from fedray.schedule import Schedule
from fedray.steps import Aggregate, Send, Step, Train
from fedray.topologies.graphs import Graph, among, both_ways, complete, components, ring, undirected
from fedray.topologies.topology import RoundContext, Sidelinks, Topology


def gossip(round_number: int, graph: Mapping[int, Sequence[int]], mixing: Mixing) -> Schedule:
    """One round in which each client of a graph trains, sends its model to its neighbours, and mixes it with
    those that come.

    Args:
        round_number: t, counted from 1.
        graph: to whom each client sends.
        mixing: what becomes of the models.
    """
    steps: list[Step] = [Train(f"train-{k}", k, ()) for k in graph]
    came: dict[int, list[str]] = {k: [f"train-{k}"] for k in graph}  # what each client mixes
    for sender, receivers in graph.items():
        for receiver in receivers:
            after = (f"train-{sender}",)
            steps.append(Send(f"hop-{sender}-{receiver}", sender, receiver, "sidelink", after))
            came[receiver].append(steps[-1].id)
    mixes = [Aggregate(f"mix-{k}", tuple(inputs), at=k) for k, inputs in came.items()]
    end = Aggregate("aggregate", tuple(mix.id for mix in mixes), only_ends=True)
    return Schedule(round_number, (*steps, *mixes, end), models=mixing)


class GossipTopology(Topology):
    """Each client averages its model with those of its neighbours."""

    def schedule(self, context: RoundContext) -> Schedule:
        pushes = self.section.mixing == "push_sum"
        clients = list(context.clients)
        if context.neighbours is None:
            named = self.section.graph
            graph = graph_of(named, clients, context.sidelinks)
        else:
            named = repr(self.section.graph.file)
            graph = among(clients, context.neighbours)
            graph = within_range(graph if pushes else both_ways(graph), context.sidelinks)
        if not pushes:
            graph = undirected(graph)
        refuse_parts(graph, named, context.round_number)
        mixing = Mixing(
            node_of={client: client for client in graph},
            weights=push_sum(graph) if pushes else metropolis(graph),
            shares=(1,) * context.population,
            keeps_mass=pushes,
            over_sidelinks=True,
        )
        return gossip(context.round_number, graph, mixing)


def graph_of(kind: str, clients: Sequence[int], sidelinks: Sidelinks | None) -> Graph:
    """To whom each of these clients sends, without those out of its range.

    Args:
        kind: of the graph, as a scenario names it.
        clients: sorted.
        sidelinks: between them.
    """
    if kind in ("ring", "directed_ring"):
        graph = ring(clients, directed=kind == "directed_ring")
    else:
        graph = complete(clients)
    return within_range(graph, sidelinks)


def within_range(graph: Graph, sidelinks: Sidelinks | None) -> Graph:
    """A graph without those out of a sender's range."""
    if sidelinks is None or sidelinks.reaches_all:
        return graph
    return {client: _in_range(sidelinks, client, others) for client, others in graph.items()}


def _in_range(sidelinks: Sidelinks, client: int, others: Sequence[int]) -> tuple[int, ...]:
    if not others:
        return ()
    return tuple(others[int(i)] for i in np.flatnonzero(sidelinks.in_range(client, others)))


def refuse_parts(graph: Graph, kind: str, round_number: int) -> None:
    """Raises Refused for a graph that is not connected, with the clients of each part."""
    parts = components(graph)
    if len(parts) > 1:
        named = " and ".join("{" + ", ".join(map(str, part)) + "}" for part in parts)
        got = f"{kind}, in round {round_number} in {len(parts)} parts: {named}"
        expected = "a connected one: devices nearer to each other, more power, or another graph"
        raise Refused("topology.graph", got, expected)
