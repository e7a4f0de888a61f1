"""`aggregation`: how updates are combined."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.aggregation_section import FROZEN_A, AggregationSection
from fedray.scenario.base import NotNegative, Positive, Refused
from fedray.scenario.kinds import OpenKind
from fedray.scenario.robust_aggregation import (
    Bulyan,
    CenteredClipping,
    FLTrust,
    FoolsGold,
    GeometricMedian,
    Krum,
    Median,
    MultiKrum,
    NormBound,
    TrimmedMean,
)
from fedray.scenario.server_optimizer import Adam, Momentum, Yogi


class FedAvg(AggregationSection):
    """The weighted mean of the clients' updates (McMahan et al. 2017, Algorithm 1). With LoRA, A and B are
    averaged separately (FedIT)."""

    kind: Literal["fedavg"] = Field(default="fedavg", description="fedavg: the weighted mean of the updates.")

    implementation: ClassVar[str] = "fedray.aggregation.fedavg:FedAvg"
    cites: ClassVar[tuple[str, ...]] = ("mcmahan2017communication",)
    takes_mixed_ranks: ClassVar[bool] = True


class FedProx(AggregationSection):
    """FedAvg whose clients add mu / 2 |w - w_t|^2 to their loss, which holds their weights w near the
    round's global weights w_t (Li et al. 2020)."""

    kind: Literal["fedprox"] = Field(
        description="fedprox: the mean of the updates, with a proximal term in the clients' loss."
    )
    mu: NotNegative = Field(description="The weight of the proximal term; 0 is FedAvg.")

    implementation: ClassVar[str] = "fedray.aggregation.fedprox:FedProx"
    cites: ClassVar[tuple[str, ...]] = ("li2020federated",)
    goes_with_split: ClassVar[bool] = False


class Scaffold(AggregationSection):
    """Control variates correct each client's drift (Karimireddy et al. 2020, whose means are over clients,
    not over samples). Twice the bytes travel in each direction."""

    kind: Literal["scaffold"] = Field(description="scaffold: the mean of the updates, with control variates.")
    weighting: Literal["samples", "uniform"] = Field(
        default="uniform",
        description="How much a client counts. uniform: every client the same, as in the paper. samples: in "
        "proportion to how many samples it has; only where all clients take part in every round.",
    )
    server_learning_rate: Positive = Field(
        default=1.0, description="The factor on the mean update at the server; 1 adds it as it is."
    )

    implementation: ClassVar[str] = "fedray.aggregation.scaffold:Scaffold"
    cites: ClassVar[tuple[str, ...]] = ("karimireddy2020scaffold",)
    keeps_client_state: ClassVar[bool] = True
    goes_with_split: ClassVar[bool] = False

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if scenario.topology.hands_model_on:
            expected = "topology.kind parallel: its control variates correct turns from one model"
            yield Refused(".kind", "scaffold", expected)
        optimizer = scenario.training.optimizer
        if not optimizer.is_plain_sgd or scenario.training.groups:
            got = f"{optimizer.kind} for scaffold" if not scenario.training.groups else "groups for scaffold"
            expected = (
                "sgd without momentum: SCAFFOLD reads the mean gradient off the way that plain steps went"
            )
            yield Refused("training.optimizer", got, expected)
        if self.weighting == "samples" and scenario.chooses_clients:
            expected = (
                "uniform, or all clients in every round: weighted by who is there, control variates add up to"
                " nobody's gradient"
            )
            yield Refused(".weighting", "samples for scaffold", expected)


class FedAvgM(Momentum, AggregationSection):
    """The mean update is a step of SGD with momentum at the server (Hsu et al. 2019)."""

    kind: Literal["fedavgm"] = Field(
        description="fedavgm: the mean update is a server's step of SGD with momentum."
    )


class FedAdam(Adam, AggregationSection):
    """The mean update is a step of Adam at the server (Reddi et al. 2021; with torch's bias correction)."""

    kind: Literal["fedadam"] = Field(description="fedadam: the mean update is a server's step of Adam.")


class FedYogi(Yogi, AggregationSection):
    """As FedAdam, with Yogi's second moment (Reddi et al. 2021, Algorithm 2)."""

    kind: Literal["fedyogi"] = Field(description="fedyogi: the mean update is a server's step of Yogi.")


