"""`aggregation.transforms`: what is done to an update on its way."""

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Count, Positive
from fedray.scenario.kinds import KindSection, OpenKind


class TransformSection(KindSection):
    """Something that is done to an update on its way."""

    kind: str = Field(description="What is done.")
    # Transforms stand in this order: what changes an update, what thins it out, what writes it as fewer
    # bytes.
    rank: ClassVar[int] = 0
    once: ClassVar[bool] = False  # whether there may be but one of this rank
    writes_bytes: ClassVar[bool] = False  # whether the receiver gets other bytes than the update's numbers
    keeps_state: ClassVar[bool] = False  # whether it keeps something of a client between local updates


class Clip(TransformSection):
    """An update whose Euclidean norm exceeds `norm` is scaled down to that norm."""

    kind: Literal["clip"] = Field(description="clip: limit the length of an update.")
    norm: Positive = Field(description="The largest Euclidean norm that an update may have.")

    implementation: ClassVar[str] = "fedray.transport.compression:Clip"
    once: ClassVar[bool] = True


class TopK(TransformSection):
    """Only the numbers of largest magnitude are sent (Aji and Heafield 2017)."""

    kind: Literal["top_k"] = Field(description="top_k: send only the numbers of largest magnitude.")
    fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        description="The share of an update's numbers that is sent; 1 sends all of them."
    )
    error_feedback: bool = Field(
        default=True,
        description="Add what was not sent to the same client's next update (Stich et al. 2018). It has no "
        "effect in a split's compression, which has no next update.",
    )

    implementation: ClassVar[str] = "fedray.transport.compression:TopK"
    cites: ClassVar[tuple[str, ...]] = ("aji2017sparse",)
    rank: ClassVar[int] = 1
    once: ClassVar[bool] = True
    writes_bytes: ClassVar[bool] = True


class RandomK(TransformSection):
    """Only some numbers are sent, at places that client and server both draw from the seed, so that no
    places travel (Konecny et al. 2016)."""

    kind: Literal["random_k"] = Field(description="random_k: send numbers at random places.")
    fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        description="The share of an update's numbers that is sent; 1 sends all of them."
    )
    error_feedback: bool = Field(
        default=True,
        description="Add what was not sent to the same client's next update (Stich et al. 2018).",
    )

    implementation: ClassVar[str] = "fedray.transport.compression:RandomK"
    cites: ClassVar[tuple[str, ...]] = ("konecny2016federated",)
    rank: ClassVar[int] = 1
    once: ClassVar[bool] = True
    writes_bytes: ClassVar[bool] = True


class Quantize(TransformSection):
    """Numbers are sent as integers of few bits, rounded at random so that the mean is kept, with one fp32
    scale per block (QSGD, Alistarh et al. 2017)."""

    kind: Literal["quantize"] = Field(description="quantize: send integers of few bits.")
    bits: Literal[8, 4] = Field(description="Bits per number: 8 or 4.")
    block: Count = Field(default=1024, description="How many numbers share one fp32 scale.")
    error_feedback: bool = Field(
        default=False,
        description="Add the rounding error to the same client's next update (Stich et al. 2018).",
    )

    implementation: ClassVar[str] = "fedray.transport.compression:Quantize"
    cites: ClassVar[tuple[str, ...]] = ("alistarh2017qsgd",)
    rank: ClassVar[int] = 2
    once: ClassVar[bool] = True
    writes_bytes: ClassVar[bool] = True


Transform = Annotated[Clip | TopK | RandomK | Quantize, Discriminator("kind"), OpenKind("hook")]
