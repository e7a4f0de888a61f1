"""Who serves requests at an edge, and how good a picture is after how many steps."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field

from fedray.scenario.base import Count, NotNegative, Positive, Refused, Section
from fedray.scenario.device import ComputeDevice


def _ascending(values: list[float]) -> list[float]:
    if values[0] > values[1]:
        raise ValueError("the lower number first")
    return values


Range = Annotated[list[NotNegative], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
PositiveRange = Annotated[list[Positive], Field(min_length=2, max_length=2), AfterValidator(_ascending)]


class Exponential(Section):
    """top (1 - exp(-s / tau)) after s steps, with a top and a tau of each provider's own."""

    kind: Literal["exponential"] = Field(description="exponential: saturates with the number of steps.")
    top: Range = Field(
        default=[0.6, 1.0], description="The lowest and highest quality that a provider reaches in the end."
    )
    tau: PositiveRange = Field(
        default=[4.0, 15.0], description="The fewest and most steps that take it to 63% of that."
    )


class Curve(Section):
    """A curve that was measured, times a factor of each provider's own; straight lines between its points."""

    kind: Literal["curve"] = Field(description="curve: a measured one, by its name.")
    name: Literal["tiny_sd", "ddpm", "eat"] = Field(
        description="tiny_sd: the share of tiny-sd's garments that a judge recognises "
        "(tools/measure_quality.py). ddpm: 5.3 / FID of a DDPM on CIFAR-10, whose FID is 40.9, 15.6, 11.1, "
        "5.3 after 10, 50, 100, 1000 steps. eat: 0 below 5 steps, then .16 ln s / ln 6 - .02 up to 30, "
        "then .27, as in the code of EAT (arXiv 2507.10026); all of it divided by .27."
    )
    top: Range = Field(default=[0.6, 1.0], description="The lowest and highest factor.")


Quality = Annotated[Exponential | Curve, Discriminator("kind")]


class Drawn(Section):
    """Providers whose figures are drawn uniformly from the seed. An agent sees none of these."""

    kind: Literal["drawn"] = Field(description="drawn: providers drawn from the seed.")
    count: Count = Field(default=8, description="How many.")
    steps_per_s: PositiveRange = Field(
        default=[4.0, 20.0], description="The fewest and most denoising steps a second."
    )
    cold_start_s: Range = Field(
        default=[2.0, 5.0], description="Seconds to load a model that a provider has not cached."
    )
    price: Range = Field(
        default=[0.0, 0.004], description="The lowest and highest price of a step, in reward."
    )
    active_w: Range = Field(default=[100.0, 400.0], description="Watts while a provider works.")

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.count > MOST_PROVIDERS:
            yield Refused(".count", self.count, f"at most {MOST_PROVIDERS}")


class Provider(Section):
    """One provider."""

    device: ComputeDevice = Field(description="What it computes with.")
    models: list[Annotated[int, Field(ge=0)]] = Field(
        description="The models that it has cached, by number from 0."
    )
    cold_start_s: NotNegative = Field(
        default=3.0, description="Seconds to load a model that it has not cached."
    )
    price: NotNegative = Field(default=0.0, description="The price of a step, in reward.")


class Listed(Section):
    """Providers one by one: steps a second and joules follow from their devices."""

    kind: Literal["listed"] = Field(description="listed: providers one by one.")
    of: Annotated[list[Provider], Field(min_length=1, max_length=256)] = Field(description="The providers.")
    step_flops: Positive = Field(
        default=0.8e12,
        description="FLOPs of a denoising step of the generator, without guidance. The default is that of "
        "Stable Diffusion 1.5's U-Net at 512 x 512 pixels.",
    )

    @property
    def count(self) -> int:
        return len(self.of)


MOST_PROVIDERS = 256
Providers = Annotated[Drawn | Listed, Discriminator("kind")]


class Popularity(Section):
    """How often each model is asked for: the k-th most popular one in proportion to k^-alpha (Zipf)."""

    kind: Literal["zipf"] = Field(description="zipf: in proportion to rank^-alpha.")
    alpha: NotNegative = Field(default=0.8, description="The exponent. 0: all equally often.")
    client_alpha: Positive | None = Field(
        default=0.3,
        description="The concentration: each client's shares are drawn from Dir(client_alpha models p), "
        "around these shares p. The smaller, the fewer models a client asks for. None: all clients alike.",
    )
    own: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="The share of a client's requests that name its own model: that with the client's number "
        "(modulo models). The others are as said above. Other users have other models of their own.",
    )
