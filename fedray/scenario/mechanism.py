"""What all incentives have in common: what a scenario asks of them, and what a round costs a client."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import NotNegative, Refused
from fedray.scenario.kinds import KindSection

if TYPE_CHECKING:
    import numpy as np

BidsFor = Literal["round", "cut", "order", "labels", "nothing"]


class MechanismSection(KindSection):
    """What others ask of any mechanism."""

    kind: str = Field(description="The mechanism.")

    limited_by: ClassVar[str] = "unit_value"  # the key that lets more clients take part
    chooses_clients: ClassVar[bool] = True  # whether it, not population.selection, chooses a round's clients
    sets_efforts: ClassVar[bool] = False  # whether it says on how many of its samples a client trains
    # What a client's cost depends on. round: on nothing that is decided. cut: where the model is cut, which
    # is decided once, before the first round. order: whom it hands the model to. labels: on nothing; what it
    # says is what its samples are. nothing: it says nothing, and is paid by what its update turns out to add.
    bids_for: ClassVar[BidsFor] = "round"

    # how many images of the test set the server holds out to find out what each update adds to the model, for
    # which clients are paid then; 0: it does not look
    validation_images: ClassVar[int] = 0

    def evaluated_models(self, clients: int) -> int:
        """How many models it evaluates on these in a round of so many clients: all updates', and without each
        of them."""
        return clients + 1 if self.validation_images and clients else 0

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        population = scenario.population
        if self.chooses_clients and population.selection != "random":
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
        yield from self._conflicts_of_topology(scenario)
        if self.sets_efforts:
            yield from self._conflicts_of_efforts(scenario)
        yield from self._conflicts_of_drawing(scenario)

    def _conflicts_of_topology(self, scenario: Any) -> Iterator[Refused]:
        if not scenario.topology.shares_uplink:
            expected = "topology.kind parallel with reduce: server, where a client's cost is its own"
            yield Refused(".kind", f"{self.kind} in {scenario.topology.kind}", expected)

    def _conflicts_of_efforts(self, scenario: Any) -> Iterator[Refused]:
        """What counts on all samples of a client, or does not count them."""
        if scenario.training.local_epochs is None:
            got = f"{self.kind} with training.local_steps"
            expected = "training.local_epochs: an effort is the share of its samples that a client trains on"
            yield Refused(".kind", got, expected)
        if scenario.runtime.gang > 1:
            expected = "1: clients train on different numbers of samples"
            yield Refused("runtime.gang", f"{scenario.runtime.gang} beside incentive {self.kind}", expected)
        if scenario.sites:
            yield Refused(
                ".kind", f"{self.kind} beside data.sites", "an auction: samples are not known there"
            )

    def _conflicts_of_drawing(self, scenario: Any) -> Iterator[Refused]:
        """What counts on clients that are drawn at random."""
        if scenario.augmentation is not None:
            yield Refused("augmentation", f"one beside incentive {self.kind}", "one of them")
        if scenario.privacy is not None:
            got = f"{scenario.privacy.kind} beside incentive {self.kind}"
            yield Refused("privacy.kind", got, "one of them: winners and payments tell of clients")


class CostedSection(MechanismSection):
    """What a round costs a client. Money is in a unit of the scenario's own."""

    joule_price: NotNegative = Field(
        default=1.0,
        description="What a joule costs a client: of its local update and of what it sends; in money.",
    )
    second_price: NotNegative = Field(
        default=0.0,
        description="What a second costs a client: of its downlink, local update and uplink; in money.",
    )

    def private_factor_of(self, rng: "np.random.Generator") -> float:
        """A client's own factor on its costs, which the server does not know."""
        return 1.0
