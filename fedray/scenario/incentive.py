"""`incentive`: clients bid for a round, winners take part and are paid."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import NotNegative, Positive, Refused
from fedray.scenario.kinds import KindSection, OpenKind


class IncentiveSection(KindSection):
    """What every mechanism has: what a round costs a client, which it bids, and what its part is worth to the
    server. Money is in a unit of the scenario's own."""

    kind: str = Field(description="The mechanism.")
    joule_price: NotNegative = Field(
        default=1.0,
        description="What a joule costs a client: of its local update and of its uplink; in money.",
    )
    second_price: NotNegative = Field(
        default=0.0,
        description="What a second costs a client: of its downlink, local update and uplink; in money.",
    )
    private_factor: Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field(
        default=[0.5, 1.5],
        description="The lowest and the highest factor on these costs. Each client has one of its own, drawn "
        "uniformly from the seed, which the server does not know.",
    )
    value: Literal["samples", "equal"] = Field(
        default="samples",
        description="What a client's part is worth to the server, in units. samples: one for each sample "
        "that it has. equal: one for each client.",
    )
    unit_value: Positive = Field(default=1.0, description="What a unit is worth to the server, in money.")

    limited_by: ClassVar[str] = "unit_value"  # the key that lets more bids win

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        population = scenario.population
        if self.private_factor[0] > self.private_factor[1]:
            yield Refused(".private_factor", self.private_factor, "the lower factor first")
        if population.selection != "random":
            name = (
                population.selection if isinstance(population.selection, str) else population.selection.kind
            )
            expected = "no population.selection: the winners are the round's clients"
            yield Refused("population.selection", f"{name} beside incentive", expected)
        if population.sampling != "fixed":
            expected = "fixed: bids decide, not chance"
            yield Refused("population.sampling", f"{population.sampling} beside incentive", expected)
        if population.over_select:
            expected = "0 beside incentive, which pays every winner"
            yield Refused("population.over_select", population.over_select, expected)
        if not scenario.topology.shares_uplink:
            expected = "topology.kind parallel with reduce: server, where a client's cost is its own"
            yield Refused(".kind", f"{self.kind} in {scenario.topology.kind}", expected)
        if self.value == "samples" and scenario.sites:
            yield Refused(".value", "samples beside data.sites", "equal: a site's samples are not known")
        yield from self._conflicts_of_drawing(scenario)

    def _conflicts_of_drawing(self, scenario: Any) -> Iterator[Refused]:
        """What counts on clients that are drawn at random."""
        if scenario.augmentation is not None:
            yield Refused("augmentation", f"one beside incentive {self.kind}", "one of them")
        if scenario.privacy is not None:
            got = f"{scenario.privacy.kind} beside incentive {self.kind}"
            yield Refused("privacy.kind", got, "one of them: winners and payments tell of clients")


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


Incentive = Annotated[Auction | BudgetedAuction, Discriminator("kind"), OpenKind("incentive")]
