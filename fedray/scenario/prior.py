"""`model.prior`: what keeps a class of things as it was, while one thing of it is learnt."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from fedray.scenario.base import Count, NotNegative, Positive, Refused, Section


class Prior(Section):
    """Prior preservation of DreamBooth (Ruiz et al. 2023, equation 2): images of the class, generated once by
    the untouched base, join each batch, as many as it has samples."""

    prompt: str = Field(description="Names the class without the identifier, such as: a photo of a bag.")
    images: Count = Field(
        default=16,
        description="How many class images each client has. A prior without class images would be none.",
    )
    weight: Positive = Field(
        default=1.0,
        description="What the class images' mean loss counts beside the samples' own (lambda in equation 2).",
    )
    at: Literal["client", "server"] = Field(
        default="client",
        description="Who generates the class images. client: each its own, within its first local update. "
        "server: the server, which sends each client its own before its first local update, as pixels of a "
        "byte a channel. They are the same images.",
    )
    inference_steps: Count = Field(default=20, description="Denoising steps of a class image.")
    guidance_scale: NotNegative = Field(
        default=3.0,
        description="Of classifier-free guidance (Ho and Salimans 2022) of class images; up to 1: without.",
    )

    cites: ClassVar[tuple[str, ...]] = ("ruiz2023dreambooth",)

    @field_validator("prompt")
    @classmethod
    def _says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("got an empty prompt, expected one that names the class: a photo of a bag")
        return prompt

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if scenario.topology.splits_model:
            expected = (
                "a topology that trains whole models: a split one counts a batch's samples, not twice them"
            )
            yield Refused("model.prior", f"one with topology.kind {scenario.topology.kind}", expected)
        if scenario.companion is not None:
            yield Refused("model.prior", "one beside generated samples", "augmentation or prior, not both")
