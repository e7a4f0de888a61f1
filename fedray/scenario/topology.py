"""`topology`: who sends what to whom."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedray.scenario.aggregation import Quantize, TopK
from fedray.scenario.base import Count, Positive, Section


class TopologySection(Section):
    """What others ask of any topology."""

    splits_model: ClassVar[bool] = False  # whether the server holds a part of the model that clients do not

    @property
    def reduces_among_clients(self) -> bool:
        """Whether clients add up their updates among themselves."""
        return False

    def server_calls(self, clients: int) -> int:
        """Calls that may wait at the server at once for so many clients; 0: they come one after another."""
        return 0


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


class Parallel(TopologySection):
    """Every client of a round trains from the same model at the same time (huang2023, Fig. 2a)."""

    kind: Literal["parallel"] = Field(description="parallel: all clients at the same time.")
    reduce: Literal["server", "allreduce"] = Field(
        default="server",
        description="Where updates are added. server: each client sends its update up. allreduce: the "
        "round's n clients add them in a ring over sidelinks, in which each sends 2 (n - 1) / n of the "
        "payload, and one of them sends the result up.",
    )

    @property
    def reduces_among_clients(self) -> bool:
        return self.reduce == "allreduce"


class Noise(Section):
    """Normal noise on every number that a client sends up (Titcombe et al. 2021)."""

    kind: Literal["noise"] = Field(description="noise: normal noise on activations.")
    std: Positive = Field(description="The noise's standard deviation.")


class DistanceCorrelation(Section):
    """The client's loss has a second term: `weight` times the distance correlation of its inputs and what it
    sends up (NoPeek, Vepakomma et al. 2020)."""

    kind: Literal["distance_correlation"] = Field(
        description="distance_correlation: train activations to tell little of inputs."
    )
    weight: Positive = Field(description="The term's weight in the loss.")


Defence = Annotated[Noise | DistanceCorrelation, Field(discriminator="kind")]
Compression = Annotated[TopK | Quantize, Field(discriminator="kind")]


class Split(TopologySection):
    """Clients hold the first stages of the model, the server the rest; each batch's activations go up and
    their gradients come down, and the clients' parts are averaged (huang2023, Fig. 2b). `fedray plan` lists
    a model's stages and the cuts between them."""

    kind: Literal["split"] = Field(description="split: a model cut between clients and server.")
    cut: str = Field(
        description="The name of the last of the client's first stages. auto: the cut with which the first "
        "round costs least (see choose)."
    )
    tail: str | None = Field(
        default=None,
        description="U-shape (Vepakomma et al. 2018): the name of the stage from which on the model is the "
        "client's again, so that loss and labels stay there. auto: the one with which the first round costs "
        "least. None: the server has the model's end, and the loss.",
    )
    variant: Literal["splitfed_v1", "splitfed_v2", "vanilla"] = Field(
        default="splitfed_v2",
        description="splitfed_v1: a server part per client, averaged as the clients' parts are. "
        "splitfed_v2: one server part, which every batch updates as it comes (both Thapa et al. 2022). "
        "vanilla: clients train one after another, and hand their part on over the sidelink (Gupta and "
        "Raskar 2018).",
    )
    choose: Literal["time", "energy"] = Field(
        default="time",
        description="What auto makes least. time: the round's simulated seconds. energy: its joules.",
    )
    may_send: list[str] = Field(
        default=[], description="Inputs that may leave their client as they are, such as labels or text."
    )
    skips: Literal["send", "home"] = Field(
        default="send",
        description="Skip connections that cross a cut, such as a U-Net's. send: they travel. home: refuse "
        "such a cut, so that they stay on the client.",
    )
    micro_batches: Count = Field(
        default=1,
        description="Into how many parts a batch is cut, which go through client and server as through a "
        "pipeline; the optimizer takes one step for all.",
    )
    compression: Annotated[list[Compression], Field(max_length=2)] = Field(
        default=[],
        description="How activations and their gradients are compressed: top_k, quantize, or both in this "
        "order.",
    )
    defence: Defence | None = Field(
        default=None, description="What hides inputs from a server that sees activations. None: no defence."
    )
    splits_model: ClassVar[bool] = True

    def server_calls(self, clients: int) -> int:
        """Every micro-batch of every client may wait there."""
        return clients * self.micro_batches + 2


Topology = Annotated[Relay | Parallel | Split, Field(discriminator="kind")]
