"""`augmentation`: pictures that a generator paints of labels which clients lack (GenFL, Qiang et al. 2024,
Sec. III)."""

from string import Formatter
from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Count, FilePath, NotNegative, Positive, Section

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def fillable(template: str) -> bool:
    """Whether nothing but {label} and {a} stands in a prompt's braces, without attributes, conversions or
    widths."""
    try:
        fields = [
            (name, form, conversion)
            for _, name, form, conversion in Formatter().parse(template)
            if name is not None
        ]
    except ValueError:  # a brace alone
        return False
    return all(name in ("label", "a") and not form and not conversion for name, form, conversion in fields)


class Fixed(Section):
    """The same weights in every round."""

    kind: Literal["fixed"] = "fixed"
    kappa_1: NotNegative = 0.5  # of the clients' mean; 0: AIGC-only
    kappa_2: NotNegative = 0.5  # of the augmented model; 0: FL-only
    any_sum: bool = False  # let them sum to something else than 1


class Linear(Section):
    """kappa_2 goes in a line from the first round's to the last's; kappa_1 is what it leaves of 1."""

    kind: Literal["linear"]
    first: Share
    last: Share


class HeldOut(Section):
    """kappa_2 : kappa_1 as the two models' accuracies, to a power, on real images that are held out of the
    test set (Sec. V-2)."""

    kind: Literal["held_out"]
    images: Count = 500
    power: Positive = 1.0


class Augmentation(Section):
    """At the server an augmented model trains on the pictures, as clients do on theirs, and is weighed
    against the clients' mean (Eq. 1). Elsewhere the pictures join the clients' own: sent to them
    (`server_broadcast`), or painted by them."""

    at: Literal["server", "server_broadcast", "client"] = "server"
    # a text_to_image model, as model.base; the model/ of a fedray run is one too
    generator: FilePath = "tiny-sd"
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    inference_steps: Count = 20
    guidance_scale: NotNegative = 7.0
    # Prompts to draw from, for all labels or label by label. {label}: the label's name; {a}: its article.
    templates: (
        Annotated[list[str], Field(min_length=1)] | dict[str, Annotated[list[str], Field(min_length=1)]]
    ) = ["a photo of {a} {label}"]
    # what a prompt calls a label, where its own name is ambiguous: {apple: red apple fruit}
    names: dict[str, str] = {}
    labels: Literal["uniform", "lacking"] = "uniform"  # lacking: always one of which there are fewest
    per_class: Count = 10  # pictures a label and round
    at_most: Count = 300  # a label
    batch_size: Count = 50  # pictures painted at once
    weighting: Annotated[Fixed | Linear | HeldOut, Field(discriminator="kind")] = Fixed()
    start: Literal["global", "own"] = "global"  # where the augmented model's training begins each round
    # a judge trained on real images, that says how many pictures show their label
    judge: FilePath | None = None

    def kappas(self, round: int, rounds: int) -> tuple[float, float] | None:
        """kappa_1 and kappa_2 of a round, where they are known before it."""
        weighting = self.weighting
        if isinstance(weighting, Fixed):
            return weighting.kappa_1, weighting.kappa_2
        if isinstance(weighting, Linear):
            second = weighting.first + (weighting.last - weighting.first) * (round - 1) / max(1, rounds - 1)
            return 1 - second, second
        return None

    def templates_of(self, label: str) -> list[str]:
        return self.templates if isinstance(self.templates, list) else self.templates.get(label, [])
