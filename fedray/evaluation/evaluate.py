"""What is looked at after a round: a grid of samples from fixed noise, and distances to held-out images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fedray import shipped
from fedray.data.fashion_mnist import photo_prompt
from fedray.data.image_folder import read
from fedray.evaluation import judge as judges
from fedray.evaluation import style
from fedray.learners.text_to_image import TextToImage
from fedray.randomness import key
from fedray.scenario.base import Refused
from fedray.scenario.scenario import Scenario


def evaluate(scenario: Scenario, folder: Path, learner: TextToImage, grid: Path) -> dict[str, float]:
    """Writes the grid (a row a prompt) and measures against `evaluation.reference`, where there is one."""
    section = scenario.evaluation
    if section.prompts:
        images = _sample(scenario, learner, [p for p in section.prompts for _ in range(section.images_per_prompt)], "grid")
        grid.parent.mkdir(parents=True, exist_ok=True)
        sheet(images, section.images_per_prompt).save(grid)
    return _resemblance(scenario, folder, learner) if section.reference else {}


def verify(scenario: Scenario, folder: Path) -> None:
    """That the judge and every held-out image open, and that the judge knows what their captions name.

    Raises:
        Refused: where not.
    """
    reference = scenario.evaluation.reference
    if reference is None:
        return
    held_out = read(reference.path, folder, "evaluation.reference", reference.caption_key, None)
    try:
        judge = judges.load(shipped.resolve(reference.judge, folder))
    except (OSError, ValueError) as e:
        raise Refused("evaluation.reference.judge", str(e), "a judge's safetensors file") from None
    try:
        for i in range(len(held_out)):
            held_out.image(i)
        style.labels_in(held_out.captions, judge.labels)
    except ValueError as e:
        raise Refused("evaluation.reference.path", str(e), "images that open, and captions that name what the judge knows") from None


def _resemblance(scenario: Scenario, folder: Path, learner: TextToImage) -> dict[str, float]:
    """How near generated images come to held-out ones, and whether they still show what was asked for.

    Distances are to the held-out images; `eval_*_floor` is what the training images themselves have. Content is judged
    beside style, since blotches of the right tone would halve a plain distance of style.
    """
    reference = scenario.evaluation.reference
    assert reference is not None
    judge = judges.load(shipped.resolve(reference.judge, folder))
    held_out = read(reference.path, folder, "evaluation.reference", reference.caption_key, None)
    real = torch.stack([_tensor(held_out.image(i)) for i in range(len(held_out))])
    prompts = [c for c in held_out.captions for _ in range(reference.images_per_caption)]
    made = _sample(scenario, learner, prompts, "reference")

    real_features, _ = judges.look(judge, real)
    features, probabilities = judges.look(judge, made)
    metrics = {
        "eval_feature_distance": style.feature_distance(features, real_features),
        "eval_darkness_distance": style.coverage_distance(made, real),
        "eval_recognised": style.recognised(probabilities, style.labels_in(prompts, judge.labels)),
        "eval_images": float(len(made)),
    }
    if scenario.data.kind == "image_folder" and not scenario.sites:  # images at sites stay there
        trained_on = read(scenario.data.path, folder, "data", scenario.data.caption_key, scenario.data.caption)
        theirs = torch.stack([_tensor(trained_on.image(i)) for i in range(len(trained_on))])
        metrics["eval_feature_distance_floor"] = style.feature_distance(judges.look(judge, theirs)[0], real_features)
        metrics["eval_darkness_distance_floor"] = style.coverage_distance(theirs, real)
    if reference.plain_prompts:
        plain = [photo_prompt(label) for label in judge.labels for _ in range(3)]
        _, probabilities = judges.look(judge, _sample(scenario, learner, plain, "plain"))
        metrics["eval_plain_recognised"] = style.recognised(probabilities, style.labels_in(plain, judge.labels))
    return {name: round(float(value), 6) for name, value in metrics.items()}


def _sample(scenario: Scenario, learner: TextToImage, prompts: list[str], purpose: str) -> Tensor:
    """[n, 3, h, w]; image i has the same noise in every round."""
    section = scenario.evaluation
    seeds = [key(scenario.seed, 0, i, f"samples {purpose}") for i in range(len(prompts))]
    return learner.sample(prompts, seeds, section.inference_steps, section.guidance_scale, section.negative_prompt)


def sheet(images: Tensor, columns: int) -> Image.Image:
    """Images [n, 3, h, w] in 0..1, a row a prompt. Small ones are enlarged, pixel by pixel, so that a person can see them."""
    n, _, h, w = images.shape
    gap = max(2, w // 32)
    page = torch.ones(3, gap + (n // columns) * (h + gap), gap + columns * (w + gap))
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * (h + gap), gap + (i % columns) * (w + gap)
        page[:, top : top + h, left : left + w] = image
    whole, scale = picture(page), max(1, 128 // w)
    return whole.resize((whole.width * scale, whole.height * scale), Image.Resampling.NEAREST)


def picture(image: Tensor) -> Image.Image:
    """[3, h, w] in 0..1, pixel by pixel."""
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def _tensor(image: Image.Image) -> Tensor:
    """[3, 32, 32] in 0..1, the size the shipped judges know."""
    return torch.from_numpy(np.array(image.resize((32, 32), Image.Resampling.BICUBIC))).permute(2, 0, 1).float() / 255
