"""`data.partition`: which client has which samples."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Count, Positive, Refused
from fedray.scenario.kinds import KindSection, OpenKind

MOST_DRAWN = 100_000_000  # samples that clients draw with replacement, whose numbers are an array


class PartitionSection(KindSection):
    """Which client has which samples."""

    kind: str = Field(description="The partition.")

    by_folder: ClassVar[bool] = False  # whether each of a source's folders is a client's
    by_label: ClassVar[bool] = False  # whether it needs to know labels
    pools: ClassVar[bool] = False  # whether one client has what another partition deals to several

    @property
    def by_column(self) -> str | None:
        """The column of the data whose values are clients; None: it does not matter what columns say."""
        return None

    @property
    def draws_with_replacement(self) -> bool:
        """Whether a sample may be several clients'."""
        return False

    @property
    def leaves_empty(self) -> bool:
        """Whether a client may have no samples."""
        return False


class DrawnSection(PartitionSection):
    """One in which each client may draw samples, with replacement."""

    samples: Count | None = Field(default=None, description="Samples that each client draws.")

    @property
    def draws_with_replacement(self) -> bool:
        return self.samples is not None

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        clients = scenario.population.clients
        if clients * (self.samples or 0) > MOST_DRAWN:
            expected = f"at most {MOST_DRAWN // clients} for {clients} clients, {MOST_DRAWN:,} samples in all"
            yield Refused(".samples", self.samples, expected)


class ByFolder(PartitionSection):
    """One folder per client, in the sorted order of the folders' names."""

    kind: Literal["folder"] = Field(description="folder: one folder per client.")

    implementation: ClassVar[str] = "fedray.data.partition:ByFolderPartition"
    by_folder: ClassVar[bool] = True


class ByColumn(PartitionSection):
    """One client per value of a column, in the sorted order of the values: who wrote, spoke or measured each
    sample."""

    kind: Literal["column"] = Field(description="column: one client per value of a column of the data.")
    column: Annotated[str, Field(min_length=1)] = Field(
        description="The column that says whose each sample is. Its values are texts or whole numbers."
    )

    implementation: ClassVar[str] = "fedray.data.partition:ByColumnPartition"

    @property
    def by_column(self) -> str:
        return self.column

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        data = scenario.data
        if not data.has_columns:
            yield Refused(".kind", f"column for {data.kind}", "another, since its samples have no columns")


class Iid(DrawnSection):
    """Samples are dealt at random, in parts whose sizes differ by at most one."""

    kind: Literal["iid"] = Field(description="iid: at random, equally many each.")
    samples: Count | None = Field(
        default=None,
        description="Each client draws this many samples with replacement, so that there may be more "
        "clients than samples. None: every sample is dealt once.",
    )

    implementation: ClassVar[str] = "fedray.data.partition:IidPartition"


class Dirichlet(DrawnSection):
    """Labels are spread unevenly: each label's samples are dealt in shares drawn from Dir(alpha) over the
    clients (Yurochkin et al. 2019), drawn again until each client has `min_samples`.

    With `samples`, each client draws that many samples, with replacement, from a mix of its own of the K
    labels, drawn from Dir(alpha K p), where p are the labels' frequencies: Dir(alpha) over the labels where
    there are equally many of each. Hsu et al. 2019, whose scheme this is, draw from Dir(alpha p), so that
    their alpha is K times this one (with ten labels, their 1 is 0.1 here).
    """

    kind: Literal["dirichlet"] = Field(description="dirichlet: labels spread unevenly over clients.")
    alpha: Positive = Field(
        description="The concentration: the smaller, the fewer labels a client has; large values come near "
        "to iid."
    )
    min_samples: Count = Field(
        default=1, description="The fewest samples a client may have; drawn again until so."
    )
    allow_empty: bool = Field(
        default=False, description="Take the first draw. Clients without samples are never selected."
    )
    samples: Count | None = Field(
        default=None,
        description="Each client draws this many samples with replacement, from its own mix of labels (Hsu "
        "et al. 2019). None: every sample is dealt once.",
    )

    implementation: ClassVar[str] = "fedray.data.partition:DirichletPartition"
    by_label: ClassVar[bool] = True

    @property
    def leaves_empty(self) -> bool:
        return self.allow_empty

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        yield "yurochkin2019bayesian" if self.samples is None else "hsu2019measuring"


class Shards(PartitionSection):
    """Samples are sorted by label and cut into equal shards, which are dealt at random (McMahan et al.
    2017)."""

    kind: Literal["shards"] = Field(description="shards: sorted by label, cut and dealt.")
    per_client: Count = Field(default=2, description="Shards per client.")

    implementation: ClassVar[str] = "fedray.data.partition:ShardsPartition"
    cites: ClassVar[tuple[str, ...]] = ("mcmahan2017communication",)


class Quantity(PartitionSection):
    """Samples are dealt at random in parts whose sizes are drawn from Dir(alpha) (Li et al. 2022, quantity
    skew)."""

    kind: Literal["quantity"] = Field(description="quantity: at random, in parts of uneven size.")
    alpha: Positive = Field(description="The concentration: the smaller, the more uneven the sizes.")
    min_samples: Count = Field(
        default=1, description="The fewest samples a client may have; drawn again until so."
    )
    allow_empty: bool = Field(
        default=False, description="Take the first draw. Clients without samples are never selected."
    )

    implementation: ClassVar[str] = "fedray.data.partition:QuantityPartition"
    cites: ClassVar[tuple[str, ...]] = ("li2022federated",)

    @property
    def leaves_empty(self) -> bool:
        return self.allow_empty


DealtPartition = Iid | Dirichlet | Shards | Quantity


class Pooled(PartitionSection):
    """What several clients have, or some samples of each, is one client's: such as samples that a server has
    collected."""

    kind: Literal["pooled"] = Field(description="pooled: several clients' samples, at one.")
    of: Annotated[ByFolder | ByColumn | DealtPartition, Discriminator("kind"), OpenKind("partition")] = Field(
        description="Which of the clients has which samples."
    )
    clients: Count = Field(description="How many there are.")
    samples: Count | None = Field(
        default=None, description="Samples of each client, drawn without replacement. None: all."
    )

    implementation: ClassVar[str] = "fedray.data.partition:PooledPartition"
    pools: ClassVar[bool] = True

    @property
    def by_folder(self) -> bool:  # type: ignore[override]
        return self.of.by_folder

    @property
    def by_label(self) -> bool:  # type: ignore[override]
        return self.of.by_label

    @property
    def by_column(self) -> str | None:
        return self.of.by_column

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if scenario.population.clients != 1:
            got = f"pooled for {scenario.population.clients} clients"
            yield Refused(".kind", got, "population.clients 1, who has all of it")


ByLabel = Annotated[DealtPartition | Pooled, Discriminator("kind"), OpenKind("partition")]
AnyPartition = Annotated[
    ByFolder | ByColumn | DealtPartition | Pooled, Discriminator("kind"), OpenKind("partition")
]
