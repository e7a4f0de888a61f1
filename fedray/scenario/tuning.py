"""`tuning`: what trains and travels."""

from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Count, Fraction, Positive, Section

Payload = Literal["fp32", "fp16", "bf16"]


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021): only they train and travel."""

    kind: Literal["lora"]
    rank: Count
    # Clients' own ranks, at most `rank`, which they take in turn by their numbers: such a client has the
    # first rows of each A and columns of each B alone; the others are zero in what it is taken to send
    # (HetLoRA, Cho et al. 2024).
    ranks: Annotated[list[Count], Field(min_length=1)] | None = None
    alpha: Positive | None = None  # as the rank
    dropout: Fraction = 0.0
    # attention: the U-Net's to_q, to_k, to_v, to_out.0 (diffusers' default). kohya: attention, feed-forward
    # and projections of the U-Net, attention and MLP of the text encoder. A list: names of the U-Net's
    # layers.
    targets: Literal["attention", "kohya"] | Annotated[list[str], Field(min_length=1)] = "attention"
    payload: Payload | None = None  # numbers on the air; as training.precision

    @property
    def scale(self) -> float:
        """alpha / rank, on B A."""
        return self.alpha_or_rank / self.rank

    @property
    def alpha_or_rank(self) -> float:
        return self.alpha or self.rank

    def rank_of(self, client: int) -> int:
        return self.ranks[client % len(self.ranks)] if self.ranks else self.rank


class Full(Section):
    """Every weight of the named parts trains and travels, and what they have learnt of their data without
    gradients (the running means of batch normalisation)."""

    kind: Literal["full"]
    # unet, or the network
    parts: Annotated[list[Literal["unet", "text_encoder", "network"]], Field(min_length=1)] | None = None
    payload: Payload | None = None


class Partial(Section):
    """The weights whose names match one of the patterns (as in a shell: *, ?, [])."""

    kind: Literal["partial"]
    patterns: Annotated[list[str], Field(min_length=1)]  # e.g. "unet.*.attn2.*"
    payload: Payload | None = None


Tuning = Annotated[Lora | Full | Partial, Field(discriminator="kind")]
