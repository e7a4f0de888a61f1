"""`network.uplink.allocation`: how a band is shared among those that send at once."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Discriminator, Field

from fedray.scenario.base import Refused
from fedray.scenario.kinds import KindSection, OpenKind


class AllocationSection(KindSection):
    """What others ask of any allocation. The defaults are those of an allocation of one's own."""

    kind: str = Field(description="The allocation.")

    directions: ClassVar[tuple[str, ...]] = ("uplink",)
    shares_equally: ClassVar[bool] = False  # whether all have the same, whatever they send
    broadcasts: ClassVar[bool] = False  # whether all receive the whole band
    by_blocks: ClassVar[bool] = False  # whether each resource block goes to somebody of its own
    # whether a sender's share depends on what the others send, and how well they are heard
    compares_senders: ClassVar[bool] = True
    # whether devices compute as slowly as network.deadline_s lets them
    slows_devices: ClassVar[bool] = False

    def conflicts_of(self, direction: str, link: Any, scenario: Any) -> Iterator[Refused]:
        """What it cannot go with on a link in a direction; keys begin with `.allocation`."""
        topology = scenario.topology
        if direction not in self.directions:
            yield Refused(".allocation", self.kind, f"{_fitting(direction)} for a {direction}")
        if not self.shares_equally and not self.broadcasts and not topology.shares_uplink:
            got = f"{self.kind} for a {topology.kind}"
            yield Refused(".allocation", got, "equal: nobody shares a band then")


class Equal(AllocationSection):
    """The same share for all who send at once."""

    kind: Literal["equal"] = Field(default="equal", description="equal: the same share for all.")

    implementation: ClassVar[str] = "fedray.network.allocations:EqualAllocation"
    directions: ClassVar[tuple[str, ...]] = ("uplink", "downlink", "sidelink")
    shares_equally: ClassVar[bool] = True
    compares_senders: ClassVar[bool] = False


class Broadcast(AllocationSection):
    """All receive the whole band (downlink)."""

    kind: Literal["broadcast"] = Field(description="broadcast: all receive the whole band (downlink).")

    implementation: ClassVar[str] = "fedray.network.allocations:WholeBand"
    directions: ClassVar[tuple[str, ...]] = ("downlink",)
    broadcasts: ClassVar[bool] = True
    compares_senders: ClassVar[bool] = False

    def conflicts_of(self, direction: str, link: Any, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts_of(direction, link, scenario)
        if scenario.topology.splits_model:
            yield Refused(".allocation", "broadcast in a split", "equal: gradients are each client's own")


class MinMax(AllocationSection):
    """Shares with which all finish together, their computing included (uplink)."""

    kind: Literal["min_max"] = Field(description="min_max: all finish together (uplink).")

    implementation: ClassVar[str] = "fedray.network.allocations:MinMaxAllocation"


class ProportionalFair(AllocationSection):
    """Shares with the greatest product of rates (uplink; Kelly 1997)."""

    kind: Literal["proportional_fair"] = Field(
        description="proportional_fair: the greatest product of rates (uplink)."
    )

    implementation: ClassVar[str] = "fedray.network.allocations:ProportionalFairAllocation"
    cites: ClassVar[tuple[str, ...]] = ("kelly1998rate",)


class Blocks(AllocationSection):
    """Resource blocks, each to a client whom it serves well (uplink; Kuhn 1955). In asynchronous rounds they
    are assigned anew, among all that send then, whenever one begins or ends."""

    kind: Literal["blocks"] = Field(description="blocks: resource blocks, each to whom it serves well.")

    implementation: ClassVar[str] = "fedray.network.allocations:EqualAllocation"
    cites: ClassVar[tuple[str, ...]] = ("kuhn1955hungarian",)
    by_blocks: ClassVar[bool] = True
    compares_senders: ClassVar[bool] = False

    def conflicts_of(self, direction: str, link: Any, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts_of(direction, link, scenario)
        mode = scenario.topology.asynchronous
        clients = scenario.population.clients_selected if mode is None else mode.at_once
        if direction == "uplink" and link.blocks < clients:
            got = f"blocks, of which there are {link.blocks}"
            yield Refused(".allocation", got, "at least one for each client that may send at once")


class LeastEnergy(AllocationSection):
    """Shares of the band and CPU frequencies with which all clients together spend the least energy, on
    computing, kappa C f^2, and on sending, before network.deadline_s (uplink; the problem of FIMI, Li et al.
    2024, with amounts that are given). Where no shares are in time for all, they are equal."""

    kind: Literal["least_energy"] = Field(
        description="least_energy: shares and CPU frequencies of the least energy before the deadline "
        "(uplink)."
    )

    implementation: ClassVar[str] = "fedray.network.allocations:LeastEnergyAllocation"
    cites: ClassVar[tuple[str, ...]] = ("li2024filling", "burd1996processor")
    slows_devices: ClassVar[bool] = True


OurAllocation = Equal | Broadcast | MinMax | ProportionalFair | Blocks | LeastEnergy
AnyAllocation = Annotated[OurAllocation, Discriminator("kind"), OpenKind("allocation", plain=True)]


def _fitting(direction: str) -> str:
    """Ours that a direction may have."""
    sections = (one for one in get_args(OurAllocation) if direction in one.directions)
    kinds = (kind for one in sections for kind in get_args(one.model_fields["kind"].annotation))
    return " or ".join(kinds)
