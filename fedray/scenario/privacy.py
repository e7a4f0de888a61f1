"""`privacy`: differential privacy, by clipping and Gaussian noise, and how much of it is asked for."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Positive, Refused, Section
from fedray.scenario.kinds import KindSection, OpenKind

FEW_CLIENTS = 500  # fewer, and noise that hides a client hides the model too
Noise = Literal["seed", "secret"]


class PrivacySection(KindSection):
    """What every mechanism's section has, and what others need to know of it."""

    kind: str = Field(description="The mechanism.")
    clip_norm: Positive = Field(
        description="The largest Euclidean norm C of what the noise hides: longer ones are scaled down to it."
    )
    noise_multiplier: Positive | None = Field(
        default=None,
        description="The noise's standard deviation, divided by clip_norm. None: epsilon says how much.",
    )
    epsilon: Positive | None = Field(
        default=None,
        description="The run's privacy loss, for which the least noise is computed before it trains (by "
        "Renyi differential privacy); needs fedray[privacy]. None: noise_multiplier says how much noise.",
    )
    delta: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = Field(
        default=1e-5,
        description="The delta at which epsilon is stated; below one divided by how many units there are.",
    )
    noise: Noise = Field(
        default="seed",
        description="Where noise is drawn from. seed: the scenario's seed, so that a run can be repeated to "
        "the bit; whoever knows the seed can take the noise away: a simulation. secret: the operating "
        "system's random numbers, so that two runs differ.",
    )

    accounting: ClassVar[str | None] = None  # `module:function` that gives its event; None: epsilon unknown
    protects_clients: ClassVar[bool] = False  # whether the unit is a whole client (or a relay's chain)
    adds_noise_to_sum: ClassVar[bool] = False  # at the server, which must know how long an update can be
    in_local_update: ClassVar[bool] = False  # whether each gradient is clipped, sample by sample

    @property
    def is_adaptive(self) -> bool:
        """Whether what clients clip to changes from round to round."""
        return False

    def unit(self, topology: Any) -> str:
        """What is protected, and from whom."""
        return "as its mechanism says"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            got = "neither" if self.epsilon is None else "both"
            yield Refused("privacy", f"{got} of epsilon and noise_multiplier", "one of them")
        if scenario.topology.splits_model:
            expected = "another topology: what crosses a cut is sent without noise, batch by batch"
            yield Refused(".kind", f"{self.kind} in a split", expected)
        if scenario.augmentation is not None:
            expected = "no augmentation: the server learns each client's counts of labels"
            yield Refused(".kind", f"{self.kind} beside augmentation", expected)
        if scenario.needs_label_counts and scenario.population.label_epsilon is None:
            expected = "another selection: the server learns each client's counts of labels"
            yield Refused("population.selection", f"label_cover with privacy {self.kind}", expected)
        if self.adds_noise_to_sum:
            yield from self._sum_conflicts(scenario)
        yield from self.noise_conflicts(scenario)

    def noise_conflicts(self, scenario: Any) -> Iterator[Refused]:
        """What its noise_multiplier, given or computed, cannot go with."""
        return iter(())

    def _sum_conflicts(self, scenario: Any) -> Iterator[Refused]:
        """What makes it unknown how much one update can change the sum."""
        aggregation = scenario.aggregation
        kind = aggregation.kind
        if aggregation.weighting == "samples" and not aggregation.gathers and not aggregation.multiplies:
            expected = "uniform: a client of many samples would change the sum by more than clip_norm"
            yield Refused("aggregation.weighting", f"samples with privacy {self.kind}", expected)
        if aggregation.gathers or aggregation.multiplies or aggregation.keeps_client_state:
            expected = (
                "fedavg, fedprox, fedavgm, fedadam, fedyogi or ffa_lora: how much one update changes what "
                "another rule makes has no bound that noise could follow"
            )
            yield Refused("aggregation.kind", f"{kind} with privacy {self.kind}", expected)
        if scenario.topology.reduces_among_clients:
            expected = "topology.reduce server: in a ring all clients know the sum before there is noise"
            yield Refused(".kind", f"{self.kind} with topology.reduce allreduce", expected)
        if scenario.tuning.has_mixed_ranks:
            expected = "one rank: what a client of a low rank leaves out is not clipped"
            yield Refused("tuning.ranks", f"mixed ranks with privacy {self.kind}", expected)

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.accounting is not None:
            yield "mironov2017renyi"

    def notes(self, scenario: Any) -> Iterator[str]:
        """What a person should know before it trains."""
        clients = scenario.population.clients
        if self.protects_clients and clients < FEW_CLIENTS:
            yield (
                f"privacy {self.kind} hides a client among {clients}: with fewer than {FEW_CLIENTS}, the"
                " noise that does it hides what the model learns, too"
            )
        if self.protects_clients and self.delta >= 1 / clients:
            yield (
                f"privacy.delta is {self.delta:g}, at least one divided by the {clients} clients: such a"
                " promise holds even for a mechanism that publishes one of them"
            )
        if self.noise == "seed":
            yield (
                "privacy: its noise comes from the scenario's seed, and who knows the seed can take it away:"
                " this is a simulation (noise: secret draws from the system)"
            )
        else:
            yield "privacy: its noise comes from the system, so that no second run has the same bits"
        yield (
            "privacy: losses, counts of samples and evaluations are published without noise, and epsilon does"
            " not cover them"
        )


