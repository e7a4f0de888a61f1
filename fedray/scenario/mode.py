"""`topology.mode`: when the server takes its step, where clients do not wait for each other."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Count, NotNegative, Positive, Refused
from fedray.scenario.kinds import KindSection, OpenKind


class StalenessSection(KindSection):
    """How much an update counts that was made from an older model, s(t) of its staleness t: how many server
    steps were taken between the model that the client received and the step that its update joins."""

    kind: str = Field(description="The function.")


class Constant(StalenessSection):
    """s(t) = 1."""

    kind: Literal["constant"] = Field(default="constant", description="constant: as much as a fresh one.")

    implementation: ClassVar[str] = "fedray.aggregation.staleness:ConstantStaleness"


class Polynomial(StalenessSection):
    """s(t) = (1 + t)^-a (Xie et al. 2019, Sec. 5.2; with a 0.5 that of Nguyen et al. 2022)."""

    kind: Literal["polynomial"] = Field(description="polynomial: (1 + t)^-a.")
    a: Positive = Field(default=0.5, description="The exponent.")

    implementation: ClassVar[str] = "fedray.aggregation.staleness:PolynomialStaleness"


class Hinge(StalenessSection):
    """s(t) = 1 up to t = b, then 1 / (a (t - b) + 1) (Xie et al. 2019, Sec. 5.2)."""

    kind: Literal["hinge"] = Field(description="hinge: 1 up to b, then 1 / (a (t - b) + 1).")
    a: Positive = Field(default=10.0, description="How steeply it falls.")
    b: NotNegative = Field(default=4.0, description="Up to which staleness nothing is lost.")

    implementation: ClassVar[str] = "fedray.aggregation.staleness:HingeStaleness"


Staleness = Annotated[Constant | Polynomial | Hinge, Discriminator("kind"), OpenKind("staleness")]


class AnyMode(KindSection):
    """What others ask of any mode: a round is a server step, in which a client takes part at most once."""

    kind: str = Field(description="When the server takes its step.")

    @property
    def at_once(self) -> int:
        """How many clients are under way at the same time, at most."""
        return 1

    @property
    def stalest(self) -> int | None:
        """The staleness of the oldest update that is taken; None: all are."""
        return None

    @property
    def groups(self) -> int:
        """How many groups of clients of about the same speed begin together, each by itself; 0: none do."""
        return 0

    @property
    def one_group_at_a_time(self) -> bool:
        """Whether only one such group is under way."""
        return False

    @property
    def updates_per_step(self) -> int:
        """With how many updates the server takes its step, at most."""
        return 1

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        for key, got, expected in self._refused_keys(scenario):
            yield Refused(key, got, expected)
        for direction in ("uplink", "downlink"):
            allocation = getattr(getattr(scenario.network, direction), "allocation", None)
            if allocation is not None and not (allocation.shares_equally or allocation.by_blocks):
                expected = "equal, or blocks of an uplink: who sends beside whom is not known beforehand"
                yield Refused(f"network.{direction}.allocation", f"{allocation.kind} beside a mode", expected)

    def _refused_keys(self, scenario: Any) -> Iterator[tuple[str, Any, str]]:
        """Other answers that make rounds of clients that begin together."""
        population = scenario.population
        network = scenario.network
        if population.per_round is not None:
            yield "population.per_round", population.per_round, "none: the mode's concurrency says how many"
        if population.over_select:
            yield "population.over_select", population.over_select, "0 beside a mode"
        if population.selection != "random":
            yield "population.selection", "another than random", "random beside a mode"
        if population.sampling != "fixed":
            yield "population.sampling", population.sampling, "fixed beside a mode"
        if network.deadline_s is not None:
            yield "network.deadline_s", network.deadline_s, "none: the server waits for no round's end"
        if network.save_energy:
            yield "network.save_energy", True, "false: there is no deadline to be late for"
        if scenario.topology.reduces_among_clients:
            yield "topology.reduce", "allreduce beside a mode", "server: updates arrive one by one"
        yield from self._refused_sections(scenario)

    def _refused_sections(self, scenario: Any) -> Iterator[tuple[str, Any, str]]:
        aggregation = scenario.aggregation
        if aggregation.keeps_client_state:
            got = f"{aggregation.kind} beside a mode"
            yield "aggregation.kind", got, "a rule that keeps nothing of each client between rounds"
        if aggregation.multiplies:
            got = f"{aggregation.kind} beside a mode"
            expected = "a rule of updates: products of adapters of different ages add up to nobody's change"
            yield "aggregation.kind", got, expected
        if aggregation.global_models > 1:
            yield "aggregation.kind", f"{aggregation.kind} beside a mode", "a rule of one global model"
        if aggregation.clean_samples or aggregation.weighs_by_quality:
            yield "aggregation", f"{aggregation.kind} with work of its own a round", "a rule of updates alone"
        if scenario.privacy is not None:
            expected = (
                "none: the accounting is of rounds whose clients are drawn together, and who arrives first"
                " is not drawn"
            )
            yield "privacy", "some beside a mode", expected
        if scenario.secure_aggregation is not None:
            expected = "none: masks cancel only among clients that begin together"
            yield "secure_aggregation", "some beside a mode", expected
        if scenario.incentive is not None:
            yield "incentive", "some beside a mode", "none: clients bid for rounds that begin together"
        if scenario.augmentation is not None:
            yield "augmentation", "some beside a mode", "none: pictures are made for rounds"
        if scenario.shows_server_state:
            got = f"{scenario.payload} with parts of the numbers"
            yield "tuning.payload", got, "fp32: the server keeps the numbers of its newest model alone"
        if scenario.ledger is not None:
            expected = "none: its record says of a round's clients that all had the model before it"
            yield "ledger", "one beside a mode", expected
        if scenario.runtime.gang > 1:
            yield "runtime.gang", scenario.runtime.gang, "1: clients begin from different models"
        if scenario.has_collusion:
            yield "adversary.attack", "collusion beside a mode", "one that each attacker makes by itself"


class ModeSection(AnyMode):
    """What every mode has: so many clients train at the same time, each from the newest model when it begins,
    and another one begins when one has ended."""

    kind: str = Field(description="When the server takes its step.")
    concurrency: Count = Field(
        default=10, description="How many clients train at the same time; at most population.clients."
    )
    staleness: Staleness = Field(
        default=Polynomial(kind="polynomial"),
        description="How much an update counts that was made from an older model.",
    )
    max_staleness: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="An update that is staler when it arrives is thrown away; it has cost what it cost, and "
        "another client begins. None: all are taken.",
    )

    cites: ClassVar[tuple[str, ...]] = ("xie2019asynchronous",)

    @property
    def at_once(self) -> int:
        return self.concurrency

    @property
    def stalest(self) -> int | None:
        return self.max_staleness

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        clients = scenario.population.clients
        if self.concurrency > clients:
            yield Refused(".concurrency", self.concurrency, f"at most population.clients, {clients}")
        if self.updates_per_step > self.concurrency:
            expected = f"at most concurrency, {self.concurrency}: no more are under way"
            yield Refused(".buffer", self.updates_per_step, expected)


class FedAsync(ModeSection):
    """The server takes a step with every update, by mixing models (FedAsync, Xie et al. 2019, Algorithm 1):
    x = (1 - m) x + m x_k, with m = mixing s(t)."""

    kind: Literal["fedasync"] = Field(description="fedasync: a step with every update.")
    mixing: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.6, description="How much of the global model a fresh client's model becomes."
    )

    implementation: ClassVar[str] = "fedray.aggregation.modes:FedAsyncMode"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if scenario.aggregation.kind != "fedavg":
            got = f"{scenario.aggregation.kind} beside fedasync"
            yield Refused("aggregation.kind", got, "fedavg: it mixes models itself")


class FedBuff(ModeSection):
    """The server takes a step with every `buffer` updates, each the difference to the model that its client
    began with, times s(t), divided by how many there are (FedBuff, Nguyen et al. 2022, Algorithm 1). The
    server's own learning rate is that of `aggregation`, such as fedavgm's."""

    kind: Literal["fedbuff"] = Field(description="fedbuff: a step with every so many updates.")
    buffer: Count = Field(default=5, description="With how many updates the server takes its step.")

    implementation: ClassVar[str] = "fedray.aggregation.modes:FedBuffMode"
    cites: ClassVar[tuple[str, ...]] = ("nguyen2022federated",)

    @property
    def updates_per_step(self) -> int:
        return self.buffer


class Tiers(AnyMode):
    """Clients in tiers of about the same speed, as the network and their devices make them. Clients of a tier
    begin together, and the server takes its step when all that are left of them have arrived."""

    kind: Literal["tiers"] = Field(description="tiers: clients of about the same speed begin together.")
    tiers: Count = Field(default=5, description="How many tiers there are, each with as many clients.")
    per_tier: Count = Field(default=2, description="How many clients of a tier take part in its step.")
    rule: Literal["fedat", "tifl"] = Field(
        default="fedat",
        description="fedat: every tier goes on by itself, as fast as it is, with a model of its own; the "
        "global one is their mean, in which the k-th fastest weighs as many steps as the k-th slowest has "
        "taken (Chai et al. 2021, Sec. 4). tifl: one tier at a time, drawn with the same probability (Chai "
        "et al. 2020, Sec. 4.3).",
    )

    implementation: ClassVar[str] = "fedray.aggregation.modes:TiersMode"

    @property
    def at_once(self) -> int:
        return self.tiers * self.per_tier if self.rule == "fedat" else self.per_tier

    @property
    def groups(self) -> int:
        return self.tiers

    @property
    def one_group_at_a_time(self) -> bool:
        return self.rule == "tifl"

    @property
    def updates_per_step(self) -> int:
        return self.per_tier

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        yield "chai2021fedat" if self.rule == "fedat" else "chai2020tifl"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        clients = scenario.population.clients
        if self.tiers * self.per_tier > clients:
            got = f"{self.tiers} tiers of which {self.per_tier} take part"
            yield Refused(".tiers", got, f"at most population.clients, {clients}, in all")
        if self.rule == "fedat" and scenario.aggregation.kind != "fedavg":
            got = f"{scenario.aggregation.kind} beside fedat"
            yield Refused("aggregation.kind", got, "fedavg: it averages models itself")


Mode = Annotated[FedAsync | FedBuff | Tiers, Discriminator("kind"), OpenKind("mode")]
