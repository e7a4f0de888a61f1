"""`cache`: what each edge keeps of the bases and adapters that its users ask for."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import NotNegative, Positive, Refused, Section
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
    """What a request misses is fetched, and kept where it has been requested at least as often as what would
    make room for it: what has been requested least often."""

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


Bytes = Annotated[list[Positive], Field(min_length=1, max_length=256)]


class Cache(Section):
    """What each provider keeps of the models that are asked for, each of which is an adapter over a base. A
    model is there where both are. What is missing is fetched first, which takes time and energy."""

    capacity_bytes: Positive = Field(description="Bytes of each provider's cache.")
    policy: AnyCachePolicy = Field(description="What it keeps: a mapping, or a policy's name alone.")
    merged: bool = Field(
        default=False,
        description="Whether each adapter is merged into a copy of its base, so that nothing is shared.",
    )
    base_bytes: Bytes = Field(
        default=[1.72e9, 5.14e9],
        description="Bytes of each base. The default is the U-Nets of Stable Diffusion 1.5 and SDXL in fp16. "
        "Each model has one of them, drawn from the seed.",
    )
    adapter_bytes: Bytes = Field(
        default=[9.4e6, 18.8e6, 37.5e6, 75.0e6, 150.0e6],
        description="Bytes that an adapter may have; each model's is drawn from the seed.",
    )
    fetch_bps: Positive = Field(default=1.0e9, description="The rate at which a provider fetches, in bit/s.")
    fetch_w: NotNegative = Field(default=30.0, description="Watts more while a provider fetches.")
    other_requests: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=3,
        description="Requests of other users, to providers drawn at random, between two of a client's: what "
        "they miss is fetched and kept as the policy says. They take no other part.",
    )

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.capacity_bytes < min(self.base_bytes):
            sizes = ", ".join(f"{size / 1e9:.3g}" for size in sorted(self.base_bytes))
            expected = f"room for a base at least (bases have {sizes} GB)"
            yield Refused(".capacity_bytes", f"{self.capacity_bytes / 1e9:.3g} GB", expected)
