"""`topology` of several models: each client has one of its own, or each edge server."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Count, Refused, Section
from fedray.scenario.graph_file import GraphFile
from fedray.scenario.topology_section import TopologySection


class NodeModels(TopologySection):
    """What every topology has whose rounds have several models, of which each node has one."""

    keeps_node_models: ClassVar[bool] = True

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from refused_where_models_mix(scenario)
        if scenario.evaluation.clients is not None and not self.keeps_client_models:
            expected = "none: the mean of the models is evaluated"
            yield Refused("evaluation.clients", f"some in {self.kind}", expected)


def refused_where_models_mix(scenario: Any) -> Iterator[Refused]:
    """What cannot go with rounds in which several models are mixed."""
    for key, got, expected in _refused(scenario):
        yield Refused(key, f"{got} in {scenario.topology.kind}", expected)


def _refused(scenario: Any) -> Iterator[tuple[str, Any, str]]:
    """Key, what was got, and what was expected."""
    aggregation = scenario.aggregation
    expected = "fedavg, or another rule of one model that keeps nothing between rounds"
    one_model = aggregation.global_models == 1 and not aggregation.multiplies
    own_work = aggregation.clean_samples or aggregation.weighs_by_quality
    if aggregation.keeps_client_state or not one_model or own_work:
        yield "aggregation.kind", aggregation.kind, expected
    for key, expected in {
        "secure_aggregation": "none: masks cancel only where all updates are added to one model",
        "privacy": "none: the accounting is of one model, of which the server tells the noise",
        "incentive": "none: clients are paid by a server for one model",
        "augmentation": "none: pictures are made for one model",
        "adversary": "none: what attackers see and send is of one model",
        "ledger": "none: its record is of one model",
        "personal": "none: a client's own model begins with the global one",
    }.items():
        if getattr(scenario, key) is not None:
            yield key, "some", expected
    if scenario.payload != "fp32":
        yield "tuning.payload", scenario.payload, "fp32: models are mixed as they were sent"
    if decay := getattr(scenario.model, "ema_decay", None):
        yield "model.ema_decay", decay, "none: it is kept of no models that are mixed"
    if scenario.runtime.gang > 1:
        yield "runtime.gang", scenario.runtime.gang, "1: clients begin with different models"
    if scenario.evaluation.leakage is not None:
        yield "evaluation.leakage", "some", "none: it looks at updates of one model"
    if scenario.evaluation.update_cosines_every is not None:
        expected = "none: updates are of different models"
        yield "evaluation.update_cosines_every", scenario.evaluation.update_cosines_every, expected


class Gossip(NodeModels):
    """Decentralized SGD (D-PSGD; Lian et al. 2017): there is no server. Each client has a model of its own,
    trains it in its local update, sends it to its neighbours over sidelinks, and goes on with the weighted
    mean of its own and theirs. Evaluated and exported is the mean of all clients' models."""

    kind: Literal["gossip"] = Field(description="gossip: each client averages with its neighbours.")
    graph: Literal["ring", "directed_ring", "complete", "random_geometric"] | GraphFile = Field(
        default="ring",
        description="Who is a neighbour, of the clients of a round. ring: two each, in the order of their "
        "numbers. directed_ring: each sends to the next one alone, for push_sum. complete: all. "
        "random_geometric: who is in range of the sidelink. {file: PATH}: who is in a file. Those out of "
        "range of each other are never neighbours; a graph that is not connected is refused.",
    )
    mixing: Literal["metropolis", "push_sum"] = Field(
        default="metropolis",
        description="The weights of the mean. metropolis: 1 / (1 + the larger of both degrees) for each "
        "neighbour (Xiao and Boyd 2004). push_sum: each client divides what it has among those that it sends "
        "to, and a number beside it tells by what to divide what it gets (Assran et al. 2019), so that links "
        "may go one way.",
    )

    implementation: ClassVar[str] = "fedray.topologies.gossip:GossipTopology"
    hands_model_on: ClassVar[bool] = True
    needs_neighbours: ClassVar[bool] = True
    keeps_client_models: ClassVar[bool] = True

    @property
    def graph_file(self) -> GraphFile | None:
        return None if isinstance(self.graph, str) else self.graph

    @property
    def beside_model_bytes(self) -> int:
        """Push-sum's number, in float64."""
        return 8 if self.mixing == "push_sum" else 0

    def updates(self, clients: int) -> int:
        """None reaches a server."""
        return 0

    def nodes(self, clients: int) -> int:
        """One a client."""
        return clients

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        yield "lian2017can"
        yield "assran2019stochastic" if self.mixing == "push_sum" else "xiao2004fast"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if self.graph == "directed_ring" and self.mixing != "push_sum":
            yield Refused(".graph", "directed_ring with metropolis", "mixing push_sum, or ring")
        if self.graph == "random_geometric" and scenario.network.cell is None:
            yield Refused(".graph", "random_geometric", "network.cell, which says where devices are")
        if scenario.aggregation.gathers:
            expected = "one that adds updates: each client's model takes its own alone"
            yield Refused("aggregation.kind", f"{scenario.aggregation.kind} in gossip", expected)
        for key in ("network.deadline_s", "population.over_select"):
            if key in scenario.closing_keys:
                yield Refused(key, "one for gossip", "none: there is no server that waits")


