"""What every `topology` section has."""

from typing import ClassVar

from pydantic import Field

from fedray.scenario.graph_file import GraphFile
from fedray.scenario.kinds import KindSection
from fedray.scenario.mode import AnyMode
from fedray.scenario.relay_defence import RelayDefenceSection


class TopologySection(KindSection):
    """What others ask of any topology. The defaults are those of a topology of one's own."""

    kind: str = Field(description="Who sends what to whom.")

    splits_model: ClassVar[bool] = False  # whether the server holds a part of the model that clients do not
    hands_model_on: ClassVar[bool] = False  # whether clients pass the model on, not an update
    keeps_node_models: ClassVar[bool] = False  # whether there are several models, of nodes
    keeps_client_models: ClassVar[bool] = False  # whether node k is client k, which has a model of its own
    plans_by_client: ClassVar[bool] = False  # whether each client has one local update and one uplink
    needs_neighbours: ClassVar[bool] = False  # whether a client without another in range refuses the run
    serves_in_clock_order: ClassVar[bool] = False  # whether the server serves steps as the clock starts them

    @property
    def graph_file(self) -> GraphFile | None:
        """What names a file of who is whose neighbour."""
        return None

    @property
    def mixes_models(self) -> bool:
        """Whether a round has several models, which are averaged with each other."""
        return self.keeps_node_models

    @property
    def reduces_among_clients(self) -> bool:
        """Whether clients add up their updates among themselves."""
        return False

    @property
    def chooses_cut(self) -> bool:
        """Whether where the model is cut is chosen by its costs, before anything trains."""
        return False

    @property
    def asynchronous(self) -> AnyMode | None:
        """When the server takes its step, where clients do not wait for each other; None: they do."""
        return None

    @property
    def shares_uplink(self) -> bool:
        """Whether the clients of a round send to the server at once, each its own update."""
        return False

    @property
    def relay_defence(self) -> RelayDefenceSection | None:
        """What clients do with a model that another one hands them, beside training it."""
        return None

    @property
    def views(self) -> tuple[str, ...]:
        """What an observer may see in it: the values that evaluation.leakage.view takes."""
        return ()

    @property
    def beside_model_bytes(self) -> int:
        """Bytes of what clients send each other beside a model."""
        return 0

    def updates(self, clients: int) -> int:
        """How many updates reach the server of so many clients."""
        return clients

    def nodes(self, clients: int) -> int:
        """How many models there are at most of so many clients, where there are several."""
        return 1

    def server_calls(self, clients: int) -> int:
        """Calls that may wait at the server at once for so many clients; 0: they come one after another."""
        return 0
