"""`model: text_to_image`: a latent diffusion model that is fine-tuned on captioned images."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import FilePath, Positive, Refused
from fedray.scenario.control import Control
from fedray.scenario.control import conflicts as control_conflicts
from fedray.scenario.model_section import Generates, ModelSection, Resolution
from fedray.scenario.prior import Prior


class TextToImage(ModelSection):
    """A Stable Diffusion that is fine-tuned on captioned images."""

    kind: Literal["text_to_image"] = Field(description="text_to_image: fine-tune a Stable Diffusion.")
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
        "(Hang et al. 2023, who take 5). None: all timesteps the same.",
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
    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_text_to_image"
    verify_files: ClassVar[str | None] = "fedray.learners.bases:verify_base"
    built_for_data: ClassVar[bool] = False
    generates: ClassVar[Generates | None] = "images"
    takes_prompts: ClassVar[bool] = True
    evaluates_on_test_set: ClassVar[bool] = False
    reads_captions: ClassVar[bool] = True
    takes_adapters: ClassVar[bool] = True
    has_frozen_base: ClassVar[bool] = True
    takes_new_tokens: ClassVar[bool] = True
    resembles_references: ClassVar[bool] = True
    reads_sites: ClassVar[bool] = True
    cites: ClassVar[tuple[str, ...]] = ("rombach2022high", "ho2022classifier")

    @property
    def shows_samples(self) -> bool:
        """Also where no prompt is named: samples then follow a ControlNet's examples."""
        return super().shows_samples or bool(self.control and self.control.examples)

    def implemented_by(self) -> str:
        return "fedray.learners.controlled:Controlled" if self.control else self.implementation

    @property
    def preserved_prompt(self) -> str | None:
        return None if self.prior is None else self.prior.prompt

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.base in ("tiny-sd", "tiny-sd2"):
            yield from ("song2021denoising", "xiao2017fashion")
        if self.min_snr_gamma is not None:
            yield "hang2023efficient"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        yield from control_conflicts(self.control, scenario.tuning)
        if self.prior is not None:
            yield from self.prior.conflicts(scenario)
        if self.prior is not None and self.control is not None:
            yield Refused(".prior", "one beside model.control", "one of them: class images have no condition")
        reference = scenario.evaluation.reference
        if reference is not None and self.resolution not in (None, 32):
            got = f"{reference.judge} at {self.resolution} pixels"
            expected = "model.resolution 32, which judges are trained on"
            yield Refused("evaluation.reference.judge", got, expected)
