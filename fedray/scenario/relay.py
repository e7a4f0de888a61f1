"""`topology.kind: relay`."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Count, Refused
from fedray.scenario.relay_defence import RelayDefence, RelayDefenceSection
from fedray.scenario.topology_section import TopologySection


class Relay(TopologySection):
    """Device-to-device relay (huang2023, Fig. 2c): each client trains the model and passes it on to the
    next."""

    kind: Literal["relay"] = Field(description="relay: from client to client.")
    order: Literal["random", "best_sidelink", "tour"] = Field(
        default="random",
        description="In which order. random: drawn anew each round. best_sidelink: each time to the client "
        "that the sidelink reaches fastest. tour: the whole way is planned beforehand, as fast as 2-opt "
        "finds it.",
    )
    chains: Count = Field(
        default=1,
        description="Relays side by side, whose models the server averages at the round's end. With as many "
        "chains as clients it is FedAvg.",
    )
    groups: Literal["random", "nearest"] = Field(
        default="random",
        description="Which clients form a chain. random: drawn anew each round. nearest: clients in one "
        "part of the cell.",
    )
    defence: RelayDefence | None = Field(
        default=None,
        description="What a client does with a model that another one hands it. Then two buffers travel in "
        "each hop, the model and the last accepted one. None: it trusts it.",
    )

    implementation: ClassVar[str] = "fedray.topologies.relay:RelayTopology"
    cites: ClassVar[tuple[str, ...]] = ("huang2023federated",)
    hands_model_on: ClassVar[bool] = True
    needs_neighbours: ClassVar[bool] = True

    @property
    def relay_defence(self) -> RelayDefenceSection | None:
        return self.defence

    @property
    def views(self) -> tuple[str, ...]:
        return ("neighbour", "server")

    def updates(self, clients: int) -> int:
        """One of each chain."""
        return min(self.chains, clients)

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.order == "tour":
            yield "croes1958method"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        network = scenario.network
        per_round = scenario.population.clients_per_round
        if self.chains > per_round:
            yield Refused(".chains", self.chains, f"at most the clients of a round, {per_round}")
        if self.order != "random":
            yield from network.sidelink.refuse_order("network.sidelink", self.order)
        if self.groups == "nearest" and network.cell is None:
            yield Refused(".groups", "nearest", "network.cell, which says where devices are")
        if self.defence is not None:
            yield from self.defence.conflicts_in_relay(self, scenario)
        for key in ("network.deadline_s", "population.over_select"):
            if key in scenario.closing_keys:
                yield Refused(key, "one for a relay", "none: nobody is waited for but who has the model")
