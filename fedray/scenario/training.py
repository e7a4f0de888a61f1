"""`training`: how long, how often, how fast."""

from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Count, Fraction, NotNegative, Positive, Section


class AdamW(Section):
    kind: Literal["adamw"]
    learning_rate: Positive
    weight_decay: NotNegative = 0.01
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: Positive = 1e-8


class Sgd(Section):
    kind: Literal["sgd"]
    learning_rate: Positive
    weight_decay: NotNegative = 0.0
    momentum: Fraction = 0.0


Optimizer = Annotated[AdamW | Sgd, Field(discriminator="kind")]


class ParameterGroup(Section):
    """Weights with an optimizer of their own."""

    patterns: Annotated[list[str], Field(min_length=1)] = Field(
        description="Names of weights, as in a shell: `*` stands for anything, `?` for a character."
    )
    optimizer: Optimizer = Field(description="Their optimizer.")


class Training(Section):
    """One turn of a client is `local_steps` batches, or `local_epochs` passes over its samples. Its optimizer
    starts afresh each turn."""

    rounds: Count
    local_steps: Count | None = None
    local_epochs: Count | None = None
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    optimizer: Optimizer
    groups: list[ParameterGroup] = Field(
        [], description="Weights with optimizers of their own; the first group that names a weight counts."
    )
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    # The longest gradient (Euclidean). auto: 1, but none in a split, where each side would clip its own part
    # alone.
    clip_norm: Positive | Literal["auto"] | None = "auto"
    gradient_checkpointing: bool = False

    @property
    def clip(self) -> float | None:
        return 1.0 if self.clip_norm == "auto" else self.clip_norm

    @property
    def part_clip(self) -> float | None:
        """Of the gradient of one side's part of a split model."""
        return None if self.clip_norm == "auto" else self.clip_norm

    def passes(self, samples: int) -> tuple[int, int]:
        """How often a client passes over how many samples in one turn. Steps are one pass in whole batches,
        which goes round the samples again where they are few."""
        if self.local_steps is not None:
            return 1, self.local_steps * self.batch_size
        assert self.local_epochs is not None
        return self.local_epochs, samples

    def trained(self, samples: int) -> int:
        """Samples that a client goes through in one turn."""
        passes, each = self.passes(samples)
        return passes * each

    def batches(self, samples: int) -> list[int]:
        """Sizes of the batches of one turn; the last of a pass may be smaller."""
        passes, each = self.passes(samples)
        whole, rest = divmod(each, self.batch_size)
        return ([self.batch_size] * whole + [rest] * (rest > 0)) * passes
