"""Incentives that pay for what clients share: labels, scored by audits, and updates, by their validated
quality."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Count, Positive, Refused
from fedray.scenario.mechanism import BidsFor, CostedSection, MechanismSection

MOST_IN_COALITIONS = 8  # clients, of which the model of every coalition is evaluated


class LabelScores(MechanismSection):
    """Each client of the round is paid for the shares of labels that it has reported, by how well they
    foretell the label of one of its samples, which the server draws and looks at: price x (1 + 2 r_x - |r|^2)
    for shares r and the label x. On average no report is paid more than the true one (Brier 1950)."""

    kind: Literal["label_scores"] = Field(
        description="label_scores: a strictly proper score of reported labels."
    )
    price: Positive = Field(default=1.0, description="What a score of 0 is paid, in money; 1 is twice that.")

    implementation: ClassVar[str] = "fedray.incentives.scores:LabelScores"
    limited_by: ClassVar[str] = "price"
    chooses_clients: ClassVar[bool] = False
    bids_for: ClassVar[BidsFor] = "labels"
    cites: ClassVar[tuple[str, ...]] = ("brier1950verification",)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if not scenario.needs_label_counts:
            expected = "augmentation, or population.selection: label_cover, for which clients report labels"
            yield Refused(".kind", "label_scores where nobody reports labels", expected)

    def _conflicts_of_topology(self, scenario: Any) -> Iterator[Refused]:
        """Labels are reported once, whatever is sent to whom."""
        return iter(())

    def _conflicts_of_drawing(self, scenario: Any) -> Iterator[Refused]:
        if scenario.privacy is not None:
            got = f"{scenario.privacy.kind} beside incentive {self.kind}"
            yield Refused("privacy.kind", got, "one of them: payments tell of clients' samples")


class QualityPay(CostedSection):
    """The clients of a round share a budget in proportion to what their updates add to the next global model,
    as the server finds on images that it holds out; what adds nothing, or harms, is paid nothing (Song et al.
    2019; Wang et al. 2020). Nobody bids, and the payments are known once the round has been trained:
    `fedray plan` counts the whole budget."""

    kind: Literal["quality_pay"] = Field(
        description="quality_pay: updates are paid for what they add to the model on held-out images."
    )
    budget: Positive = Field(
        description="What the clients of a round are paid together, in money; nothing where no update adds "
        "anything."
    )
    contribution: Literal["leave_one_out", "shapley"] = Field(
        default="leave_one_out",
        description="What an update adds. leave_one_out: the global model with all updates, against that "
        "without this one; n + 1 models are evaluated. shapley: the mean over all orders in which updates "
        "may join, its Shapley value; 2^n models, for at most 8 clients a round.",
    )
    measure: Literal["loss", "accuracy"] = Field(
        default="loss",
        description="By what models are compared. loss: the cross entropy, which every update moves. "
        "accuracy: the share of held-out images that are labelled rightly.",
    )
    images: Count = Field(
        default=100,
        description="How many images of the test set the server holds out for that; the model is not "
        "tested on them.",
    )

    implementation: ClassVar[str] = "fedray.incentives.scores:QualityPay"
    limited_by: ClassVar[str] = "budget"
    chooses_clients: ClassVar[bool] = False
    bids_for: ClassVar[BidsFor] = "nothing"
    cites: ClassVar[tuple[str, ...]] = ("song2019profit", "wang2020principled")

    @property
    def validation_images(self) -> int:  # type: ignore[override]
        return self.images

    def evaluated_models(self, clients: int) -> int:
        if self.contribution == "shapley" and clients:
            return 2**clients
        return super().evaluated_models(clients)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if not scenario.data.has_test_set:
            got = f"{self.images} with data {scenario.data.kind}, which have no test set"
            yield Refused(".images", got, "data with a test set, of which the server holds some out")
        if not scenario.model.learns_labels:
            expected = "a model that learns labels, such as classifier: updates are validated by them"
            yield Refused(".kind", f"quality_pay for a {scenario.model.kind}", expected)
        if scenario.secure_aggregation is not None:
            expected = "another, or no secure aggregation, which hides single updates from the server"
            yield Refused(".kind", "quality_pay with secure aggregation", expected)
        if scenario.aggregation.clean_samples:
            got = f"{scenario.aggregation.kind} beside incentive quality_pay"
            expected = "another rule: on the images that the server trains on no update is validated"
            yield Refused("aggregation.kind", got, expected)
        per_round = scenario.population.clients_per_round
        if self.contribution == "shapley" and per_round > MOST_IN_COALITIONS:
            expected = f"at most {MOST_IN_COALITIONS} beside contribution: shapley, or leave_one_out"
            yield Refused("population.per_round", per_round, expected)

    def _conflicts_of_topology(self, scenario: Any) -> Iterator[Refused]:
        if not scenario.topology.shares_uplink:
            got = f"quality_pay in {scenario.topology.kind}"
            if scenario.topology.reduces_among_clients:
                got = "quality_pay with topology.reduce allreduce"
            expected = "topology.kind parallel with reduce: server, where each update arrives by itself"
            yield Refused(".kind", got, expected)
