"""`augmentation.prompts`: which of a label's templates its pictures are made of."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Count, Refused, Section

SCORE_BYTES = 4  # of a candidate's score on the air, as fp32


class PromptsSection(Section):
    """How a picture's prompt is chosen among its label's templates."""

    kind: str = Field(description="The way.")

    trial_round: ClassVar[int] = 0  # the round in which clients try candidates; 0: in none

    def painting_round(self, round_number: int) -> int:
        """Which round of painting this one is: painting begins after the trial."""
        return max(0, round_number - self.trial_round)


class Drawn(PromptsSection):
    """Each picture's template is drawn at random."""

    kind: Literal["drawn"] = Field(default="drawn", description="drawn: each picture's template at random.")


class Evidence(PromptsSection):
    """The templates of a label are candidates: the server paints some pictures of each, the clients of one
    round score them with the models that they have just trained, and the best one is used from then on.
    Nothing else is painted before. A label with one template is not tried."""

    kind: Literal["evidence"] = Field(
        description="evidence: each label's best template by the clients' own models."
    )
    images: Count = Field(default=8, description="Pictures that are painted of each candidate.")
    round: Count = Field(
        default=3,
        description="The round whose clients score the candidates; the rounds before it are federated "
        "learning alone, so that their models can tell labels apart. Painting begins in the next.",
    )

    cites: ClassVar[tuple[str, ...]] = ("qiang2024aigc",)

    @property
    def trial_round(self) -> int:  # type: ignore[override]
        return self.round

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        augmentation = scenario.augmentation
        if augmentation.at == "client":
            expected = "server or server_broadcast, where one generator paints for all"
            yield Refused("augmentation.at", "client with prompts by evidence", expected)
        if self.round >= scenario.training.rounds:
            expected = f"less than the {scenario.training.rounds} rounds, so that some paint"
            yield Refused(".round", self.round, expected)
        if augmentation.has_one_template_each:
            yield Refused(".kind", "evidence for labels of one template each", "candidates to choose from")
        kappas = augmentation.weighting.kappas(self.round, scenario.training.rounds)
        if kappas is not None and kappas[0] == 0:
            expected = "a kappa_1 above 0: clients that train score them"
            yield Refused("augmentation.weighting", "no clients to score prompts", expected)


Prompts = Annotated[Drawn | Evidence, Field(discriminator="kind")]
