"""How many actors there are, where, and what each holds of its node. It never changes a result."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from fedray.scenario.base import Refused
from fedray.scenario.scenario import Scenario


@dataclass(frozen=True)
class Node:
    """What a node has to give."""

    cpus: float
    gpus: int = 0
    site: str | None = None


@dataclass(frozen=True)
class Place:
    """What a client actor holds, and the site it is bound to."""

    site: str | None
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Packing:
    places: tuple[Place, ...]  # of the actors that train; the server and the evaluator come beside them
    evaluator_gpus: float
    server_gpus: float = 0.0  # it needs some only where it paints, or serves a split model

    def at_once(self, nodes: Sequence[Node]) -> int:
        """How many such runs fit side by side."""
        gpus = sum(p.gpus for p in self.places) + self.evaluator_gpus + self.server_gpus
        if gpus:
            return max(1, int(sum(n.gpus for n in nodes) // gpus))
        return max(1, int(sum(n.cpus for n in nodes) // sum(p.cpus for p in self.places)))


def ray_address() -> str:
    """The Ray that a run joins: that of RAY_ADDRESS, or of the job that this process is; `local`: one of its
    own."""
    return os.environ.get("RAY_ADDRESS") or ("auto" if os.environ.get("RAY_JOB_ID") else "local")


def pack(scenario: Scenario, nodes: Sequence[Node]) -> Packing:
    """One actor a client while there is room, a GPU or `threads` cores each, and several clients an actor
    beyond that; at least one at each site, the others where the most clients share one. Each holds as much as
    fits that many times. A run without actors is one process of `threads` cores."""
    runtime = scenario.runtime
    if runtime.executor == "serial":
        return Packing((Place(None, float(runtime.threads), 0.0),), 0.0)
    splits = scenario.topology.splits_model  # then the server computes as much as a client, or more
    clients_at: dict[str | None, int] = {s: len(c) for s, c in scenario.sites.items()} or {
        None: scenario.population.clients_per_round
    }
    if runtime.actors == "auto":
        counts = {
            site: min(n, max(1, _room(_at(site, nodes), runtime.threads) - splits))
            for site, n in clients_at.items()
        }
    else:
        counts = dict.fromkeys(clients_at, 1)
        while sum(counts.values()) < runtime.actors:
            counts[max(counts, key=lambda s: clients_at[s] / counts[s])] += 1
    # the server, too
    works = splits or (scenario.companion is not None and scenario.companion.works_at_server)
    places: list[Place] = []
    for site, n in counts.items():
        there = _at(site, nodes)
        slots = [1.0] * sum(node.gpus for node in there)
        # the evaluator has as much, and a server that works
        gpus = share(slots, n + 1 + works, 1.0) if slots else 0.0
        gpus = gpus if runtime.gpus_per_actor == "auto" else runtime.gpus_per_actor
        places += [Place(site, share([node.cpus for node in there], n, float(runtime.threads)), gpus)] * n
    least = min(p.gpus for p in places)
    return Packing(tuple(places), least, least * works)


def refuse_crowded(scenario: Scenario, nodes: Sequence[Node]) -> None:
    """That nodes to which none will be added have the GPUs that a scenario wants for each actor.

    Raises:
        Refused: with the most that an actor could have. Actors would wait for ever.
    """
    runtime = scenario.runtime
    if runtime.executor != "ray" or runtime.gpus_per_actor in ("auto", 0):
        return
    packing = pack(scenario, nodes)
    wanted = [*(place.gpus for place in packing.places), packing.evaluator_gpus, packing.server_gpus]
    each = float(runtime.gpus_per_actor)
    slots = [1.0] * sum(node.gpus for node in nodes) if each <= 1 else [float(node.gpus) for node in nodes]
    actors = sum(gpus > 0 for gpus in wanted)
    if share(slots, actors, each) < each:
        most = max((node.gpus for node in nodes), default=0)
        parts = f"{len(packing.places)} client actors, an evaluator" + (
            " and a server" if packing.server_gpus else ""
        )
        got = (
            f"{each:g} for {parts}, where the largest node has {most} GPUs and all have"
            f" {sum(node.gpus for node in nodes)}"
        )
        fits = share([1.0] * sum(node.gpus for node in nodes), actors, 1.0)
        expected = f"at most {fits:g}, auto" if fits else "auto, which does without"
        raise Refused("runtime.gpus_per_actor", got, f"{expected}, or RAY_ADDRESS of a cluster that has them")


def share(sizes: Sequence[float], n: int, wanted: float) -> float:
    """The largest part, at most `wanted`, of which n fit into places of these sizes without being cut."""
    parts = {wanted, *(size / k for size in sizes for k in range(1, n + 1))}
    fitting = (
        p
        for p in sorted(parts, reverse=True)
        if 0 < p <= wanted and sum(int(size / p + 1e-9) for size in sizes) >= n
    )
    return int(next(fitting, 0.0) * 10_000) / 10_000  # as finely as Ray counts


def _at(site: str | None, nodes: Sequence[Node]) -> list[Node]:
    """A site's nodes; all of them where none is known, as for a plan made elsewhere."""
    return (
        [n for n in nodes if n.site == site]
        if site is not None and any(n.site == site for n in nodes)
        else list(nodes)
    )


def _room(nodes: Sequence[Node], threads: int) -> int:
    return max(1, sum(n.gpus for n in nodes) or sum(int(n.cpus // threads) for n in nodes))
