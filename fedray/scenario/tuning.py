"""`tuning`: what trains and travels."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Count, Fraction, Positive, Refused
from fedray.scenario.kinds import OpenKind
from fedray.scenario.textual_inversion import TextualInversion
from fedray.scenario.tuning_section import PAYLOAD, Payload, TuningSection


class Lora(TuningSection):
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
    rslora: bool = Field(
        default=False,
        description="An adapter adds alpha / sqrt(rank) times B A, so that what it learns does not fade with "
        "its rank (rsLoRA, Kalajdzievski 2023).",
    )
    dropout: Fraction = Field(
        default=0.0, description="The probability that a number of an adapter's input is dropped in training."
    )
    targets: Literal["attention", "kohya", "all-linear"] | Annotated[list[str], Field(min_length=1)] = Field(
        default="attention",
        description="The layers that have adapters. attention: those of diffusers' training script for the "
        "base's family, in a U-Net to_q, to_k, to_v and to_out.0; in a language model those that peft adapts "
        "in its architecture, in a Llama q_proj and v_proj. all-linear: every linear layer of a language "
        "model but its head. kohya: attention, feed-forward layers and "
        "projections of the U-Net or transformer, attention and MLP of the CLIPs. Or a list of names of "
        "layers of the U-Net, transformer or language model.",
    )
    payload: Payload | None = Field(default=None, description=PAYLOAD)

    @property
    def scale(self) -> float:
        """alpha / rank, or with rslora alpha / sqrt(rank), on B A."""
        return self.alpha_or_rank / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def alpha_or_rank(self) -> float:
        return self.alpha or self.rank

    @property
    def stored_alpha(self) -> float:
        """For files whose readers multiply B A by alpha / rank, whatever is said here."""
        return self.scale * self.rank if self.rslora else self.alpha_or_rank

    @property
    def named_targets(self) -> str | None:
        return self.targets if isinstance(self.targets, str) else None

    def rank_of(self, client: int) -> int:
        return self.ranks[client % len(self.ranks)] if self.ranks else self.rank

    implementation: ClassVar[str] = "fedray.tuning.lora:LoraTuning"
    cites: ClassVar[tuple[str, ...]] = ("hu2022lora",)
    has_adapters: ClassVar[bool] = True
    trains_in_gangs: ClassVar[bool] = True

    @property
    def has_mixed_ranks(self) -> bool:
        return bool(self.ranks)

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.rslora:
            yield "kalajdzievski2023rank"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.dropout and scenario.training.gradient_checkpointing:
            expected = "0 with training.gradient_checkpointing: recomputing would draw it again"
            yield Refused(".dropout", self.dropout, expected)
        if self.dropout and scenario.runtime.gang > 1:
            expected = "0 with runtime.gang: what clients drop would depend on who trains beside them"
            yield Refused(".dropout", self.dropout, expected)
        if self.ranks:
            yield from self._mixed(self.ranks, scenario)

    def _mixed(self, ranks: list[int], scenario: Any) -> Iterator[Refused]:
        clients = scenario.population.clients
        if max(ranks) > self.rank:
            yield Refused(".ranks", max(ranks), f"at most tuning.rank, {self.rank}")
        if self.local:
            yield Refused(".local", "some beside tuning.ranks", "none: what stays at home has one rank")
        if len(ranks) > clients:
            yield Refused(".ranks", f"{len(ranks)} ranks", f"at most one a client, {clients}")
        if not scenario.topology.shares_uplink:
            expected = (
                "topology.kind parallel with reduce: server, where nobody adds or hands on others' ranks"
            )
            yield Refused(".ranks", "some", expected)
        rule = scenario.aggregation
        if not rule.takes_mixed_ranks:
            expected = (
                "aggregation.kind fedavg, hetlora, fedex_lora or flora: in others what a low rank leaves out"
                " would change"
            )
            yield Refused(".ranks", f"some for {rule.kind}", expected)


class Full(TuningSection):
    """Every weight of the named parts trains and travels, and with them what they keep of their data without
    gradients (the running means of batch normalisation)."""

    kind: Literal["full"] = Field(description="full: every weight.")
    parts: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None,
        description="Names of parts of the model, such as unet; each model.kind has its own. None: its main "
        "part, or all parts of a model whose parts only learn together, such as a gan.",
    )
    payload: Payload | None = Field(default=None, description=PAYLOAD)

    implementation: ClassVar[str] = "fedray.tuning.full:Full"

    @property
    def chosen_parts(self) -> Sequence[str]:
        return self.parts or ()


class Partial(TuningSection):
    """The weights whose names match a pattern train and travel; the others stay as they are."""

    kind: Literal["partial"] = Field(description="partial: weights by the patterns of their names.")
    patterns: Annotated[list[str], Field(min_length=1)] = Field(
        description='Patterns as in a shell (*, ?, []), such as "unet.*.attn2.*".'
    )
    payload: Payload | None = Field(default=None, description=PAYLOAD)

    implementation: ClassVar[str] = "fedray.tuning.full:Partial"


Tuning = Annotated[Lora | Full | Partial | TextualInversion, Discriminator("kind"), OpenKind("tuning")]