class AdaptiveClipping(Section):
    """clip_norm follows a quantile of the updates' norms (Andrew et al. 2021, Algorithm 1): C is multiplied
    by exp(-learning_rate (b - quantile)), where b is the noisy share of updates no longer than C."""

    quantile: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="The share of updates that shall be no longer than C."
    )
    learning_rate: Positive = Field(default=0.2, description="How fast C follows.")
    count_noise: Positive | None = Field(
        default=None,
        description="The standard deviation of the noise on how many updates are no longer than C. None: a "
        "twentieth of the expected updates of a round. The updates get more noise for it, so that both "
        "together cost what noise_multiplier says.",
    )

    cites: ClassVar[tuple[str, ...]] = ("andrew2021differentially",)

    def noise_on_count(self, updates: float) -> float:
        """sigma_b, of so many expected updates a round."""
        return updates / 20 if self.count_noise is None else self.count_noise


class Central(PrivacySection):
    """DP-FedAvg (McMahan et al. 2018): each client's whole update is clipped, and the server adds noise to
    the sum, which it divides by the expected number of clients. In a relay it is a chain's update."""

    kind: Literal["central"] = Field(
        description="central: clip each client's update, noise on their sum at the server."
    )
    adaptive: AdaptiveClipping | None = Field(
        default=None, description="How clip_norm changes from round to round. None: not at all."
    )

    implementation: ClassVar[str] = "fedray.privacy.central:Central"
    accounting: ClassVar[str | None] = "fedray.privacy.events:central"
    cites: ClassVar[tuple[str, ...]] = ("mcmahan2018learning",)
    protects_clients: ClassVar[bool] = True
    adds_noise_to_sum: ClassVar[bool] = True

    def unit(self, topology: Any) -> str:
        if topology.hands_model_on:
            return (
                "a chain of the relay, from those outside it: devices in it see each other's models, and the"
                " server sees each chain's"
            )
        return "a client with all its samples, from whoever sees the global models: the server is trusted"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if self.adaptive is None:
            return
        if scenario.topology.hands_model_on:
            expected = "none in a relay, where the server clips, once a chain"
            yield Refused(".adaptive", "adaptive clipping", expected)

    def noise_conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.adaptive is None:
            return
        updates = scenario.topology.updates(scenario.population.clients_per_round)
        spread = self.adaptive.noise_on_count(updates)
        multiplier = self.noise_multiplier
        if multiplier is not None and multiplier >= 2 * spread:
            got = f"{spread:g} with noise_multiplier {multiplier:g}"
            expected = "more than half of noise_multiplier, of which the count takes a share"
            yield Refused(".adaptive.count_noise", got, expected)

    @property
    def is_adaptive(self) -> bool:
        return self.adaptive is not None