class EdgesBy(Section):
    """An edge server at each cell of the uplink."""

    by: Literal["nearest_cell"] = Field(
        description="nearest_cell: a client belongs in a round to the edge server of the cell that serves it "
        "as the round begins, the strongest after network.uplink's hysteresis. When it moves to another "
        "cell, it goes on from that edge server's model."
    )


class Hierarchical(NodeModels):
    """Clients, edge servers and a server above them (HierFAVG; Liu et al. 2020). In a round each edge server
    sends its model to its clients and adds the mean of their updates to it; in every edge_rounds-th the
    server averages the models of the edge servers, by the samples of their clients, and they go on with the
    mean. Evaluated and exported is that mean, as it would be then. Client k of n belongs to edge server
    floor(k edges / n), or to that of its cell. Radio links are between a client and its edge server; all have
    the server's processor, and with network.cell its place and its band."""

    kind: Literal["hierarchical"] = Field(description="hierarchical: clients, edge servers, a server.")
    edges: Count | EdgesBy = Field(
        description="How many edge servers there are, at most population.clients; or {by: nearest_cell}: one "
        "at each cell of network.uplink."
    )
    edge_rounds: Count = Field(
        default=1,
        description="In how many rounds edge servers average before the server averages theirs, the paper's "
        "kappa_2. With 1 it is FedAvg over two hops.",
    )

    implementation: ClassVar[str] = "fedray.topologies.hierarchical:HierarchicalTopology"
    cites: ClassVar[tuple[str, ...]] = ("liu2020client",)

    @property
    def follows_cells(self) -> bool:
        """Whether the edge servers are those of cells."""
        return not isinstance(self.edges, int)

    def nodes(self, clients: int) -> int:
        """One an edge server, of which each needs a client."""
        return self.edges if isinstance(self.edges, int) else clients

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        clients = scenario.population.clients
        if isinstance(self.edges, int) and self.edges > clients:
            expected = f"at most population.clients, {clients}: an edge server needs a client"
            yield Refused(".edges", self.edges, expected)
        if self.follows_cells and not scenario.network.uplink.several_cells:
            got = f"nearest_cell over {scenario.network.uplink.kind}"
            yield Refused(
                ".edges", got, "network.uplink.kind gains, whose file has several cells, or a number"
            )
        if scenario.network.backhaul is None:
            yield Refused("network.backhaul", "nothing", "a link between edge servers and the server")
        for key in ("network.deadline_s", "population.over_select"):
            if key in scenario.closing_keys:
                yield Refused(key, "one in a hierarchy", "none: edge servers wait for all their clients")
