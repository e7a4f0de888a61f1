"""`training`: how long, how often, how fast."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from fedray.scenario.base import Count, Positive, Refused, Section
from fedray.scenario.learning_rate import Schedule
from fedray.scenario.optimizer import Optimizer


class ParameterGroup(Section):
    """Weights with an optimizer of their own."""

    patterns: Annotated[list[str], Field(min_length=1)] = Field(
        description="Names of weights, as in a shell: `*` stands for anything, `?` for a character."
    )
    optimizer: Optimizer = Field(description="Their optimizer.")


class Training(Section):
    """A client's local update is `local_steps` steps, or `local_epochs` passes over its samples: one of the
    two is given. Its optimizer starts afresh each time."""

    rounds: Count = Field(description="How many rounds the run has.")
    local_steps: Count | None = Field(
        default=None,
        description="Steps per local update, each of a batch (of `accumulate` batches); a client with few "
        "samples goes through them again. None: local_epochs says how long.",
    )
    local_epochs: Count | None = Field(
        default=None,
        description="Passes over the client's samples per local update. None: local_steps says how long.",
    )
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = Field(description="Samples per batch.")
    accumulate: Count = Field(
        default=1,
        description="Batches whose gradients make one step: as one batch of so many times the samples, in "
        "the memory of one. A mean over tokens is over all of the step's tokens; what normalises over a "
        "batch sees one at a time.",
    )
    optimizer: Optimizer = Field(description="The client's optimizer.")
    schedule: Schedule | None = Field(
        default=None,
        description="How the learning rate changes over rounds, or within a local update. None: it does not.",
    )
    groups: list[ParameterGroup] = Field(
        default=[],
        description="Weights with optimizers of their own; the first group that names a weight counts.",
    )
    precision: Literal["fp32", "fp16", "bf16"] = Field(
        default="fp32",
        description="The number format of training. fp32: 32 bits. fp16: 16 bits, with fp32 master weights "
        "and a loss scale. bf16: 16 bits with fp32's range.",
    )
    clip_norm: Positive | Literal["auto"] | None = Field(
        default="auto",
        description="The largest Euclidean norm of a gradient, beyond which it is scaled down. auto: 1, but "
        "no limit in a split, where each side could clip only its own part. None: no limit.",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations again in the backward pass: slower, with less memory."
    )

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.gradient_checkpointing:
            yield "chen2016training"
        if self.precision == "fp16":
            yield "micikevicius2018mixed"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if (self.local_steps is None) == (self.local_epochs is None):
            got = "neither" if self.local_steps is None else "both"
            yield Refused("training", f"{got} of local_steps and local_epochs", "one of them")
        if self.accumulate > 1 and scenario.topology.splits_model:
            expected = "1, and topology.micro_batches, in which a split passes a batch of all their samples"
            yield Refused("training.accumulate", f"{self.accumulate} in a split", expected)
        if self.accumulate > 1 and scenario.privacy is not None and scenario.privacy.in_local_update:
            expected = "1 and a larger batch_size: each sample's gradient is taken by itself"
            got = f"{self.accumulate} with privacy.kind {scenario.privacy.kind}"
            yield Refused("training.accumulate", got, expected)

    @property
    def clip(self) -> float | None:
        return 1.0 if self.clip_norm == "auto" else self.clip_norm

    @property
    def part_clip(self) -> float | None:
        """Of the gradient of one side's part of a split model."""
        return None if self.clip_norm == "auto" else self.clip_norm

    def rate_factor(self, round_number: int, step: int, steps: int) -> float:
        """By what the learning rates of all optimizers are multiplied in a step.

        Args:
            round_number: from 1; stand-ins of evaluations train in round 0, at the first round's rate.
            step: of the local update, from 0.
            steps: how many it has.
        """
        schedule = self.schedule
        if schedule is None:
            return 1.0
        rate = self.optimizer.learning_rate
        if schedule.over == "steps":
            return schedule.factor(step, steps, rate)
        return schedule.factor(max(0, round_number - 1), schedule.rounds or self.rounds, rate)

    def scheduled(self, round_number: int) -> dict[str, float]:
        """A round's learning rate, as a metric of it, where a schedule is over rounds."""
        if self.schedule is None or self.schedule.over == "steps":
            return {}
        return {"learning_rate": self.optimizer.learning_rate * self.rate_factor(round_number, 0, 1)}

    @property
    def fixed_rounds(self) -> Refused | None:
        """Why a run that has begun cannot go on beyond its last round, if so."""
        schedule = self.schedule
        if schedule is None or schedule.over == "steps" or schedule.rounds or not schedule.depends_on_length:
            return None
        got = f"{schedule.kind} with --rounds, of which the rates of earlier rounds follow"
        expected = "training.schedule.rounds from the beginning: how many rounds there may be"
        return Refused("training.schedule", got, expected)

    @property
    def step_samples(self) -> int:
        """Samples of a step."""
        return self.batch_size * self.accumulate

    def passes(self, samples: int) -> tuple[int, int]:
        """How often a client passes over how many samples in one turn. Steps are one pass in whole batches,
        which goes round the samples again where they are few."""
        if self.local_steps is not None:
            return 1, self.local_steps * self.step_samples
        assert self.local_epochs is not None
        return self.local_epochs, samples

    def trained(self, samples: int) -> int:
        """Samples that a client goes through in one turn."""
        passes, each = self.passes(samples)
        return passes * each

    def batches(self, samples: int) -> list[int]:
        """Samples of each step of one turn; the last of a pass may have fewer."""
        passes, each = self.passes(samples)
        whole, rest = divmod(each, self.step_samples)
        return ([self.step_samples] * whole + [rest] * (rest > 0)) * passes
