"""Who exchanges models with whom in gossip: graphs over the clients of a round, as receivers by sender."""

from collections.abc import Mapping, Sequence

Graph = dict[int, tuple[int, ...]]  # to whom each client sends, sorted


def ring(clients: Sequence[int], directed: bool = False) -> Graph:
    """Each client and its two neighbours in the order of their numbers; directed: the next one alone."""
    n = len(clients)
    graph: Graph = {}
    for i, client in enumerate(clients):
        near = {clients[(i + 1) % n]} if directed else {clients[(i + 1) % n], clients[i - 1]}
        graph[client] = tuple(sorted(near - {client}))
    return graph


def complete(clients: Sequence[int]) -> Graph:
    """Each client and all others."""
    return {client: tuple(other for other in clients if other != client) for client in clients}


def among(clients: Sequence[int], graph: Mapping[int, Sequence[int]]) -> Graph:
    """The part of a graph that has these clients alone."""
    there = set(clients)
    return {i: tuple(sorted(there.intersection(graph.get(i, ())))) for i in clients}


def both_ways(graph: Mapping[int, Sequence[int]]) -> Graph:
    """Where either of two sends to the other, both do."""
    others = {i: set(receivers) for i, receivers in graph.items()}
    for i, receivers in graph.items():
        for j in receivers:
            others[j].add(i)
    return {i: tuple(sorted(receivers)) for i, receivers in others.items()}


def undirected(graph: Mapping[int, Sequence[int]]) -> Graph:
    """Where both reach each other."""
    return {i: tuple(j for j in others if i in graph[j]) for i, others in graph.items()}


def components(graph: Mapping[int, Sequence[int]]) -> list[list[int]]:
    """The parts of a graph in each of which a way leads from every client to every other, sorted."""
    back: dict[int, list[int]] = {client: [] for client in graph}
    for sender, receivers in graph.items():
        for receiver in receivers:
            back[receiver].append(sender)
    left = set(graph)
    parts = []
    while left:
        first = min(left)
        part = _reached(first, graph) & _reached(first, back) & left
        parts.append(sorted(part))
        left -= part
    return parts


def _reached(first: int, graph: Mapping[int, Sequence[int]]) -> set[int]:
    """All to which a way leads."""
    reached = {first}
    waiting = [first]
    while waiting:
        new = set(graph[waiting.pop()]) - reached
        reached |= new
        waiting += new
    return reached
