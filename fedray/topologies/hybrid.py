"""Multi-stage hybrid federated learning (Hosseinalipour et al. 2022, Algorithm 1) of two stages: clusters of
clients that agree on a model among themselves, and a server that hears one client of each.

server -> each client; each client <-> its neighbours in its cluster (consensus_rounds times);
of each cluster one client -> server
"""

from collections.abc import Mapping

from fedray.mixing import Mixing, metropolis
from fedray.randomness import SERVER_ID
from fedray.schedule import Schedule
from fedray.steps import Aggregate, Quorum, Send, Step, Train
from fedray.topologies.gossip import graph_of, refuse_parts
from fedray.topologies.graphs import Graph, undirected
from fedray.topologies.relay import RelayTopology, groups_of
from fedray.topologies.topology import RoundContext, Topology


def hybrid(
    round_number: int, clusters: Mapping[int, Graph], consensus_rounds: int, shares: Mapping[int, int]
) -> Schedule:
    """One round in which clusters agree by gossip.

    Args:
        round_number: t, counted from 1.
        clusters: by the client that sends its model to the server, who is whose neighbour in its cluster.
        consensus_rounds: how many times clients average with their neighbours.
        shares: what each client weighs.
    """
    steps: list[Step] = []
    for sender, graph in clusters.items():
        steps += _cluster(sender, graph, consensus_rounds)
    steps.append(Aggregate("aggregate", tuple(f"up-{sender}" for sender in clusters)))
    clients = sorted(client for graph in clusters.values() for client in graph)
    node_of = {client: node for node, client in enumerate(clients)}
    neighbours = {
        node_of[client]: tuple(node_of[other] for other in others)
        for graph in clusters.values()
        for client, others in graph.items()
    }
    weights = metropolis(neighbours)
    mixing = Mixing(
        node_of=node_of,
        weights=weights,
        more=(weights,) * (consensus_rounds - 1),
        shares=tuple(shares[client] for client in clients),
        over_sidelinks=True,
        clusters={node_of[s]: tuple(node_of[client] for client in graph) for s, graph in clusters.items()},
    )
    return Schedule(round_number, tuple(steps), models=mixing)


def _cluster(sender: int, graph: Graph, consensus_rounds: int) -> list[Step]:
    """The steps of a cluster. Who drops out takes no part in its agreement; the sender waits for all."""
    steps: list[Step] = []
    held: dict[int, str] = {}  # the step that leaves each client's model
    for k in graph:
        steps += [
            Send(f"down-{k}", SERVER_ID, k, "downlink"),
            Train(f"train-{k}", k, (f"down-{k}",)),
        ]
        held[k] = f"train-{k}"
    for t in range(consensus_rounds):
        inputs: dict[int, list[str]] = {k: [held[k]] for k in graph}
        for i, others in graph.items():
            for j in others:
                steps.append(Send(f"hop-{t}-{i}-{j}", i, j, "sidelink", (held[i],), mixing=t))
                inputs[j].append(steps[-1].id)
        for k in graph:
            own = (Quorum((held[k],), 1),)
            steps.append(Aggregate(f"mix-{t}-{k}", tuple(inputs[k]), at=k, quorums=own))
        held = {k: f"mix-{t}-{k}" for k in graph}
    others_end = tuple(held[k] for k in graph if k != sender)
    steps.append(Send(f"up-{sender}", sender, SERVER_ID, "uplink", (held[sender], *others_end)))
    return steps


class HybridTopology(Topology):
    """Clusters of clients that agree among themselves, below a server."""

    def schedule(self, context: RoundContext) -> Schedule:
        section = self.section
        if not section.mixes_models:
            return RelayTopology(section.as_relay).schedule(context)
        rng = context.rng()
        clusters: dict[int, Graph] = {}
        for members in groups_of(section.groups, section.clusters, context, rng) if context.clients else []:
            kind = section.graph or "complete"
            graph = undirected(graph_of(kind, sorted(members), context.sidelinks))
            refuse_parts(graph, kind, context.round_number)
            clusters[int(rng.choice(sorted(members)))] = graph
        weights = context.weights or (1,) * context.population
        shares = {client: weights[client] for client in context.clients}
        return hybrid(context.round_number, clusters, section.consensus_rounds or 1, shares)
