"""`evaluation`: what is looked at, and how often."""

from typing import Annotated

from pydantic import Field

from fedray.scenario.base import Count, FilePath, NotNegative, Positive, Section


class Reference(Section):
    """Held-out images that generated ones should come to resemble, measured in a judge's features."""

    path: FilePath  # an image folder, relative to the scenario's file, or shipped:NAME
    judge: FilePath = "shipped:garments"
    caption_key: str = "text"
    images_per_caption: Count = 5  # generated for each of the folder's captions
    plain_prompts: bool = True  # how well the judge still recognises plain photos: what the new style costs


class Quality(Section):
    """Generated images against as many real ones (the test set's; of image folders all there are), in the
    features of a classifier of ours: classifier-FID, KID, precision and recall. Few images bias an FID
    upwards: compare like with like."""

    images: Annotated[int, Field(ge=16)] = 500
    judge: FilePath = "shipped:garments"


class Leakage(Section):
    """What the server of a split model could learn of inputs, tried on samples of the test set (of an image
    folder, on all)."""

    samples: Annotated[int, Field(ge=16)] = 256  # of which an attacker knows half
    attack_steps: Count = 300  # in which it learns to invert what crosses the cut


class Evaluation(Section):
    """Sample grids from fixed noise (of text, samples from fixed draws) before training, every `every` rounds
    and at the end."""

    every: Count | None = None  # only before and after
    prompts: list[str] = []
    images_per_prompt: Annotated[int, Field(ge=1, le=16)] = 4
    inference_steps: Count = 20
    guidance_scale: NotNegative = 3.0
    negative_prompt: str = ""
    new_tokens: Count = 200  # that a causal_language model writes after a prompt
    temperature: Positive = 0.8  # of that
    reference: Reference | None = None
    quality: Quality | None = None
    leakage: Leakage | None = None
