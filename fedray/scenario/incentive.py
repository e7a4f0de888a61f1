"""`incentive`: clients bid for a round, or choose how much they do for what is offered, and are paid."""

from collections.abc import Iterator
from itertools import pairwise
from math import isclose
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Positive, Refused
from fedray.scenario.data_payments import LabelScores, QualityPay
from fedray.scenario.kinds import OpenKind
from fedray.scenario.mechanism import BidsFor, CostedSection
from fedray.scenario.mechanism import MechanismSection as MechanismSection

if TYPE_CHECKING:
    import numpy as np

MOST_IN_RELAY = 8  # clients, of whose orders each is looked at; heuristics would not be truthful


class PricedSection(CostedSection):
    """What a round costs and is worth: what it costs a client, and what its part is worth to the server."""

    value: Literal["samples", "equal"] = Field(
        default="samples",
        description="What a client's part is worth to the server, in units. samples: one for each sample "
        "that it has. equal: one for each client.",
    )
    unit_value: Positive = Field(default=1.0, description="What a unit is worth to the server, in money.")

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if self.value == "samples" and scenario.sites:
            yield Refused(".value", "samples beside data.sites", "equal: a site's samples are not known")


class IncentiveSection(PricedSection):
    """The same, with a private factor on each client's costs, drawn from a range."""

    private_factor: Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field(
        default=[0.5, 1.5],
        description="The lowest and the highest factor on these costs. Each client has one of its own, drawn "
        "uniformly from the seed, which the server does not know.",
    )

    def private_factor_of(self, rng: "np.random.Generator") -> float:
        low, high = self.private_factor
        return rng.uniform(low, high)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.private_factor[0] > self.private_factor[1]:
            yield Refused(".private_factor", self.private_factor, "the lower factor first")
        yield from super().conflicts(scenario)


class Auction(IncentiveSection):
    """A reverse auction: population.per_round clients win, those with the greatest value less bid, while that
    is above zero. Each is paid the highest bid with which it would still have won."""

    kind: Literal["auction"] = Field(
        description="auction: the best offers win, and are paid critical prices."
    )

    implementation: ClassVar[str] = "fedray.incentives.auction:ReverseAuction"
    cites: ClassVar[tuple[str, ...]] = ("vickrey1961counterspeculation",)


class BudgetedAuction(IncentiveSection):
    """A reverse auction under a budget: by bid per value in ascending order, up to population.per_round
    clients win while each bid is at most its share of the budget, by value (Singer 2010). Only the ratio of
    values counts, so that unit_value changes nothing."""

    kind: Literal["budget_auction"] = Field(description="budget_auction: payments keep to a budget.")
    budget: Positive = Field(description="The most that all winners of a round are paid together, in money.")

    implementation: ClassVar[str] = "fedray.incentives.auction:BudgetAuction"
    limited_by: ClassVar[str] = "budget"
    cites: ClassVar[tuple[str, ...]] = ("singer2010budget",)


class Contract(PricedSection):
    """A menu of contracts (adverse selection): each client of the round is offered efforts, the shares of its
    samples that it trains on, each with a reward, and takes what is best for it. An effort q costs it
    q^2 x its true cost of the whole round. The server knows that cost but for a private factor, of which it
    knows which there are and how frequent they are; its menu is the best for it (Mussa and Rosen 1978)."""

    kind: Literal["contract"] = Field(description="contract: a menu of efforts and rewards.")
    types: Annotated[list[Positive], Field(min_length=1)] = Field(
        default=[1.5, 1.0, 0.5],
        description="The private factors on clients' costs that there are, the highest first.",
    )
    shares: list[Positive] | None = Field(
        default=None,
        description="Which part of all clients are of each type; they add up to 1. Each client's type is "
        "drawn with these probabilities from the seed. None: equal parts.",
    )

    implementation: ClassVar[str] = "fedray.incentives.contract:ContractMenu"
    chooses_clients: ClassVar[bool] = False
    sets_efforts: ClassVar[bool] = True
    cites: ClassVar[tuple[str, ...]] = ("mussa1978monopoly",)

    @property
    def type_shares(self) -> list[float]:
        """Of each type."""
        return [1 / len(self.types)] * len(self.types) if self.shares is None else self.shares

    def private_factor_of(self, rng: "np.random.Generator") -> float:
        return float(rng.choice(self.types, p=self.type_shares))

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if any(higher <= lower for higher, lower in pairwise(self.types)):
            yield Refused(".types", self.types, "the highest factor first, each once")
        if self.shares is not None and len(self.shares) != len(self.types):
            yield Refused(".shares", self.shares, f"{len(self.types)} numbers, one for each of types")
        elif not isclose(sum(self.type_shares), 1):
            yield Refused(".shares", self.shares, f"numbers that add up to 1, not {sum(self.type_shares):g}")
        yield from super().conflicts(scenario)


