"""`aggregation`: rules that hold when some clients send anything at all (Byzantine clients)."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.aggregation_section import FROZEN_A, AggregationSection
from fedray.scenario.base import Count, NotNegative, Positive, Refused
from fedray.scenario.server_optimizer import ServerOptimizer


class RobustSection(AggregationSection):
    """What every robust rule's section has. It looks at the updates of a round one by one, and all clients
    count the same: how many samples a client has is what it says itself."""

    weighting: Literal["uniform"] = Field(
        default="uniform", description="uniform: all clients count the same."
    )
    server_optimizer: ServerOptimizer | None = Field(
        default=None,
        description="The server's step with the combined update: fedavgm, fedadam or fedyogi. None: the "
        "update is added to the global model.",
    )
    ffa_lora: bool = Field(
        default=False,
        description="With tuning.kind lora: an adapter's A stays as it was drawn, only B trains and travels "
        "(FFA-LoRA, Sun et al. 2024), so that the rule compares what is added to the base, not its factors.",
    )

    gathers: ClassVar[bool] = True

    @property
    def frozen(self) -> tuple[str, ...]:  # type: ignore[override]
        return FROZEN_A if self.ffa_lora else ()

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.ffa_lora:
            yield "sun2024improving"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if self.ffa_lora and not scenario.tuning.has_adapters:
            got = f"true with tuning {scenario.tuning.kind}"
            yield Refused(".ffa_lora", got, "tuning.kind lora, or false")
        if self.ffa_lora and scenario.topology.splits_model:
            expected = "false: no client has the whole model"
            yield Refused(".ffa_lora", "true in a split", expected)


class Median(RobustSection):
    """The coordinate-wise median (Yin et al. 2018): each number's median over the clients, who all count the
    same, so that up to half of them may send anything."""

    kind: Literal["median"] = Field(description="median: each number's median over the clients.")

    implementation: ClassVar[str] = "fedray.aggregation.median:Median"
    cites: ClassVar[tuple[str, ...]] = ("yin2018byzantine",)

    def operations(self, updates: int) -> float:
        return _sort(updates)


class BoundedSection(RobustSection):
    """What the section of a rule with a limit has. It holds up to a number of attackers, if enough updates
    arrive; a round with fewer leaves the global model as it is."""

    limit_key: ClassVar[str] = ".attackers"  # the field that says how many
    limit: ClassVar[str]  # how many updates it needs, in words

    def most(self, updates: int) -> int:
        """The largest value of that field with so many updates; below 0 where none will do."""
        raise NotImplementedError

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        updates = scenario.topology.updates(scenario.population.clients_per_round)
        if updates >= self.least_updates:
            return
        got = f"{getattr(self, self.limit_key[1:])} for {self.kind} with {updates} updates a round"
        most = self.most(updates)
        largest = f"at most {most}, or more updates" if most >= 0 else "more updates"
        yield Refused(self.limit_key, got, f"{largest}: it needs n {self.limit}")


class TrimmedMean(BoundedSection):
    """The coordinate-wise trimmed mean (Yin et al. 2018, Definition 2): of each number the largest and the
    smallest values over the clients are left out."""

    kind: Literal["trimmed_mean"] = Field(
        description="trimmed_mean: each number's mean without its largest and smallest values."
    )
    trim: Annotated[int, Field(ge=0)] = Field(
        description="How many values are left out at each end, which is how many attackers it tolerates; a "
        "round needs more than twice as many updates (Yin et al. 2018, Definition 2)."
    )

    implementation: ClassVar[str] = "fedray.aggregation.trimmed_mean:TrimmedMean"
    cites: ClassVar[tuple[str, ...]] = ("yin2018byzantine",)
    limit_key: ClassVar[str] = ".trim"
    limit: ClassVar[str] = "> 2 trim"

    @property
    def least_updates(self) -> int:
        return 2 * self.trim + 1

    def most(self, updates: int) -> int:
        return (updates - 1) // 2

    def operations(self, updates: int) -> float:
        return _sort(updates) + updates


class KrumSection(BoundedSection):
    """What Krum and Multi-Krum have in common."""

    attackers: Annotated[int, Field(ge=0)] = Field(
        description="f: how many clients of a round may send anything; a round needs at least 2 f + 3 "
        "updates (Blanchard et al. 2017)."
    )

    cites: ClassVar[tuple[str, ...]] = ("blanchard2017machine",)
    limit: ClassVar[str] = ">= 2 attackers + 3"

    @property
    def least_updates(self) -> int:
        return 2 * self.attackers + 3

    def most(self, updates: int) -> int:
        return (updates - 3) // 2

    def operations(self, updates: int) -> float:
        return _distances(updates) + updates


class Krum(KrumSection):
    """Krum (Blanchard et al. 2017): the update that is nearest to its n - f - 2 nearest others."""

    kind: Literal["krum"] = Field(description="krum: the one update that is nearest to most others.")

    implementation: ClassVar[str] = "fedray.aggregation.krum:Krum"


class MultiKrum(KrumSection):
    """Multi-Krum (Blanchard et al. 2017): the mean of the updates that Krum ranks first."""

    kind: Literal["multi_krum"] = Field(
        description="multi_krum: the mean of the updates that Krum ranks first."
    )
    selected: Count | None = Field(
        default=None,
        description="m: how many updates the mean is of, at most n - f. None: n - f, all but as many as "
        "there may be attackers.",
    )

    implementation: ClassVar[str] = "fedray.aggregation.krum:MultiKrum"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        most = scenario.topology.updates(scenario.population.clients_per_round) - self.attackers
        if self.selected is not None and 0 < most < self.selected:
            expected = f"at most {most}: the updates of a round but for {self.attackers}"
            yield Refused(".selected", self.selected, expected)


class Bulyan(BoundedSection):
    """Bulyan (El Mhamdi et al. 2018): Krum selects n - 2 f updates one by one; of each number the mean of the
    n - 4 f values next to their median is taken."""

    kind: Literal["bulyan"] = Field(
        description="bulyan: Krum selects updates, and each number is the mean of those next to the median."
    )
    attackers: Annotated[int, Field(ge=0)] = Field(
        description="f: how many clients of a round may send anything; a round needs at least 4 f + 3 "
        "updates (El Mhamdi et al. 2018)."
    )

    implementation: ClassVar[str] = "fedray.aggregation.bulyan:Bulyan"
    cites: ClassVar[tuple[str, ...]] = ("elmhamdi2018hidden", "blanchard2017machine")
    limit: ClassVar[str] = ">= 4 attackers + 3"

    @property
    def least_updates(self) -> int:
        return 4 * self.attackers + 3

    def most(self, updates: int) -> int:
        return (updates - 3) // 4

    def operations(self, updates: int) -> float:
        return _distances(updates) + 2 * _sort(updates) + 2 * updates


class GeometricMedian(RobustSection):
    """RFA (Pillutla et al. 2022): the geometric median, whose distances to all updates add up to the least,
    by the smoothed Weiszfeld algorithm. Up to half of the clients may send anything."""

    kind: Literal["geometric_median"] = Field(
        description="geometric_median: the point whose distances to all updates add up to the least (RFA)."
    )
    iterations: Count = Field(
        default=100,
        description="Steps of the Weiszfeld algorithm, at most; each begins where the last ended.",
    )
    tolerance: NotNegative = Field(
        default=1e-6,
        description="The algorithm ends with a step that is no longer than this share of the mean distance "
        "to the updates.",
    )
    eps: Positive = Field(
        default=1e-6,
        description="nu in the paper: smaller distances count as this one, so that none is divided by zero.",
    )

    implementation: ClassVar[str] = "fedray.aggregation.geometric_median:GeometricMedian"
    cites: ClassVar[tuple[str, ...]] = ("pillutla2022robust",)

    def operations(self, updates: int) -> float:
        """Of every step that it may take: each update's distance, and the weighted mean."""
        return 5.0 * updates * self.iterations


