"""`personal`: what a client does in its local update for a model of its own."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Count, NotNegative, Refused
from fedray.scenario.kinds import KindSection, OpenKind


class PersonalSection(KindSection):
    """What every kind's section has, and what others need to know of it."""

    kind: str = Field(description="What a client does for a model of its own.")

    keeps_state: ClassVar[bool] = False  # whether a client keeps something of it between its local updates
    kept_models: ClassVar[int] = 0  # whole models that it then keeps
    trains_home_alone: ClassVar[bool] = False  # whether own steps train what stays at home, and nothing else

    def own_samples(self, training: Any, samples: int) -> int:
        """Samples that a client goes through in steps whose result never travels, in one local update.

        Args:
            training: the scenario's.
            samples: that the client trains on.
        """
        return 0

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        topology = scenario.topology
        if topology.splits_model:
            got = f"{self.kind} in a {topology.kind}"
            yield Refused(".kind", got, "topology.kind parallel or relay, where clients have a model")
        if scenario.privacy is not None and scenario.privacy.in_local_update:
            got = f"{self.kind} with privacy {scenario.privacy.kind}"
            expected = "privacy that adds noise to updates: it counts the steps of a local update"
            yield Refused(".kind", got, expected)
        if scenario.runtime.gang > 1:
            expected = "runtime.gang 1: clients with models of their own train one after another"
            yield Refused(".kind", f"{self.kind} with runtime.gang {scenario.runtime.gang}", expected)


class OwnEpochs(PersonalSection):
    """One whose own steps are passes over the client's samples."""

    def epochs(self) -> int | None:
        """Passes; None: as `training` says."""
        raise NotImplementedError

    def own_samples(self, training: Any, samples: int) -> int:
        epochs = self.epochs()
        return int(training.trained(samples)) if epochs is None else epochs * samples


class FedRep(OwnEpochs):
    """Alternating minimisation (Collins et al. 2021, Algorithm 1): in each local update a client first trains
    its head, which stays at home (`tuning.local`), under the body that it has received; then the body under
    that head, as long as `training` says. Only the body travels."""

    kind: Literal["fedrep"] = Field(description="fedrep: the head first, then the body.")
    head_epochs: Count | None = Field(
        default=None,
        description="Passes over the client's samples that train the head. None: as long as training says "
        "for the body.",
    )

    implementation: ClassVar[str] = "fedray.personal.fedrep:FedRep"
    cites: ClassVar[tuple[str, ...]] = ("collins2021exploiting",)
    trains_home_alone: ClassVar[bool] = True

    def epochs(self) -> int | None:
        return self.head_epochs

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if not scenario.tuning.local and not scenario.model.trains_home:
            expected = "tuning.local with the head's weights, such as [network.9.*]"
            yield Refused(".kind", "fedrep, with nothing that stays at home", expected)


class Ditto(OwnEpochs):
    """A personal model beside the global one (Li et al. 2021, Algorithm 1): a client trains the global model
    as ever, and a model v of its own by F_k(v) + mu / 2 |v - w|^2, where w is the global model that it has
    received. v begins as the first w that the client gets, stays at home, and is what the client uses. The
    global model is what it would be without."""

    kind: Literal["ditto"] = Field(description="ditto: a personal model near the global one.")
    mu: NotNegative = Field(
        description="The weight of the proximal term, the paper's lambda. 0 is training alone; the larger, "
        "the nearer to the global model."
    )
    local_epochs: Count | None = Field(
        default=None,
        description="Passes over the client's samples that train its own model. None: as long as training "
        "says for the global one.",
    )

    implementation: ClassVar[str] = "fedray.personal.ditto:Ditto"
    cites: ClassVar[tuple[str, ...]] = ("li2021ditto",)
    keeps_state: ClassVar[bool] = True
    kept_models: ClassVar[int] = 1

    def epochs(self) -> int | None:
        return self.local_epochs


Personal = Annotated[FedRep | Ditto, Discriminator("kind"), OpenKind("personal")]