class Stackelberg(IncentiveSection):
    """The server moves first, by a price of a unit of work or by a prize; then each client of the round
    chooses its effort, the share of its samples that it trains on. Both know all costs: what clients say of
    theirs is believed, and may be to their advantage."""

    kind: Literal["stackelberg"] = Field(description="stackelberg: a price or a prize, then efforts.")
    game: Literal["price", "prize"] = Field(
        default="price",
        description="price: the server pays r an effort, where an effort x costs x^2 x the true cost of a "
        "whole round, and gains benefit x ln(1 + the sum of all efforts). prize: the clients share a prize "
        "in proportion to their efforts, and an effort x costs x times that cost (Yang et al. 2012).",
    )
    benefit: Positive = Field(
        default=1.0, description="The factor of the server's logarithmic benefit, in money (game: price)."
    )
    prize: Positive = Field(default=1.0, description="What a round's clients share, in money (game: prize).")

    implementation: ClassVar[str] = "fedray.incentives.stackelberg:StackelbergGame"
    chooses_clients: ClassVar[bool] = False
    sets_efforts: ClassVar[bool] = True
    cites: ClassVar[tuple[str, ...]] = ("yang2012crowdsourcing",)

    @property
    def limited_by(self) -> str:  # type: ignore[override]
        return "benefit" if self.game == "price" else "prize"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if self.game == "prize" and scenario.population.clients_per_round < 2:
            yield Refused(".game", "prize for one client a round", "price, or two clients at least")


class VcgSplit(IncentiveSection):
    """VCG over clients and the cut of a split model: a client bids what its part of a round costs it with
    each cut. The cut and the clients with the greatest sum of value less bid win; each is paid its bid and
    what its being there adds to that sum. Held once, by the first round's costs: the model cannot be cut
    anew in each round. The winners take part in every round in which they are there."""

    kind: Literal["vcg_split"] = Field(description="vcg_split: clients and the cut of a split together.")

    implementation: ClassVar[str] = "fedray.incentives.vcg:SplitAuction"
    bids_for: ClassVar[BidsFor] = "cut"
    cites: ClassVar[tuple[str, ...]] = (
        "vickrey1961counterspeculation",
        "clarke1971multipart",
        "groves1973incentives",
    )

    def _conflicts_of_topology(self, scenario: Any) -> Iterator[Refused]:
        topology = scenario.topology
        if not topology.chooses_cut:
            expected = "topology.kind split with cut: auto, which the bids decide"
            yield Refused(".kind", f"vcg_split in {topology.kind}", expected)
        elif topology.variant == "vanilla":
            expected = "splitfed_v1 or splitfed_v2, where a client's cost is its own"
            yield Refused("topology.variant", "vanilla beside incentive vcg_split", expected)
        if scenario.sites:
            yield Refused(".kind", "vcg_split beside data.sites", "another: samples are not known there")


class VcgRelay(IncentiveSection):
    """VCG over the orders of a relay: of at most 8 clients of a round, each bids what its local update and
    handing the model on to each other one, or up, cost it. The order with the greatest sum of value less bid
    wins, which may leave clients out; each is paid its bid and what its being there adds to that sum."""

    kind: Literal["vcg_relay"] = Field(description="vcg_relay: who takes part in a relay, in which order.")

    implementation: ClassVar[str] = "fedray.incentives.vcg:RelayAuction"
    chooses_clients: ClassVar[bool] = False
    bids_for: ClassVar[BidsFor] = "order"
    cites: ClassVar[tuple[str, ...]] = (
        "vickrey1961counterspeculation",
        "clarke1971multipart",
        "groves1973incentives",
        "held1962dynamic",
    )

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        per_round = scenario.population.clients_per_round
        if per_round > MOST_IN_RELAY:
            expected = f"at most {MOST_IN_RELAY} beside incentive vcg_relay: all orders are compared"
            yield Refused("population.per_round", per_round, expected)

    def _conflicts_of_topology(self, scenario: Any) -> Iterator[Refused]:
        topology = scenario.topology
        if not topology.hands_model_on:
            yield Refused(".kind", f"vcg_relay in {topology.kind}", "topology.kind relay")
            return
        if getattr(topology, "order", "random") != "random":
            expected = "random beside incentive vcg_relay, whose order is the bids'"
            yield Refused("topology.order", topology.order, expected)
        if getattr(topology, "chains", 1) != 1:
            expected = "1 beside incentive vcg_relay, which decides about one order"
            yield Refused("topology.chains", topology.chains, expected)
        if topology.relay_defence is not None:
            got = f"{topology.relay_defence.kind} beside incentive vcg_relay"
            yield Refused("topology.defence", got, "one of them: validating costs clients, too")
        if scenario.adversary is not None and scenario.adversary.place != "random":
            expected = "random beside incentive vcg_relay, whose order is the bids'"
            yield Refused("adversary.place", scenario.adversary.place, expected)


Incentive = Annotated[
    Auction | BudgetedAuction | Contract | Stackelberg | VcgSplit | VcgRelay | LabelScores | QualityPay,
    Discriminator("kind"),
    OpenKind("incentive"),
]