class NormBound(RobustSection):
    """Norm bounding (Sun et al. 2019): a longer update is scaled down to the bound at the server, then the
    mean is taken. Unlike the transform `clip`, which an attacker leaves out, this is done where updates
    arrive."""

    kind: Literal["norm_bound"] = Field(
        description="norm_bound: the mean of updates that are scaled down to a length at the server."
    )
    bound: Literal["median"] | Positive = Field(
        default="median",
        description="The largest length (L2) of an update, in the units of the weights. median: the median "
        "of the lengths of the round's updates.",
    )

    implementation: ClassVar[str] = "fedray.aggregation.norm_bound:NormBound"
    cites: ClassVar[tuple[str, ...]] = ("sun2019can",)

    def operations(self, updates: int) -> float:
        return 4.0 * updates


class CenteredClipping(RobustSection):
    """Centered clipping (Karimireddy et al. 2021): each update's difference from the last round's result is
    scaled down to a radius, and their mean added to it. The server keeps the result from round to round."""

    kind: Literal["centered_clipping"] = Field(
        description="centered_clipping: the mean of differences from the last result, each clipped."
    )
    tau: Positive = Field(
        description="The radius (L2) that a difference is clipped to, in the units of the weights."
    )
    iterations: Count = Field(
        default=1, description="L: how often it is done in a round, each time from the result before."
    )

    implementation: ClassVar[str] = "fedray.aggregation.centered_clipping:CenteredClipping"
    cites: ClassVar[tuple[str, ...]] = ("karimireddy2021learning",)

    def operations(self, updates: int) -> float:
        return 5.0 * updates * self.iterations


