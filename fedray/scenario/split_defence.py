"""`topology.defence` of a split: what a client does so that activations tell less of its inputs."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Positive, Refused
from fedray.scenario.kinds import KindSection, OpenKind


class DefenceSection(KindSection):
    """What a client does so that activations tell less of its inputs."""

    kind: str = Field(description="The defence.")

    needs_client_weights: ClassVar[bool] = False  # whether it works by what the client's part learns

    def conflicts_in_split(self, split: Any, scenario: Any) -> Iterator[Refused]:
        """What it cannot go with in a split."""
        return iter(())


class Noise(DefenceSection):
    """Normal noise on every number that a client sends up (Titcombe et al. 2021)."""

    kind: Literal["noise"] = Field(description="noise: normal noise on activations.")
    std: Positive = Field(description="The noise's standard deviation.")

    implementation: ClassVar[str] = "fedray.executors.split.defences:Noise"
    cites: ClassVar[tuple[str, ...]] = ("titcombe2021practical",)


class DistanceCorrelation(DefenceSection):
    """The client's loss has a second term: `weight` times the distance correlation of its inputs and what it
    sends up (NoPeek, Vepakomma et al. 2020)."""

    kind: Literal["distance_correlation"] = Field(
        description="distance_correlation: train activations to tell little of inputs."
    )
    weight: Positive = Field(description="The term's weight in the loss.")

    implementation: ClassVar[str] = "fedray.executors.split.defences:DistanceCorrelation"
    cites: ClassVar[tuple[str, ...]] = ("vepakomma2020nopeek", "szekely2007measuring")
    needs_client_weights: ClassVar[bool] = True

    def conflicts_in_split(self, split: Any, scenario: Any) -> Iterator[Refused]:
        batch_size = scenario.training.batch_size
        if split.micro_batches > 1 or batch_size < 4:
            got = f"{split.micro_batches} micro-batches of a batch of {batch_size}"
            yield Refused(".defence", got, "whole batches of at least 4, whose distances it compares")
        if scenario.model.cuts_by_timestep:
            got = "distance_correlation beside model.server_from"
            yield Refused(".defence", got, "noise: what is sent depends on no weight")


Defence = Annotated[Noise | DistanceCorrelation, Discriminator("kind"), OpenKind("defence")]
