"""`topology`: who sends what to whom."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedray.scenario.aggregation import Quantise, TopK
from fedray.scenario.base import Count, Positive, Section


class Relay(Section):
    """Device-to-device relay (huang2023, Fig. 2c): each client passes the model on to the next."""

    needs_neighbours: ClassVar[bool] = True  # a client without another in range refuses the run
    serves_in_clock_order: ClassVar[bool] = False

    kind: Literal["relay"]
    # best_sidelink: to the neighbour that is reached fastest. tour: the whole way is planned beforehand.
    order: Literal["random", "best_sidelink", "tour"] = "random"
    chains: Count = 1  # relays side by side, averaged at the round's end
    # who shares a chain: nearest, those of one part of the cell
    groups: Literal["random", "nearest"] = "random"


class Parallel(Section):
    """Every client of a round trains from the same model at the same time (huang2023, Fig. 2a)."""

    needs_neighbours: ClassVar[bool] = False
    serves_in_clock_order: ClassVar[bool] = False

    kind: Literal["parallel"]
    # server: each client sends its update up, and the server adds them. allreduce: the round's clients add
    # them in a ring over sidelinks, 2 (n - 1) / n of the payload each, and one sends the result up.
    reduce: Literal["server", "allreduce"] = "server"


class Noise(Section):
    """Normal noise of standard deviation `std` on every number that a client sends up (Titcombe et al.
    2021)."""

    kind: Literal["noise"]
    std: Positive


class DistanceCorrelation(Section):
    """The client's loss has `weight` times the distance correlation of its inputs and what it sends up
    (NoPeek, Vepakomma et al. 2020)."""

    kind: Literal["distance_correlation"]
    weight: Positive


Defence = Annotated[Noise | DistanceCorrelation, Field(discriminator="kind")]
Compression = Annotated[TopK | Quantise, Field(discriminator="kind")]


class Split(Section):
    """Clients hold the first stages of the model, the server the rest; each batch's activations, which are
    called smashed, go up and their gradients come down, and the clients' parts are averaged (huang2023, Fig.
    2b). A learner names its stages: `fedray plan` lists the cuts between them."""

    needs_neighbours: ClassVar[bool] = False
    serves_in_clock_order: ClassVar[bool] = True  # steps of a round, whatever the client, as they start

    kind: Literal["split"]
    cut: str  # the last of the client's first stages; auto: with which the first round costs the least
    # U-shape (Vepakomma et al. 2018): the first of the stages that are the client's again, or auto. Loss and
    # labels stay there.
    tail: str | None = None
    # splitfed_v1: a server part a client, averaged too. splitfed_v2: one, updated by whoever's batch is next
    # (Thapa et al. 2022). vanilla: clients take turns, and hand their part on over the sidelink (Gupta and
    # Raskar 2018).
    variant: Literal["splitfed_v1", "splitfed_v2", "vanilla"] = "splitfed_v2"
    choose: Literal["time", "energy"] = "time"  # which cost `cut: auto` makes least
    may_send: list[str] = []  # inputs that may leave their client as they are, such as labels
    # home: refuse a cut that connections around the next stage would cross
    skips: Literal["send", "home"] = "send"
    # in which a batch goes through the two parts as through a pipeline; they share one step
    micro_batches: Count = 1
    compression: Annotated[list[Compression], Field(max_length=2)] = []  # of activations and gradients
    defence: Defence | None = None


Topology = Annotated[Relay | Parallel | Split, Field(discriminator="kind")]
