"""`model`: what is learned."""

from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Positive, Section


class TextToImage(Section):
    """A Stable Diffusion fine-tuned on captioned images."""

    kind: Literal["text_to_image"]
    base: str  # a shipped model, a folder in diffusers' layout, or owner/name on the Hugging Face hub
    resolution: Annotated[int, Field(ge=8)] | None = None  # pixels a side; the base model's own
    min_snr_gamma: Positive | None = None  # Hang et al. 2023: weight min(snr, gamma) / snr
    caption_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


Model = TextToImage