class FoolsGold(RobustSection):
    """FoolsGold (Fung et al. 2020): clients whose updates over all rounds point the same way count less, as
    those of one attacker with many clients do. Honest clients that are similar count less too. The server
    keeps the sum of each client's updates."""

    kind: Literal["foolsgold"] = Field(
        description="foolsgold: a mean in which clients whose updates are similar over the rounds count less."
    )
    kappa: Positive = Field(
        default=1.0,
        description="kappa: how sharply the weights divide similar clients from others, in the logit.",
    )

    implementation: ClassVar[str] = "fedray.aggregation.foolsgold:FoolsGold"
    cites: ClassVar[tuple[str, ...]] = ("fung2020limitations",)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        clients = scenario.population.clients_per_round
        if (updates := scenario.topology.updates(clients)) < clients:
            got = f"foolsgold with {updates} updates of {clients} clients"
            expected = "topology.kind parallel: it compares what each client sends over the rounds"
            yield Refused(".kind", got, expected)

    def operations(self, updates: int) -> float:
        """Of the histories, the cosine of each two of them, and the mean."""
        return updates * (updates + 1.0) + 3.0 * updates


class FLTrust(RobustSection):
    """FLTrust (Cao et al. 2021): each round the server trains on clean samples of its own, as a client does.
    An update counts by its cosine with the server's, at least 0, and is scaled to its length."""

    kind: Literal["fltrust"] = Field(
        description="fltrust: updates count by their cosine with one that the server makes of clean samples."
    )
    root_samples: Count = Field(
        description="How many clean samples the server has. They are drawn from the test set, and nothing is "
        "measured on them; the paper has 100."
    )

    implementation: ClassVar[str] = "fedray.aggregation.fltrust:FLTrust"
    cites: ClassVar[tuple[str, ...]] = ("cao2021fltrust",)
    goes_with_split: ClassVar[bool] = False

    @property
    def clean_samples(self) -> int:
        return self.root_samples

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if not scenario.data.has_test_set:
            got = f"{self.root_samples} with data {scenario.data.kind}, which have no test set"
            yield Refused(".root_samples", got, "data with a test set, from which the server has its own")
        if scenario.augmentation is not None:
            expected = "another rule, or no augmentation: each wants the server to train on what it holds"
            yield Refused(".kind", "fltrust with augmentation", expected)

    def operations(self, updates: int) -> float:
        """Of lengths, products with the server's update, and the mean; its training comes on top."""
        return 6.0 * updates


def _sort(updates: int) -> float:
    """Comparisons a number of sorting so many."""
    return updates * math.log2(max(2, updates))


def _distances(updates: int) -> float:
    """Operations a number for the distance of each two updates: a subtraction, a multiplication and an
    addition."""
    return 1.5 * updates * (updates - 1)
