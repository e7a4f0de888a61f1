"""Class images of `model.prior`, and batches that they join (DreamBooth, Ruiz et al. 2023, equation 2)."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from fedray.data import Samples
from fedray.learners.contexts import Sampling
from fedray.randomness import key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedray.learners.latents import NoisedLatents
    from fedray.learners.learner import Learner


class ClassImages(Samples):
    """Images of a class with its prompt as caption.

    Args:
        pixels: uint8 [n, height, width, 3].
        prompt: of each of them.
    """

    def __init__(self, pixels: np.ndarray, prompt: str) -> None:
        self.images = pixels
        self.labels = np.zeros(len(pixels), np.int64)
        self.label_names = [prompt]

    @cached_property
    def captions(self) -> Sequence[str]:
        return list(self.label_names) * len(self)

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(self.images[i])


def untouched(learner: Learner) -> Learner:
    """The learner's base with the weights that it came with, whatever the learner has been trained to since;
    a second copy, which is there as long as somebody refers to it."""
    section = learner.section.model_copy(update={"prior": None})
    return type(learner).load(section, learner.context)


def class_images(learner: Learner, client: int) -> ClassImages:
    """A client's class images, in 8 bits as a file would have them: the same in whichever round and worker
    they are generated.

    Args:
        learner: says which base and which prior.
        client: by number; image i has noise of its own, from (seed, client, i).
    """
    prior = learner.section.prior
    seeds = [key(learner.context.seed, i, client, "class image") for i in range(prior.images)]
    sampling = Sampling(steps=prior.inference_steps, guidance_scale=prior.guidance_scale)
    made = untouched(learner).sample([prior.prompt] * prior.images, seeds, sampling)
    assert isinstance(made, torch.Tensor), "a learner of images"
    pixels = (made.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return ClassImages(pixels, prior.prompt)


def class_image_flops(learner: Learner) -> float:
    """Floating-point operations of generating one: by the base, without adapters. To be called on the meta
    device."""
    prior = learner.section.prior
    sampling = Sampling(steps=prior.inference_steps, guidance_scale=prior.guidance_scale)
    return untouched(learner).sample_flops(sampling)


def joined(own: NoisedLatents, of_class: NoisedLatents, weight: float) -> NoisedLatents:
    """Both batches of b samples as one of 2 b, whose weighted mean is mean(own) + weight x mean(of class).

    Args:
        own: of the client's samples.
        of_class: of class images.
        weight: what the class images' mean loss counts.
    """
    values: dict[str, Any] = {}
    for field in fields(own):
        pair = getattr(own, field.name), getattr(of_class, field.name)
        values[field.name] = None if pair[0] is None else torch.cat(pair)
    b = len(own.latents)
    # the mean is over 2 b samples, each half's over b
    values["weight"] = torch.tensor([2.0, 2.0 * weight]).repeat_interleave(b).to(own.latents.device)
    return replace(own, **values)
