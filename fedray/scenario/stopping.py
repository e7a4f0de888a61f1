"""`evaluation.early_stopping` and `evaluation.best`: when a run ends before its last round, and the model of
which round it exports."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fedray.scenario.base import Count, NotNegative, Refused, Section

# words of metrics' names that say which way is better
LARGER = {
    "accuracy",
    "auc",
    "f1",
    "hit",
    "precision",
    "psnr",
    "recall",
    "recognised",
    "reward",
    "score",
    "ssim",
}
SMALLER = {"distance", "elbo", "error", "fid", "kid", "kl", "loss", "perplexity"}


class Watched(Section):
    """A metric of the global model's evaluations."""

    metric: Annotated[str, Field(pattern=r"^eval_[a-zA-Z0-9_]+$")] = Field(
        description="Its name in metrics.jsonl, which begins with eval_, such as eval_loss."
    )
    mode: Literal["auto", "min", "max"] = Field(
        default="auto",
        description="min: less is better. max: more is. auto: as its name says, such as less of a loss and "
        "more of an accuracy.",
    )

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is, 0 where nobody has said."""
        if self.mode != "auto":
            return 1 if self.mode == "max" else -1
        words = set(self.metric.split("_"))
        if bool(words & LARGER) == bool(words & SMALLER):
            return 0
        return 1 if words & LARGER else -1

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if not self.sign:
            yield Refused(".mode", f"auto for {self.metric}, whose name does not say", "min or max")
        if not scenario.has_evaluation and not scenario.tested_clients:
            expected = "one, such as a test set, evaluation.denoising or evaluation.measures"
            yield Refused(".metric", f"{self.metric} of a run that evaluates nothing", expected)


class EarlyStopping(Watched):
    """The run ends after the round whose evaluation is the last of `patience` in a row that have not become
    better, though it has more rounds."""

    patience: Count = Field(default=3, description="How many evaluations in a row.")
    min_delta: NotNegative = Field(default=0.0, description="By more than this a better one has to differ.")

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        every = scenario.evaluation.every
        if every is None:
            expected = "evaluation.every: how many rounds lie between evaluations"
            yield Refused("evaluation.early_stopping", "one without evaluation.every", expected)
        elif every * (self.patience + 1) >= scenario.training.rounds:
            expected = f"one that can end before training.rounds, {scenario.training.rounds}"
            got = f"{self.patience}, with an evaluation every {every} rounds"
            yield Refused(".patience", got, expected)


class Best(Watched):
    """The best model of all evaluated rounds is kept (`checkpoints/best`), and is the one that is
    exported."""


def _named(value: Any) -> Any:
    return {"metric": value} if isinstance(value, str) else value


BestByName = Annotated[Best, BeforeValidator(_named, json_schema_input_type=Best | str)]
