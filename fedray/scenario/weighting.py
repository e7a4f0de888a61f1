"""`augmentation.weighting`: how the clients' mean and the augmented model are weighted (GenFL, Qiang et al.
2024, Eq. 1 and Sec. V-2)."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Count, NotNegative, Positive, Refused
from fedray.scenario.kinds import KindSection, OpenKind

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class WeightingSection(KindSection):
    """How the clients' mean and the augmented model are weighted (Eq. 1)."""

    kind: str = Field(description="The weighting.")

    depends_on_last_round: ClassVar[bool] = False  # whether weights follow from how many rounds there are
    needs_test_set: ClassVar[bool] = False
    held_out_images: ClassVar[int] = 0  # of the test set, that nothing else is measured on
    keeps_kappa: ClassVar[bool] = False  # whether a round's weights follow from those of the round before

    def kappas(self, round_number: int, rounds: int) -> tuple[float, float] | None:
        """kappa_1 and kappa_2 of a round, where they are known before it."""
        return None

    def evaluated_models(self, round_number: int) -> int:
        """How many models the server evaluates on the held-out images in a round, to weigh them."""
        return 0

    @property
    def paints(self) -> bool:
        """Whether there is any use in the augmented model."""
        return True


class Scheduled(WeightingSection):
    """Weights that are known before the first round."""

    implementation: ClassVar[str] = "fedray.augmentation.weighting:Scheduled"


class Fixed(Scheduled):
    """The same weights in every round."""

    kind: Literal["fixed"] = Field(default="fixed", description="fixed: the same weights in every round.")
    kappa_1: NotNegative = Field(
        default=0.5, description="The weight of the clients' mean (Eq. 1); 0: train on generated images only."
    )
    kappa_2: NotNegative = Field(
        default=0.5, description="The weight of the augmented model (Eq. 1); 0: federated learning only."
    )
    any_sum: bool = Field(default=False, description="Allow weights that do not sum to 1.")

    def kappas(self, round_number: int, rounds: int) -> tuple[float, float] | None:
        return self.kappa_1, self.kappa_2

    @property
    def paints(self) -> bool:
        return self.kappa_2 != 0

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if not self.any_sum and abs(self.kappa_1 + self.kappa_2 - 1) > 1e-9:
            got = f"kappa_1 {self.kappa_1:g} and kappa_2 {self.kappa_2:g}"
            yield Refused("augmentation.weighting", got, "weights that sum to 1, or any_sum: true")


class Linear(Scheduled):
    """kappa_2 changes linearly from the first round to the last; kappa_1 is 1 - kappa_2."""

    kind: Literal["linear"] = Field(description="linear: weights that change linearly over the rounds.")
    first: Share = Field(description="kappa_2 in the first round.")
    last: Share = Field(description="kappa_2 in the last round.")

    depends_on_last_round: ClassVar[bool] = True

    def kappas(self, round_number: int, rounds: int) -> tuple[float, float] | None:
        part = (round_number - 1) / max(1, rounds - 1)
        second = self.first + (self.last - self.first) * part
        return 1 - second, second


class OnHeldOut(WeightingSection):
    """Weights that follow from what models do on real images that the server holds out of the test set. The
    server's operations for that are counted."""

    images: Count = Field(default=500, description="How many images are held out of the test set for it.")

    needs_test_set: ClassVar[bool] = True

    @property
    def held_out_images(self) -> int:  # type: ignore[override]
        return self.images


class HeldOut(OnHeldOut):
    """kappa_2 : kappa_1 is the ratio of the two models' accuracies, raised to a power, on real images that
    are held out of the test set (Sec. V-2)."""

    kind: Literal["held_out"] = Field(description="held_out: weights by accuracy on held-out images.")
    power: Positive = Field(default=1.0, description="The power to which the ratio of accuracies is raised.")

    implementation: ClassVar[str] = "fedray.augmentation.weighting:HeldOut"

    def evaluated_models(self, round_number: int) -> int:
        return 2


class LineSearch(OnHeldOut):
    """kappa_2 is searched for on a line: mixes (1 - kappa_2) clients' mean + kappa_2 augmented model, with
    kappa_2 from 0 to 1 in equal steps, are evaluated on held-out images, and the best is taken. The step to
    it is smoothed, and compute has a price (Sec. V-2: weights that are adjusted by performance, and consider
    what each model needs of computational resources)."""

    kind: Literal["line_search"] = Field(
        description="line_search: the best of several mixes on held-out images."
    )
    mixes: Annotated[int, Field(ge=2, le=1001)] = Field(
        default=11, description="How many values of kappa_2 are tried, from 0 to 1 in equal steps."
    )
    criterion: Literal["loss", "accuracy"] = Field(
        default="loss",
        description="What makes a mix the best on the held-out images. loss: the least cross entropy (nats). "
        "accuracy: the highest accuracy; of equals the least kappa_2.",
    )
    smoothing: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = Field(
        default=0.0,
        description="s in kappa_2 = s * the round before's + (1 - s) * the best mix's; the first round's is "
        "the best mix's. 0: without smoothing.",
    )
    tflop_price: NotNegative = Field(
        default=0.0,
        description="What the augmented model's operations must be worth: kappa_2 times the teraFLOP that "
        "the server spends in the round on generating images and training on them, times this price, is "
        "added to a mix's loss (or taken from its accuracy). Per teraFLOP.",
    )
    every: Count = Field(
        default=1, description="Search in every so-many-th round, from the first; between, kappa_2 stays."
    )

    implementation: ClassVar[str] = "fedray.augmentation.weighting:LineSearch"
    keeps_kappa: ClassVar[bool] = True

    def searches(self, round_number: int) -> bool:
        """Whether mixes are evaluated in a round, from 1."""
        return (round_number - 1) % self.every == 0

    def evaluated_models(self, round_number: int) -> int:
        return self.mixes if self.searches(round_number) else 0


Weighting = Annotated[
    Fixed | Linear | HeldOut | LineSearch,
    Discriminator("kind"),
    OpenKind("weighting"),
]
