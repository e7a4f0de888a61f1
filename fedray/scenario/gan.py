"""`model`: a generative adversarial network."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Fraction, Refused
from fedray.scenario.model_section import MOST_WIDE, Generates, ModelSection, Resolution

PARTS = ("generator", "discriminator")


class Gan(ModelSection):
    """A generator and a discriminator (Goodfellow et al. 2014) of convolutions as in DCGAN (Radford et al.
    2016), with weights drawn from the seed. Both take a step at once, from one batch of real images and as
    many generated ones. They are its parts: generator, discriminator."""

    kind: Literal["gan"] = Field(description="gan: a generator and a discriminator.")
    conditional: bool = Field(
        default=False,
        description="Whether images follow a label. The generator is given it beside its noise, the "
        "discriminator judges whether an image fits it (Miyato and Koyama 2018); generated images have the "
        "labels of the batch's real ones.",
    )
    loss: Literal["nonsaturating", "hinge"] = Field(
        default="nonsaturating",
        description="nonsaturating: log D(x) and log(1 - D(G(z))) for the discriminator, log D(G(z)) for the "
        "generator (Goodfellow et al. 2014). hinge: max(0, 1 - D(x)) + max(0, 1 + D(G(z))), and -D(G(z)) "
        "(Lim and Ye 2017).",
    )
    latent: Annotated[int, Field(ge=1, le=MOST_WIDE)] = Field(
        default=64, description="Numbers of noise per image, drawn from a standard normal distribution."
    )
    width: Annotated[int, Field(ge=8, le=MOST_WIDE, multiple_of=8)] = Field(
        default=32,
        description="Channels at half of the images' size, a multiple of 8; at a quarter there are twice as "
        "many, in both networks.",
    )
    norm: Literal["batch", "group", "none"] = Field(
        default="batch",
        description="The generator's normalisation layers. batch: BatchNorm, whose running means travel with "
        "the weights. group: GroupNorm of groups of 8 channels, which does not average over a batch. "
        "none: no such layers.",
    )
    spectral_norm: bool = Field(
        default=False,
        description="Whether each weight matrix of the discriminator is divided by its largest singular "
        "value (Miyato et al. 2018).",
    )
    resolution: Resolution | None = Field(
        default=None,
        description="Width and height of images in pixels, a multiple of 4. None: the data's own.",
    )
    ema_decay: Fraction | None = Field(
        default=None,
        description="Keep an exponential moving average of the global model over rounds at the server, and "
        "evaluate and export that. Its decay rises to this value as (1 + t) / (10 + t) after t rounds. "
        "None: no average.",
    )

    implementation: ClassVar[str] = "fedray.learners.gan:Gan"
    hub_task: ClassVar[str | None] = "unconditional-image-generation"
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_gan"
    tunable_parts: ClassVar[tuple[str, ...] | None] = PARTS
    generates: ClassVar[Generates | None] = "images"
    checkpoints_gradients: ClassVar[bool] = False

    @property
    def takes_prompts(self) -> bool:  # type: ignore[override]
        return self.conditional

    @property
    def shows_samples(self) -> bool:
        return True

    @property
    def normalizes_batches(self) -> bool:
        return self.norm == "batch"

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        yield "goodfellow2014generative"
        yield "radford2016unsupervised"
        if self.conditional:
            yield "miyato2018cgans"
        if self.loss == "hinge":
            yield "lim2017geometric"
        if self.spectral_norm:
            yield "miyato2018spectral"
        yield from {"batch": ("ioffe2015batch",), "group": ("wu2018group",), "none": ()}[self.norm]

    def cited_with(self, topology: Any) -> Iterator[str]:
        if topology.plans_by_client:
            yield "rasouli2020fedgan"
        if topology.splits_model:
            yield "hardy2019mdgan"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        chosen = scenario.tuning.chosen_parts
        if chosen and set(chosen) != set(PARTS):
            expected = (
                f"[{', '.join(PARTS)}], which both have to learn; tuning.local keeps one of them at home, as"
                ' ["discriminator.*"]'
            )
            yield Refused("tuning.parts", f"[{', '.join(chosen)}]", expected)
        if self.resolution is not None and self.resolution % 4:
            yield Refused(".resolution", self.resolution, "a multiple of 4")
        if scenario.evaluation.leakage is not None:
            expected = "none: what a client sends up is noise, and gradients of generated images"
            yield Refused("evaluation.leakage", "one for a gan", expected)
        if getattr(scenario.topology, "defence", None) is not None:
            expected = "none: what a client sends up is noise, and gradients of generated images"
            yield Refused("topology.defence", "one for a gan", expected)
