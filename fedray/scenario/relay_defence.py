"""`topology.defence` of a relay: what a client does with a model that another one hands it."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Positive, Refused
from fedray.scenario.kinds import KindSection, OpenKind


class RelayDefenceSection(KindSection):
    """What a client of a relay does with a model that another one hands it."""

    kind: str = Field(description="The defence.")

    def conflicts_in_relay(self, relay: Any, scenario: Any) -> Iterator[Refused]:
        """What it cannot go with in a relay."""
        per_round = scenario.population.clients_per_round
        if relay.chains > per_round // 2:
            expected = f"at most {per_round // 2}: a client alone in its chain has nobody who validates"
            yield Refused(".chains", f"{relay.chains} with a defence", expected)
        if scenario.ledger is not None and scenario.ledger.keep == "updates":
            expected = "hashes: which of the kept models were accepted is not in the ledger"
            yield Refused("ledger.keep", "updates with topology.defence", expected)
        if scenario.privacy is not None:
            expected = "no defence: whether a model is accepted tells of its receiver's samples"
            yield Refused(".defence", f"one with privacy {scenario.privacy.kind}", expected)


class Validation(RelayDefenceSection):
    """Each receiver tries the model that it gets, and the last one that was accepted, on samples of its own,
    and goes on with the latter where the former is worse. What the last client made is tried by another one
    of its chain, which sends it up."""

    kind: Literal["validation"] = Field(description="validation: by each receiver, on its own samples.")
    max_loss_growth: Positive = Field(
        default=0.25,
        description="A model is rejected whose mean loss is larger than the accepted one's by more than this "
        "share.",
    )
    max_accuracy_drop: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=0.1,
        description="A model is rejected whose accuracy (0 to 1) is lower by more than this, where the model "
        "has an accuracy. None: it is not looked at.",
    )
    max_norm: Positive | None = Field(
        default=1.5,
        description="The norm of what a client changed is at most this many times the median of the changes "
        "that were accepted before it in the chain; longer ones are clipped. None: not clipped.",
    )

    implementation: ClassVar[str] = "fedray.executors.relay_defence:Validation"


RelayDefence = Annotated[Validation, OpenKind("relay_defence")]
