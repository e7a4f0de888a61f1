"""`model: text_to_image`: a latent diffusion model that is fine-tuned on captioned images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.lazy import resolve
from fedray.scenario.base import MOST, FilePath, Positive, Refused
from fedray.scenario.control import PART, Control
from fedray.scenario.control import conflicts as control_conflicts
from fedray.scenario.model_section import Generates, ModelSection, Resolution
from fedray.scenario.prior import Prior

# Papers of base models, by what the names of their repositories on the hub contain.
BASE_CITES = {
    "stable-diffusion-xl": "podell2024sdxl",
    "stable-diffusion-3": "esser2024scaling",
    "flux.1": "labs2024flux",
}


class TextToImage(ModelSection):
    """A Stable Diffusion or Flux.1 that is fine-tuned on captioned images. Its parts are those of its base:
    unet or transformer, text_encoder, and where there are two CLIPs text_encoder_2; with `control` it is
    controlnet alone that trains."""

    kind: Literal["text_to_image"] = Field(
        description="text_to_image: fine-tune a Stable Diffusion (1.x, 2.x, XL, 3.x) or Flux.1."
    )
    base: FilePath = Field(
        description="The model to begin with: one that ships with fedray (tiny-sd, tiny-sd2), a folder in "
        "diffusers' layout, or owner/name on the Hugging Face hub."
    )
    resolution: Resolution | None = Field(
        default=None, description="Width and height of images in pixels. None: the base model's own."
    )
    min_snr_gamma: Positive | None = Field(
        default=None,
        description="Weight the loss by min(snr, gamma) / snr, snr being a timestep's signal-to-noise ratio "
        "(Hang et al. 2023, who take 5). None: all timesteps the same, as it must be for Stable Diffusion 3 "
        "and Flux.",
    )
    min_timestep: Annotated[int, Field(ge=0, le=MOST)] = Field(
        default=0,
        description="The first timestep that is drawn in training, counted from the image to noise; all from "
        "it on are as likely. In a split, latents that a client sends up then hold at least its noise (for "
        "this reason Yao 2024 has a policy of its own). 0: all timesteps.",
    )
    caption_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="The share of captions that are left empty in training, for classifier-free guidance.",
    )
    control: Control | None = Field(
        default=None,
        description="A ControlNet beside the base, which trains in its stead. None: the base without one.",
    )
    prior: Prior | None = Field(
        default=None,
        description="Keeps a class as the base has it while one thing of that class is learnt (DreamBooth, "
        "Ruiz et al. 2023). None: only the clients' samples count.",
    )

    implementation: ClassVar[str] = "fedray.learners.text_to_image:TextToImage"
    hub_task: ClassVar[str | None] = "text-to-image"
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_text_to_image"
    base_source: ClassVar[str | None] = "fedray.learners.bases:base_source"
    verify_files: ClassVar[str | None] = "fedray.learners.bases:verify_base"
    verify_sampling: ClassVar[str | None] = "fedray.learners.bases:verify_sampling"
    built_for_data: ClassVar[bool] = False
    generates: ClassVar[Generates | None] = "images"
    takes_prompts: ClassVar[bool] = True
    takes_negative_prompt: ClassVar[bool] = True
    evaluates_on_test_set: ClassVar[bool] = False
    reads_captions: ClassVar[bool] = True
    takes_adapters: ClassVar[bool] = True
    adapter_targets: ClassVar[tuple[str, ...] | None] = ("attention", "kohya")
    trains_in_gangs: ClassVar[bool] = True
    has_frozen_base: ClassVar[bool] = True
    takes_new_tokens: ClassVar[bool] = True
    resembles_references: ClassVar[bool] = True
    denoises: ClassVar[bool] = True
    reads_sites: ClassVar[bool] = True
    cites: ClassVar[tuple[str, ...]] = ("rombach2022high", "ho2022classifier")

    @property
    def takes_buckets(self) -> bool:  # type: ignore[override]
        """Not where other pictures, which are squares, go through the network beside them."""
        return self.control is None and self.prior is None

    @property
    def shows_samples(self) -> bool:
        """Also where no prompt is named: samples then follow a ControlNet's examples."""
        return super().shows_samples or bool(self.control and self.control.examples)

    def implemented_by(self) -> str:
        return "fedray.learners.controlled:Controlled" if self.control else self.implementation

    def parts_in(self, folder: Path) -> tuple[str, ...] | None:
        """The base's, whose folder names its family; with a ControlNet that alone."""
        if self.control is not None:
            return (PART,)
        parts: tuple[str, ...] | None = resolve("fedray.learners.bases:tunable_parts")(self.base, folder)
        return parts

    @property
    def condition_column(self) -> str | None:
        return None if self.control is None else self.control.column

    @property
    def takes_condition(self) -> bool:
        return self.control is not None

    @property
    def needs_condition(self) -> bool:
        return self.control is not None and self.control.examples is None

    @property
    def preserved_prompt(self) -> str | None:
        return None if self.prior is None else self.prior.prompt

    @property
    def class_images_from_server(self) -> int:
        if self.prior is None or self.prior.at == "client":
            return 0
        return self.prior.images

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.base in ("tiny-sd", "tiny-sd2"):
            yield from ("song2021denoising", "xiao2017fashion")
        yield from (paper for name, paper in BASE_CITES.items() if name in self.base.lower())
        if self.min_snr_gamma is not None:
            yield "hang2023efficient"
        if self.min_timestep:
            yield "yao2024enhancing"

    def unaugmented(self, section: Any) -> str | None:
        if section.mirrors:
            return None
        return (
            "flip alone: an image is encoded once and kept, and other changes of pixels are none of latents"
        )

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        yield from control_conflicts(self.control, scenario)
        if self.prior is not None:
            yield from self.prior.conflicts(scenario)
        if self.prior is not None and self.control is not None:
            yield Refused(".prior", "one beside model.control", "one of them: class images have no condition")
        reference = scenario.evaluation.reference
        if reference is not None and self.resolution not in (None, 32):
            got = f"{reference.judge} at {self.resolution} pixels"
            expected = "model.resolution 32, which judges are trained on"
            yield Refused("evaluation.reference.judge", got, expected)