class Ifca(AggregationSection):
    """Clusters of clients, each with a model of its own (IFCA, Ghosh et al. 2020, Algorithm 1, model
    averaging): all models go down; a client trains the one with the least loss on its samples, and its update
    is averaged with those of the same cluster. Between models of equal loss it draws. The models begin with
    weights drawn from seeds of their own; whichever nobody chooses stays as it is. Compare several seeds: the
    paper restarts from others where clusters are not told apart."""

    kind: Literal["ifca"] = Field(description="ifca: a model a cluster of clients.")
    clusters: Annotated[int, Field(ge=2, le=1000)] = Field(
        default=2, description="How many global models there are; each goes down to every client of a round."
    )

    implementation: ClassVar[str] = "fedray.aggregation.ifca:Ifca"
    cites: ClassVar[tuple[str, ...]] = ("ghosh2020efficient",)
    goes_with_split: ClassVar[bool] = False

    @property
    def global_models(self) -> int:
        return self.clusters

    @property
    def report_bytes(self) -> int:
        """With the number of the cluster, as an int32."""
        return super().report_bytes + 4

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if scenario.ledger is not None:
            expected = "none: its leaves do not say which cluster an update is of"
            yield Refused("ledger", "one beside ifca", expected)
        if scenario.has_collusion:
            got = "attackers that read the updates of others, beside ifca"
            yield Refused("adversary.attack", got, "one that attacks by itself")
        if scenario.tuning.has_mixed_ranks:
            yield Refused("tuning.ranks", "some beside ifca", "one rank for all")
        if scenario.augmentation is not None:
            yield Refused("augmentation", "some beside ifca", "none: it makes one model of all")
        if scenario.runtime.gang > 1:
            got = f"{scenario.runtime.gang} with ifca"
            yield Refused("runtime.gang", got, "1: clients begin with models of several clusters")


class FfaLora(AggregationSection):
    """FFA-LoRA (Sun et al. 2024): an adapter's A stays as it was drawn, only B trains and travels. Half the
    bytes, and the mean is exact."""

    kind: Literal["ffa_lora"] = Field(
        description="ffa_lora: A is frozen, B is averaged. Needs tuning.kind lora."
    )

    implementation: ClassVar[str] = "fedray.aggregation.lora:FfaLora"
    cites: ClassVar[tuple[str, ...]] = ("sun2024improving",)
    frozen: ClassVar[tuple[str, ...]] = FROZEN_A
    needs_adapters: ClassVar[bool] = True
    goes_with_split: ClassVar[bool] = False


class ProductSection(AggregationSection):
    """A rule that adds up products of an adapter's B and A."""

    needs_adapters: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    takes_mixed_ranks: ClassVar[bool] = True
    goes_with_split: ClassVar[bool] = False

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if scenario.topology.hands_model_on or scenario.topology.splits_model:
            expected = "topology.kind parallel: a relay hands adapters on without averaging them"
            yield Refused(".kind", self.kind, expected)
        if scenario.tuning.local:
            got = f"some for {self.kind}"
            yield Refused("tuning.local", got, "none: it multiplies each B with its A, and needs them all")


class HetLora(ProductSection):
    """HetLoRA (Cho et al. 2024): adapters of mixed ranks, weighted by the norm of what they add to the base
    weights, so that a low rank, whose other rows are zero, does not shrink a higher one."""

    kind: Literal["hetlora"] = Field(
        description="hetlora: a mean of adapters of mixed ranks. Needs tuning.kind lora."
    )
    weighting: Literal["samples", "uniform"] = Field(
        default="uniform",
        description="uniform: a client counts by the norm of what its adapter adds. samples: by that norm, "
        "multiplied by how many samples it has.",
    )

    implementation: ClassVar[str] = "fedray.aggregation.lora:HetLora"
    cites: ClassVar[tuple[str, ...]] = ("cho2024heterogeneous",)


class FedExLora(ProductSection):
    """FedEx-LoRA (Singhal et al. 2025): A and B are averaged, and the difference between the mean of the
    products and the product of the means is added to the base weights, so that nothing is lost. What has
    changed of the base weights since a client got them last goes down with the adapter: as the stacked
    adapters that made it, or whole where that is less."""

    kind: Literal["fedex_lora"] = Field(
        description="fedex_lora: A and B are averaged, the rest goes into the base. Needs tuning.kind lora."
    )

    implementation: ClassVar[str] = "fedray.aggregation.lora:FedExLora"
    cites: ClassVar[tuple[str, ...]] = ("singhal2024fedex",)
    changes_base: ClassVar[bool] = True


class Flora(ProductSection):
    """FLoRA (Wang et al. 2024), stacking: the mean product of B and A is added to the base weights exactly,
    and every round begins with a new adapter. What has changed of the base weights since a client got them
    last goes down with it: as the stacked adapters that made it, or whole where that is less."""

    kind: Literal["flora"] = Field(
        description="flora: adapters are stacked and added to the base. Needs tuning.kind lora."
    )

    implementation: ClassVar[str] = "fedray.aggregation.lora:Flora"
    cites: ClassVar[tuple[str, ...]] = ("wang2024flora",)
    changes_base: ClassVar[bool] = True


Aggregation = Annotated[
    FedAvg
    | FedProx
    | Scaffold
    | FedAvgM
    | FedAdam
    | FedYogi
    | Median
    | TrimmedMean
    | Krum
    | MultiKrum
    | Bulyan
    | GeometricMedian
    | NormBound
    | CenteredClipping
    | FoolsGold
    | FLTrust
    | Ifca
    | FfaLora
    | HetLora
    | FedExLora
    | Flora,
    Discriminator("kind"),
    OpenKind("rule"),
]
