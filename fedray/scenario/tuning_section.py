"""What every `tuning` section has."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from fedray.scenario.kinds import KindSection

Payload = Literal["fp32", "fp16", "bf16"]
PAYLOAD = (
    "The number format on the network: fp32, fp16 or bf16; fp16 and bf16 halve the bytes. None: as "
    "training.precision."
)
NORMS = "norms"  # in `local`: every normalization layer


class TuningSection(KindSection):
    """What every tuning's section has, and what others need to know of it."""

    kind: str = Field(description="What trains.")
    payload: Payload | None = Field(
        default=None, description="The number format on the air. None: training.precision."
    )
    local: list[str] = Field(
        default=[],
        description="Names of weights, or of running means, that stay with their client and do not travel "
        "(FedPer, Arivazhagan et al. 2019), as in a shell: `*` stands for anything, `?` for a character. "
        "`norms` stands for every normalization layer with its running means (FedBN, Li et al. 2021); "
        "`*.lora_B.*` for the B of every adapter (FedSA-LoRA, Guo et al. 2025). The server's model, which is "
        "evaluated and exported, has their initial values.",
    )

    # `module:function` of (section, the model's, the scenario's folder), without torch: raises Refused for
    # what a base model does not allow.
    verify_base: ClassVar[str | None] = None
    has_adapters: ClassVar[bool] = False  # whether what trains stands beside frozen weights
    trains_in_gangs: ClassVar[bool] = False  # whether several clients can train in one forward pass

    @property
    def keeps_norms(self) -> bool:
        """Whether normalization layers stay with their client."""
        return NORMS in self.local

    @property
    def local_patterns(self) -> list[str]:
        """What else stays with its client, by name."""
        return [pattern for pattern in self.local if pattern != NORMS]

    def named(self, text: str) -> str:
        """A caption or prompt with what was learnt under the name that it has learnt for it."""
        return text

    def spelled(self, text: str) -> str:
        """A caption of words that the base model knows, as many tokens long as the one that it is given."""
        return self.named(text)

    @property
    def chosen_parts(self) -> Sequence[str]:
        """Parts of the model that it names; none where it leaves them to the model."""
        return ()

    @property
    def named_targets(self) -> str | None:
        """The name of a set of layers that have adapters; None where it lists them, or has none."""
        return None

    @property
    def has_mixed_ranks(self) -> bool:
        """Whether clients have parts of the numbers of their own."""
        return False

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        adapters = [pattern for pattern in self.local_patterns if ".lora_B" in pattern]
        if self.keeps_norms:
            yield "li2021fedbn"
        if adapters:
            yield "guo2025selective"
        if len(self.local_patterns) > len(adapters):
            yield "arivazhagan2019federated"
