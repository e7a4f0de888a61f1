"""`tuning`: what trains and travels."""

from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Count, Fraction, Positive, Section

Payload = Literal["fp32", "fp16", "bf16"]
PAYLOAD = (
    "The number format on the network: fp32, fp16 or bf16; fp16 and bf16 halve the bytes. None: as "
    "training.precision."
)


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021): only they train and travel."""

    kind: Literal["lora"] = Field(description="lora: low-rank adapters.")
    rank: Count = Field(description="The rank of B A.")
    ranks: Annotated[list[Count], Field(min_length=1)] | None = Field(
        default=None,
        description="Ranks of the clients' own (HetLoRA, Cho et al. 2024), at most rank: client k has the "
        "k-th, and from the beginning again. A client of rank r has only the first r rows of each A and "
        "columns of each B; the others count as zero. None: rank for all.",
    )
    alpha: Positive | None = Field(
        default=None,
        description="An adapter adds alpha / rank times B A. None: as rank, which adds B A itself.",
    )
    dropout: Fraction = Field(
        default=0.0, description="The probability that a number of an adapter's input is dropped in training."
    )
    targets: Literal["attention", "kohya"] | Annotated[list[str], Field(min_length=1)] = Field(
        default="attention",
        description="The layers that have adapters. attention: the U-Net's to_q, to_k, to_v and to_out.0, "
        "diffusers' default. kohya: attention, feed-forward layers and projections of the U-Net, attention "
        "and MLP of the text encoder. Or a list of names of the U-Net's layers.",
    )
    payload: Payload | None = Field(default=None, description=PAYLOAD)

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
    """Every weight of the named parts trains and travels, and with them what they keep of their data without
    gradients (the running means of batch normalisation)."""

    kind: Literal["full"] = Field(description="full: every weight.")
    parts: Annotated[list[Literal["unet", "text_encoder", "network"]], Field(min_length=1)] | None = Field(
        default=None,
        description="The parts of the model. unet: a diffusion model's U-Net. text_encoder: a text_to_image "
        "model's text encoder. network: the network of any other model. None: unet for text_to_image and "
        "diffusion, network for others.",
    )
    payload: Payload | None = Field(default=None, description=PAYLOAD)


class Partial(Section):
    """The weights whose names match a pattern train and travel; the others stay as they are."""

    kind: Literal["partial"] = Field(description="partial: weights by the patterns of their names.")
    patterns: Annotated[list[str], Field(min_length=1)] = Field(
        description='Patterns as in a shell (*, ?, []), such as "unet.*.attn2.*".'
    )
    payload: Payload | None = Field(default=None, description=PAYLOAD)


Tuning = Annotated[Lora | Full | Partial, Field(discriminator="kind")]
