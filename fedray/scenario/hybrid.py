"""`topology.kind: hybrid`: clusters of clients that agree among themselves, below a server."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Count, Refused
from fedray.scenario.node_models import refused_where_models_mix
from fedray.scenario.relay import Relay
from fedray.scenario.topology_section import TopologySection


class Hybrid(TopologySection):
    """Multi-stage hybrid federated learning (Hosseinalipour et al. 2022) of two stages: clusters of clients,
    and a server. In a round all clients train from the server's model; each cluster agrees over sidelinks on
    a mean of what its clients have made of it; of each cluster one client sends its model up; and the server
    averages these by the samples of their clusters: an uplink a cluster in place of one a client."""

    kind: Literal["hybrid"] = Field(description="hybrid: clusters that agree, below a server.")
    clusters: Count = Field(description="How many clusters there are; at most the clients of a round.")
    groups: Literal["random", "nearest"] = Field(
        default="random",
        description="Which clients form a cluster. random: drawn anew each round. nearest: clients in one "
        "part of the cell.",
    )
    within: Literal["gossip", "relay"] = Field(
        default="gossip",
        description="How a cluster agrees. gossip: each client averages its model with its neighbours', in "
        "consensus_rounds, and one that is drawn sends up what it has then. relay: from client to client, "
        "each training what it gets, which is topology relay with as many chains as clusters.",
    )
    graph: Literal["ring", "complete", "random_geometric"] | None = Field(
        default=None,
        description="Of gossip within: who is a neighbour in a cluster, with Metropolis weights. ring: two "
        "each, in the order of their numbers. complete: all. random_geometric: who is in range of the "
        "sidelink. A cluster that is not connected is refused. None: complete.",
    )
    consensus_rounds: Count | None = Field(
        default=None,
        description="Of gossip within: how many times the clients of a cluster average. In a complete graph "
        "they agree after one. None: 1.",
    )

    implementation: ClassVar[str] = "fedray.topologies.hybrid:HybridTopology"
    cites: ClassVar[tuple[str, ...]] = ("hosseinalipour2022multi",)
    hands_model_on: ClassVar[bool] = True
    needs_neighbours: ClassVar[bool] = True

    @property
    def mixes_models(self) -> bool:
        return self.within == "gossip"

    @property
    def as_relay(self) -> Relay:
        """What it is where clusters relay."""
        return Relay(kind="relay", chains=self.clusters, groups=self.groups)

    @property
    def beside_model_bytes(self) -> int:
        """How much the model weighs, in float64."""
        return 8 if self.mixes_models else 0

    @property
    def views(self) -> tuple[str, ...]:
        return () if self.mixes_models else self.as_relay.views

    def updates(self, clients: int) -> int:
        """One of each cluster."""
        return min(self.clusters, clients)

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        yield from ("xiao2004fast",) if self.mixes_models else self.as_relay.cited()

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        network = scenario.network
        if self.clusters > (per_round := scenario.population.clients_per_round):
            yield Refused(".clusters", self.clusters, f"at most the clients of a round, {per_round}")
        if self.groups == "nearest" and network.cell is None:
            yield Refused(".groups", "nearest", "network.cell, which says where devices are")
        for key in ("network.deadline_s", "population.over_select"):
            if key in scenario.closing_keys:
                yield Refused(key, "one in clusters", "none: nobody is waited for but who has the model")
        if self.mixes_models:
            yield from refused_where_models_mix(scenario)
            if self.graph == "random_geometric" and network.cell is None:
                yield Refused(".graph", "random_geometric", "network.cell, which says where devices are")
            if scenario.aggregation.gathers:
                expected = "one that adds updates: a cluster sends the mean of its own alone"
                yield Refused("aggregation.kind", f"{scenario.aggregation.kind} in a hybrid", expected)
            return
        for key in ("graph", "consensus_rounds"):
            if (value := getattr(self, key)) is not None:
                yield Refused(f".{key}", f"{value} within relay", "none, or within gossip")
