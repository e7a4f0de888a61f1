"""`model: vae`: a variational autoencoder of images."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import MOST, NotNegative, Positive, Refused
from fedray.scenario.model_section import MOST_WIDE, Generates, ModelSection, Resolution


class Vae(ModelSection):
    """A convolutional variational autoencoder (Kingma and Welling 2014) with weights drawn from the seed. Its
    encoder gives a diagonal Gaussian of the latent vector, its decoder a distribution of each pixel. What it
    minimises is in nats an image, summed over pixels and latent numbers, so gradients are long: set
    training.clip_norm to null. Its parts are encoder and decoder."""

    kind: Literal["vae"] = Field(description="vae: a variational autoencoder.")
    latent: Annotated[int, Field(ge=1, le=MOST_WIDE)] = Field(
        default=16, description="Numbers of the latent vector."
    )
    channels: Annotated[
        list[Annotated[int, Field(ge=1, le=MOST_WIDE)]], Field(min_length=1, max_length=12)
    ] = Field(
        default=[32, 64],
        description="Channels of the encoder's convolutions, each of which halves the resolution. The "
        "decoder has the same, the other way round.",
    )
    likelihood: Literal["bernoulli", "gaussian"] = Field(
        default="bernoulli",
        description="The distribution of a pixel around the decoder's mean. bernoulli: of black and white "
        "pixels; a grey one is the probability of white. gaussian: of standard deviation `std`.",
    )
    std: Positive | None = Field(
        default=None,
        description="The standard deviation of a pixel for gaussian, where black is 0 and white is 1. None: "
        "0.1.",
    )
    beta: NotNegative = Field(
        default=1.0,
        description="The weight of the KL divergence (beta-VAE, Higgins et al. 2017); 1 is the evidence "
        "lower bound itself.",
    )
    warmup_rounds: Annotated[int, Field(ge=0, le=MOST)] = Field(
        default=0,
        description="The weight of the KL divergence is 0 in the first round and rises linearly, to reach "
        "beta after so many rounds (Sonderby et al. 2016, there over epochs). 0: it is beta from the first "
        "round on.",
    )
    free_bits: NotNegative = Field(
        default=0.0,
        description="Nats of KL divergence that each latent number has for free: less of an image counts as "
        "this much (Kingma et al. 2016, there of a batch's mean). 0: none.",
    )
    resolution: Resolution | None = Field(
        default=None, description="Width and height of images in pixels. None: the data's own."
    )

    implementation: ClassVar[str] = "fedray.learners.vae:Vae"
    hub_task: ClassVar[str | None] = "unconditional-image-generation"
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_vae"
    tunable_parts: ClassVar[tuple[str, ...] | None] = ("encoder", "decoder")
    generates: ClassVar[Generates | None] = "images"
    checkpoints_gradients: ClassVar[bool] = False
    cites: ClassVar[tuple[str, ...]] = ("kingma2014auto", "burda2016importance")

    @property
    def std_or_default(self) -> float:
        return self.std or 0.1

    def kl_weight(self, round_number: int) -> float:
        """The weight of the KL divergence in a round, counted from 1."""
        if not self.warmup_rounds:
            return self.beta
        return self.beta * min(1.0, (round_number - 1) / self.warmup_rounds)

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.beta != 1:
            yield "higgins2017beta"
        if self.warmup_rounds:
            yield "sonderby2016ladder"
        if self.free_bits:
            yield "kingma2016improved"

    def cited_with(self, topology: Any) -> Iterator[str]:
        return iter(())

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if self.std is not None and self.likelihood != "gaussian":
            yield Refused(".std", self.std, f"none for {self.likelihood}, or likelihood: gaussian")
        if self.warmup_rounds >= scenario.training.rounds:
            expected = f"less than training.rounds, {scenario.training.rounds}, so that beta is reached"
            yield Refused(".warmup_rounds", self.warmup_rounds, expected)
