"""`training.schedule`: how the learning rate changes over rounds, or within a local update.

A rate follows from the round and the step alone, so that no actor, resume or order of clients changes it.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from fedray.scenario.base import Count, Fraction, NotNegative, Positive, Refused, Section


def _whole_or_share(value: float) -> float:
    if value >= 1 and value != int(value):
        raise ValueError("a whole number, or a share below 1")
    return value


class RateSchedule(Section):
    """What every schedule's section has. A schedule says by what the learning rate is multiplied at each of
    its places, which are rounds, or the steps of one local update."""

    kind: str = Field(description="How the rate changes after the warm-up.")
    over: Literal["rounds", "steps"] = Field(
        default="rounds",
        description="rounds: one rate for all steps of a round; of a client that an asynchronous mode lets "
        "begin with an older model, the rate of the round that follows that model. steps: every local update "
        "goes through the whole schedule.",
    )
    warmup: Annotated[NotNegative, AfterValidator(_whole_or_share)] = Field(
        default=0,
        description="Over how many rounds or steps the rate rises at first; below 1: over which share.",
    )
    warmup_from: Fraction | None = Field(
        default=None,
        description="The share of the learning rate at which a warm-up begins. None: 0 as in "
        "transformers, but 1 / (warmup + 1) over rounds that are counted from 0, since a round at rate 0 "
        "learns nothing.",
    )
    rounds: Count | None = Field(
        default=None,
        description="The schedule's length where it is over rounds: a run that is to go on later "
        "(--resume RUN --rounds N) names all its rounds here. None: training.rounds.",
    )
    first: Literal[0, 1] = Field(
        default=0,
        description="From what places are counted. 0: the first round has the full rate and the one after "
        "the last the final one, as in torch, transformers and OpenFedLLM. 1: the last round has the final "
        "rate, as in FlowerTune.",
    )

    depends_on_length: ClassVar[bool] = True  # whether the rates of earlier places follow from how many come

    def decayed(self, place: int, length: int, learning_rate: float) -> float:
        """The factor on the learning rate.

        Args:
            place: after the warm-up, from 0.
            length: how many places there are after the warm-up, at least 1.
            learning_rate: the optimizer's.
        """
        raise NotImplementedError

    def factor(self, place: int, length: int, learning_rate: float) -> float:
        """The factor on the learning rate.

        Args:
            place: a round's or a step's number, from 0.
            length: of the schedule, in rounds or steps.
            learning_rate: the optimizer's.
        """
        place += self.first
        warmup = self.warmup_places(length)
        if place >= warmup:
            # a kind of `personal` may take more steps than batches
            return self.decayed(min(place, length) - warmup, max(1, length - warmup), learning_rate)
        begin = self.warmup_from
        if begin is None:
            begin = 0.0 if self.over == "steps" or self.first else 1 / (warmup + 1)
        return begin + (1 - begin) * place / warmup

    def warmup_places(self, length: int) -> int:
        """How many places of so many the warm-up has."""
        return int(self.warmup) if self.warmup >= 1 else math.ceil(length * self.warmup)

    def counts(self, warmup: int) -> Iterator[tuple[str, int]]:
        """The keys that name a place, with that place, behind so many places of warm-up."""
        if warmup:
            yield ".warmup", warmup

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        training = scenario.training
        length: int | None = self.rounds or training.rounds
        if self.over == "steps":
            length = training.local_steps
            if self.rounds is not None:
                yield Refused(".rounds", f"{self.rounds} over steps", "none: each local update ends it")
        elif length is not None and length < training.rounds:
            expected = f"at least training.rounds, {training.rounds}: past its end a schedule has no rate"
            yield Refused(".rounds", length, expected)
            return
        if length is None:
            for key, n in self.counts(int(self.warmup)):
                expected = "training.local_steps, or a share below 1: clients' epochs have unequal steps"
                yield Refused(key, f"{n} steps of local epochs", expected)
            return
        late = [(key, n) for key, n in self.counts(self.warmup_places(length)) if n >= length]
        for key, n in late:
            yield Refused(key, n, f"fewer than the schedule's {length} {self.over}")
        if self.over == "rounds" and not late:
            yield from self._idle(training, length)

    def _idle(self, training: Any, length: int) -> Iterator[Refused]:
        """Rounds at rate 0: the first or the last."""
        for key, number in ((".warmup_from", 1), (".final", training.rounds)):
            if self.factor(number - 1, length, training.optimizer.learning_rate) == 0:
                yield Refused(key, f"a learning rate of 0 in round {number}", "more than 0")
                return


class Falling(RateSchedule):
    """What every schedule with a final rate has."""

    final: NotNegative = Field(
        default=0.0,
        description="The rate at its end. Weights with an optimizer of their own (training.groups) end at "
        "the same share of theirs.",
    )

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        rate = scenario.training.optimizer.learning_rate
        if self.final > rate:
            yield Refused(".final", self.final, f"at most training.optimizer.learning_rate, {rate}")
        else:
            yield from super().conflicts(scenario)

    def decayed(self, place: int, length: int, learning_rate: float) -> float:
        end = self.final / learning_rate
        return end + (1 - end) * self.remaining(place / length)

    def remaining(self, progress: float) -> float:
        """What is left of the way to the final rate, 1 to 0, at a share `progress` of the places."""
        raise NotImplementedError


class ConstantRate(RateSchedule):
    """The learning rate itself, after the warm-up."""

    kind: Literal["constant"] = Field(description="constant: the learning rate, after the warm-up.")

    depends_on_length: ClassVar[bool] = False

    def decayed(self, place: int, length: int, learning_rate: float) -> float:
        return 1.0


class LinearRate(Falling):
    """Down in a straight line."""

    kind: Literal["linear"] = Field(description="linear: down in a straight line.")

    def remaining(self, progress: float) -> float:
        return 1 - progress


class CosineRate(Falling):
    """Down half a period of a cosine (Loshchilov and Hutter 2017, Eq. 5)."""

    kind: Literal["cosine"] = Field(description="cosine: down half a period of a cosine.")

    cites: ClassVar[tuple[str, ...]] = ("loshchilov2017sgdr",)

    def remaining(self, progress: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * progress))


class CosineRestarts(Falling):
    """Down a cosine several times, each time from the full rate (Loshchilov and Hutter 2017, Sec. 3)."""

    kind: Literal["cosine_with_restarts"] = Field(
        description="cosine_with_restarts: down a cosine `cycles` times, each time from the full rate."
    )
    cycles: Count = Field(default=1, description="How many times.")

    cites: ClassVar[tuple[str, ...]] = ("loshchilov2017sgdr",)

    def remaining(self, progress: float) -> float:
        within = self.cycles * progress % 1.0 if progress < 1 else 1.0
        return 0.5 * (1 + math.cos(math.pi * within))


class PolynomialRate(Falling):
    """Down a power of what is left."""

    kind: Literal["polynomial"] = Field(description="polynomial: down a power of the places left.")
    power: Positive = Field(default=1.0, description="The power; 1 is a straight line.")

    def remaining(self, progress: float) -> float:
        return float((1 - progress) ** self.power)


class StepRate(RateSchedule):
    """Down by a factor at a time, as torch.optim.lr_scheduler's StepLR and MultiStepLR."""

    kind: Literal["step"] = Field(description="step: down by the factor `gamma` at a time.")
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(default=0.1, description="The factor.")
    step_size: Count | None = Field(
        default=None,
        description="Down after every so many rounds or steps behind the warm-up. None: at milestones.",
    )
    milestones: Annotated[list[Count], Field(min_length=1)] | None = Field(
        default=None,
        description="Down after so many rounds or steps behind the warm-up, in rising order. None: every "
        "step_size.",
    )

    depends_on_length: ClassVar[bool] = False

    def counts(self, warmup: int) -> Iterator[tuple[str, int]]:
        yield from super().counts(warmup)
        if self.step_size is not None:
            yield ".step_size", self.step_size + warmup
        yield from ((f".milestones.{i}", n + warmup) for i, n in enumerate(self.milestones or []))

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if (self.step_size is None) == (self.milestones is None):
            got = "neither" if self.step_size is None else "both"
            yield Refused(".step_size", f"{got} of step_size and milestones", "one of them")
        elif self.milestones is not None and self.milestones != sorted(set(self.milestones)):
            yield Refused(".milestones", self.milestones, "numbers that rise")
        else:
            yield from super().conflicts(scenario)

    def decayed(self, place: int, length: int, learning_rate: float) -> float:
        if self.step_size is not None:
            return float(self.gamma ** (place // self.step_size))
        return float(self.gamma ** bisect_right(self.milestones or [], place))


Schedule = Annotated[
    ConstantRate | LinearRate | CosineRate | CosineRestarts | PolynomialRate | StepRate,
    Field(discriminator="kind"),
]