class Local(PrivacySection):
    """Each client clips its update and adds noise to it before it is sent, in a relay at each hop
    (Wei et al. 2020)."""

    kind: Literal["local"] = Field(
        description="local: each client clips its update and adds noise before it is sent."
    )

    implementation: ClassVar[str] = "fedray.privacy.local:Local"
    accounting: ClassVar[str | None] = "fedray.privacy.events:local"
    cites: ClassVar[tuple[str, ...]] = ("wei2020federated",)
    protects_clients: ClassVar[bool] = True

    def unit(self, topology: Any) -> str:
        if topology.hands_model_on:
            return "a client's turn, from all who get the model behind it: neighbours, the server, outsiders"
        return "a client with all its samples, from the server and all others"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if scenario.aggregation.keeps_client_state:
            expected = "another rule: what a client sends beside its update is neither clipped nor noised"
            yield Refused("aggregation.kind", f"{scenario.aggregation.kind} with privacy local", expected)
        if scenario.tuning.has_mixed_ranks:
            yield Refused("tuning.ranks", "mixed ranks with privacy local", "one rank")


class Sample(PrivacySection):
    """DP-SGD in each local update (Abadi et al. 2016): the gradient of each sample is clipped, noise is added
    to their sum, which is divided by the expected samples of a batch. Batches are drawn anew for each step,
    every sample with the same probability."""

    kind: Literal["sample"] = Field(
        description="sample: DP-SGD in each client's local update, sample by sample."
    )

    implementation: ClassVar[str] = "fedray.privacy.sample:Sample"
    accounting: ClassVar[str | None] = "fedray.privacy.events:sample"
    cites: ClassVar[tuple[str, ...]] = ("abadi2016deep",)
    in_local_update: ClassVar[bool] = True

    def unit(self, topology: Any) -> str:
        others = "neighbours, the server" if topology.hands_model_on else "the server"
        return f"a sample of a client, from everybody else: {others}, outsiders"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if scenario.model.normalizes_batches:
            expected = "a model without BatchNorm: there a sample's gradient depends on its batch"
            yield Refused("model", f"{scenario.model.kind} with BatchNorm, for privacy sample", expected)
        if scenario.runtime.gang > 1:
            expected = "1: gradients are taken sample by sample"
            yield Refused("runtime.gang", f"{scenario.runtime.gang} with privacy sample", expected)
        if scenario.training.precision == "fp16":
            expected = "fp32 or bf16: a loss scale that follows gradients tells of them"
            yield Refused("training.precision", "fp16 with privacy sample", expected)
        if scenario.sites and self.epsilon is not None:
            expected = "noise_multiplier: how many samples a site's clients have is not known beforehand"
            yield Refused(".epsilon", "one for privacy sample with data.sites", expected)


class Tree(PrivacySection):
    """DP-FTRL (Kairouz et al. 2021): each client's update is clipped, and the server adds noise that is
    correlated over rounds, so that the sum of all rounds so far has noise of a binary tree's few nodes. It
    needs no chance in who takes part."""

    kind: Literal["tree"] = Field(
        description="tree: clip each client's update, noise of a binary tree on the sums over rounds."
    )

    implementation: ClassVar[str] = "fedray.privacy.tree:Tree"
    accounting: ClassVar[str | None] = "fedray.privacy.events:tree"
    cites: ClassVar[tuple[str, ...]] = ("kairouz2021practical",)
    protects_clients: ClassVar[bool] = True
    adds_noise_to_sum: ClassVar[bool] = True

    def unit(self, topology: Any) -> str:
        return "a client with all its samples, from whoever sees the global models: the server is trusted"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if self.noise == "secret":
            expected = "seed: a node's noise is taken away in a later round, and nothing keeps it"
            yield Refused(".noise", "secret with privacy tree", expected)
        if scenario.topology.hands_model_on:
            yield Refused(".kind", "tree in a relay", "topology.kind parallel")


Privacy = Annotated[Central | Local | Sample | Tree, Discriminator("kind"), OpenKind("privacy")]
