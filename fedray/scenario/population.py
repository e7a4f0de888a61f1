"""`population`: how many clients there are, and how many take part in a round."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Count, Positive, Refused, Section
from fedray.scenario.kinds import KindSection, OpenKind

MOST_CLIENTS = 1_000_000  # whose samples, places and turns are arrays in one process


class SelectionSection(KindSection):
    """A way to choose a round's clients of one's own."""

    kind: str = Field(description="`module:Class` of it, or an installed one's name.")

    needs_label_counts: ClassVar[bool] = False  # whether clients report how many samples of a label they have


SELECTIONS = {  # by their papers
    "random": (),
    "label_cover": ("zhao2018federated",),
    "round_robin": ("yang2020scheduling",),
    "proportional_fair": ("yang2020scheduling",),
    "fedcs": ("nishio2019client",),
}
Selection = Annotated[
    Literal["random", "label_cover", "round_robin", "proportional_fair", "fedcs"] | SelectionSection,
    OpenKind("selection", SELECTIONS),
]


class Population(Section):
    """The clients there are, and those that take part in a round."""

    clients: Annotated[int, Field(ge=1, le=MOST_CLIENTS)] = Field(description="How many clients there are.")
    per_round: Count | None = Field(
        default=None, description="How many clients take part in a round. None: all of them."
    )
    selection: Selection = Field(
        default="random",
        description="How a round's clients are chosen. random: each with the same probability. label_cover: "
        "those whose labels together are nearest to equally many of each, by the counts that clients "
        "report. round_robin: one after another. proportional_fair: those whose uplink in this round is "
        "fastest in proportion to its own mean rate, as if the server knew it beforehand; an uplink of many "
        "coherence times has its mean rate, and among equals chance decides. fedcs: those that finish "
        "first, as many as meet network.deadline_s (Nishio and Yonetani 2019).",
    )
    sampling: Literal["fixed", "poisson"] = Field(
        default="fixed",
        description="How many clients a random selection has. fixed: per_round of them. poisson: each client "
        "takes part with probability per_round / clients, whoever else does, so that a round may have fewer, "
        "more, or none: what the accounting of differential privacy assumes.",
    )
    over_select: Annotated[int, Field(ge=0, le=MOST_CLIENTS)] = Field(
        default=0,
        description="How many clients more than per_round are selected; the round ends with the first "
        "per_round of them.",
    )
    label_epsilon: Positive | None = Field(
        default=None,
        description="Clients report their counts of labels with Laplace noise of scale 1 / label_epsilon, "
        "which is label_epsilon-differentially private for each sample. None: without noise.",
    )

    @property
    def clients_per_round(self) -> int:
        """Clients whose updates a round waits for."""
        return self.per_round or self.clients

    @property
    def clients_selected(self) -> int:
        """Clients that are asked to train in a round."""
        return self.clients_per_round + self.over_select

    @property
    def rate(self) -> float | None:
        """The probability with which each client takes part; None where a round has a fixed number."""
        return self.clients_per_round / self.clients if self.sampling == "poisson" else None

    @property
    def fills_rounds(self) -> bool:
        """Whether a round has as many clients as it can; others ask as few as it takes."""
        return self.selection != "fedcs"

    @property
    def needs_label_counts(self) -> bool:
        """Whether clients report how many samples of each label they have."""
        if isinstance(self.selection, str):
            return self.selection == "label_cover"
        return self.selection.needs_label_counts

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if isinstance(self.selection, str):
            yield from SELECTIONS[self.selection]
        if self.label_epsilon is not None:
            yield "dwork2006calibrating"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.clients_per_round > self.clients:
            expected = f"at most population.clients, {self.clients}"
            yield Refused(".per_round", self.clients_per_round, expected)
        if self.over_select and self.clients_selected > self.clients:
            left = self.clients - self.clients_per_round
            yield Refused(
                ".over_select", self.over_select, f"at most {left}, the clients that per_round leaves"
            )
        if self.selection == "label_cover" and scenario.sites:
            expected = "random: a label at one site is unknown elsewhere"
            yield Refused(".selection", "label_cover beside data.sites", expected)
        if self.sampling == "poisson":
            yield from self._poisson(scenario)
        if self.selection == "fedcs":
            yield from self._fedcs(scenario)
        if self.selection == "proportional_fair":
            yield from self._proportional_fair(scenario)

    def _poisson(self, scenario: Any) -> Iterator[Refused]:
        if self.selection != "random":
            expected = "random: others say themselves how many there are"
            yield Refused(".selection", f"{self._selection_name} with sampling poisson", expected)
        if self.over_select:
            yield Refused(".over_select", self.over_select, "0 with sampling poisson, which counts nobody")
        if scenario.topology.hands_model_on or scenario.topology.splits_model:
            expected = "fixed: a round without clients has nobody to begin with"
            yield Refused(".sampling", f"poisson for a {scenario.topology.kind}", expected)
        if scenario.augmentation is not None:
            yield Refused(".sampling", "poisson beside augmentation", "fixed")

    @property
    def _selection_name(self) -> str:
        return self.selection if isinstance(self.selection, str) else self.selection.kind

    def _fedcs(self, scenario: Any) -> Iterator[Refused]:
        if scenario.topology.splits_model:
            expected = "another: how long a turn takes depends on who else is served"
            yield Refused(".selection", "fedcs in a split", expected)
        if scenario.network.deadline_s is None:
            yield Refused(".selection", "fedcs", "network.deadline_s, before which clients shall finish")

    def _proportional_fair(self, scenario: Any) -> Iterator[Refused]:
        """It needs an uplink that fades, a client and round."""
        uplink = scenario.network.uplink
        if not uplink.fades:
            got = "proportional_fair"
            yield Refused(".selection", got, f"a radio uplink, which fades, instead of {uplink.kind}")
        elif uplink.fades_by_block:
            expected = (
                "another beside network.uplink.allocation blocks, which fade each by itself and go to whom"
                " they serve best"
            )
            yield Refused(".selection", "proportional_fair", expected)
        if not scenario.topology.shares_uplink:
            got = f"proportional_fair for a {scenario.topology.kind}"
            expected = (
                "another, or topology.kind parallel with reduce server, in which each client has one uplink"
            )
            yield Refused(".selection", got, expected)
