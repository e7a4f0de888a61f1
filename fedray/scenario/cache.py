"""`cache`: what each edge keeps of the bases and adapters that its users ask for."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Positive, Refused, Section
from fedray.scenario.kinds import KindSection, OpenKind


class CachePolicySection(KindSection):
    """How it is decided what a cache keeps."""

    kind: str = Field(description="The policy.")


class Optimal(CachePolicySection):
    """The bases and adapters with the highest hit ratio that fit, by integer programming. Shares of requests
    are known before, and what is cached stays."""

    kind: Literal["optimal"] = Field(description="optimal: the highest hit ratio, by integer programming.")

    implementation: ClassVar[str] = "fedray.serving.cache:Optimal"
    cites: ClassVar[tuple[str, ...]] = ("huangfu2018parallelizing",)


class Greedy(CachePolicySection):
    """Adapters in descending order of popularity per byte, each with its base. Shares of requests are known
    before, and what is cached stays."""

    kind: Literal["greedy"] = Field(description="greedy: by popularity per byte.")

    implementation: ClassVar[str] = "fedray.serving.cache:Greedy"


class Lfu(CachePolicySection):
    """What a request misses is fetched and kept; what has been requested least often makes room."""

    kind: Literal["lfu"] = Field(description="lfu: least frequently used makes room.")

    implementation: ClassVar[str] = "fedray.serving.cache:Lfu"


class Lru(CachePolicySection):
    """What a request misses is fetched and kept; what has not been requested for longest makes room."""

    kind: Literal["lru"] = Field(description="lru: least recently used makes room.")

    implementation: ClassVar[str] = "fedray.serving.cache:Lru"


class HitsPerByte(CachePolicySection):
    """What a request misses is fetched, and kept where it has been requested more often, relative to its
    bytes, than what would make room for it. A base makes no room while an adapter over it is cached."""

    kind: Literal["hits_per_byte"] = Field(
        description="hits_per_byte: fewest requests per byte makes room, but never a base in use."
    )

    implementation: ClassVar[str] = "fedray.serving.cache:HitsPerByte"


AnyCachePolicy = Annotated[
    Optimal | Greedy | Lfu | Lru | HitsPerByte,
    Discriminator("kind"),
    OpenKind("cache_policy", plain=True),
]


class Cache(Section):
    """What each edge keeps of the bases and adapters that its users ask for."""

    capacity_bytes: Positive = Field(description="Bytes of each edge's cache.")
    policy: AnyCachePolicy = Field(
        description="Which items it keeps: a mapping, or a policy's name alone.",
    )
    merged: bool = Field(
        default=False,
        description="Whether each adapter is merged into a copy of its base, so that nothing is shared.",
    )

    def too_small(self, base_bytes: list[float]) -> Iterator[Refused]:
        """Where not even the smallest base fits. `base_bytes`: of each base that is asked for."""
        least = min(base_bytes)
        if self.capacity_bytes < least:
            got = f"{self.capacity_bytes / 1e9:.3g} GB"
            sizes = ", ".join(f"{size / 1e9:.3g}" for size in sorted(base_bytes))
            yield Refused(".capacity_bytes", got, f"at least the smallest base (bases have {sizes} GB)")
