"""What is looked at after a round: a grid of samples from fixed noise, and distances to held-out images."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fedray import shipped
from fedray.data import Samples, open_source
from fedray.data.image_folder import read
from fedray.data.partition import test_split
from fedray.data.samples import photo_prompt
from fedray.data.sources import to_download
from fedray.evaluation import judge as judges
from fedray.evaluation import quality, style
from fedray.files import whole, write_whole
from fedray.learners.classifier import Classifier
from fedray.learners.collafuse import CollaFuse
from fedray.learners.diffusion import Diffusion
from fedray.learners.learner import Learner
from fedray.learners.text_to_image import TextToImage
from fedray.learners.transformer import Transformer
from fedray.randomness import SERVER, generator, key
from fedray.scenario.base import Refused
from fedray.scenario.scenario import Scenario

FEW = 16  # held-out samples, below which what leaks cannot be told
ROWS = 4  # of a grid without prompts
BETWEEN = "\n---\n"  # texts in a file


def evaluate(scenario: Scenario, folder: Path, learner: Learner, grid: Path) -> dict[str, float]:
    """A classifier or a transformer: accuracy and loss on the source's test set, with perplexity where that
    is text; what a transformer writes after prompts goes where the grid would, as .txt. What generates
    images: writes the grid (a row a prompt), and measures against `evaluation.reference` and
    `evaluation.quality`, where there are such."""
    section = scenario.evaluation
    if isinstance(learner, Classifier | Transformer):
        samples = open_source(scenario.data, folder, "test")
        chosen = test_split(scenario, len(samples))[1]
        accuracy, loss = learner.test(samples, chosen)
        judged = {"eval_loss": loss} if accuracy is None else {"eval_accuracy": accuracy, "eval_loss": loss}
        if isinstance(learner, Transformer) and learner.section.of_text:
            judged["eval_perplexity"] = float(np.exp(loss))
        elif accuracy is not None:  # of text it is a share of tokens, which are not drawn one by one
            judged["eval_samples"] = float(len(chosen))
        if isinstance(learner, Transformer) and section.prompts:
            seeds = _seeds(scenario, len(section.prompts), "grid")
            grid.parent.mkdir(parents=True, exist_ok=True)
            texts = learner.sample(section.prompts, seeds, section.new_tokens, section.temperature)
            write_whole(grid.with_suffix(".txt"), BETWEEN.join(texts) + "\n")
        return judged
    assert isinstance(learner, TextToImage | Diffusion | CollaFuse)
    if section.prompts or not isinstance(learner, TextToImage):
        prompts = [p for p in section.prompts or [""] * ROWS for _ in range(section.images_per_prompt)]
        grid.parent.mkdir(parents=True, exist_ok=True)
        page = sheet(_sample(scenario, learner, prompts, "grid"), section.images_per_prompt)
        with whole(grid) as part:
            page.save(part, "png")
    metrics = (
        _resemblance(scenario, folder, learner)
        if isinstance(learner, TextToImage) and section.reference
        else {}
    )
    return metrics | (_quality(scenario, folder, learner) if section.quality else {})


def verify(scenario: Scenario, folder: Path) -> None:
    """That the judge and every held-out image open, and that the judge knows what their captions name.

    Raises:
        Refused: where not.
    """
    reference, wanted = scenario.evaluation.reference, scenario.evaluation.quality
    if wanted is not None:
        open_judge(wanted.judge, folder, "evaluation.quality.judge")
        if (
            to_download(scenario.data, folder) is None
            and (real := len(_real(scenario, folder))) < wanted.images
        ):
            raise Refused(
                "evaluation.quality.images", wanted.images, f"at most the {real} real images there are"
            )
    if (
        scenario.augmentation is not None
        and scenario.data.kind != "image_folder"
        and to_download(scenario.data, folder) is None
    ):
        test_split(scenario, len(open_source(scenario.data, folder, "test")))
    if (
        scenario.evaluation.leakage is not None
        and to_download(scenario.data, folder) is None
        and (n := len(_real(scenario, folder))) < FEW
    ):
        raise Refused(
            "evaluation.leakage",
            f"{n} samples that nobody trains on",
            f"at least {FEW}, of which an attacker knows half",
        )
    if reference is None:
        return
    held_out = read(reference.path, folder, "evaluation.reference", reference.caption_key, None)
    judge = open_judge(reference.judge, folder, "evaluation.reference.judge")
    try:
        for i in range(len(held_out)):
            held_out.image(i)
        style.labels_in(held_out.captions, judge.labels)
    except ValueError as e:
        raise Refused(
            "evaluation.reference.path",
            str(e),
            "images that open, and captions that name what the judge knows",
        ) from None


def open_judge(path: str, folder: Path, key: str) -> judges.GarmentJudge:
    try:
        return judges.load(shipped.resolve(path, folder))
    except (OSError, ValueError) as e:
        raise Refused(key, str(e), "a judge's safetensors file") from None


def _real(scenario: Scenario, folder: Path) -> Samples:
    """What generated images are held against: a test set, or a folder's images where it has none."""
    return open_source(scenario.data, folder, "train" if scenario.data.kind == "image_folder" else "test")


def _quality(
    scenario: Scenario, folder: Path, learner: TextToImage | Diffusion | CollaFuse
) -> dict[str, float]:
    section = scenario.evaluation.quality
    assert section is not None
    judge, samples = judges.load(shipped.resolve(section.judge, folder)), _real(scenario, folder)
    chosen = generator(scenario.seed, 0, SERVER, "quality").choice(
        len(samples), section.images, replace=False
    )
    real = torch.stack([_tensor(samples.image(int(i))) for i in chosen])
    made = _sample(scenario, learner, [samples.captions[int(i)] for i in chosen], "quality")
    return quality.measure(judge, real, resized(made), key(scenario.seed, 0, SERVER, "kid"))


def _resemblance(scenario: Scenario, folder: Path, learner: TextToImage) -> dict[str, float]:
    """How near generated images come to held-out ones, and whether they still show what was asked for.

    Distances are to the held-out images; `eval_*_floor` is what the training images themselves have. Content
    is judged beside style, since blotches of the right tone would halve a plain distance of style.
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
        trained_on = open_source(scenario.data, folder)
        theirs = torch.stack([_tensor(trained_on.image(i)) for i in range(len(trained_on))])
        metrics["eval_feature_distance_floor"] = style.feature_distance(
            judges.look(judge, theirs)[0], real_features
        )
        metrics["eval_darkness_distance_floor"] = style.coverage_distance(theirs, real)
    if reference.plain_prompts:
        plain = [photo_prompt(label) for label in judge.labels for _ in range(3)]
        _, probabilities = judges.look(judge, _sample(scenario, learner, plain, "plain"))
        metrics["eval_plain_images"] = float(len(plain))
        metrics["eval_plain_recognised"] = style.recognised(
            probabilities, style.labels_in(plain, judge.labels)
        )
    return {name: round(float(value), 6) for name, value in metrics.items()}


def _sample(
    scenario: Scenario, learner: TextToImage | Diffusion | CollaFuse, prompts: list[str], purpose: str
) -> Tensor:
    """[n, 3, h, w]; image i has the same noise in every round."""
    section = scenario.evaluation
    seeds = _seeds(scenario, len(prompts), purpose)
    if not isinstance(learner, TextToImage):
        return learner.sample(seeds, section.inference_steps)
    return learner.sample(
        prompts, seeds, section.inference_steps, section.guidance_scale, section.negative_prompt
    )


def _seeds(scenario: Scenario, n: int, purpose: str) -> list[int]:
    return [key(scenario.seed, 0, i, f"samples {purpose}") for i in range(n)]


def sheet(images: Tensor, columns: int) -> Image.Image:
    """Images [n, 3, h, w] in 0..1, a row a prompt. Small ones are enlarged, pixel by pixel, so that a person
    can see them."""
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


def resized(images: Tensor) -> Tensor:
    """[n, 3, 32, 32], the size the shipped judges know."""
    if images.shape[-1] == judges.SIZE:
        return images
    return F.interpolate(
        images, (judges.SIZE, judges.SIZE), mode="bicubic", antialias=True, align_corners=False
    ).clamp(0, 1)


def _tensor(image: Image.Image) -> Tensor:
    """[3, 32, 32] in 0..1, the size the shipped judges know."""
    return (
        torch.from_numpy(np.array(image.resize((32, 32), Image.Resampling.BICUBIC))).permute(2, 0, 1).float()
        / 255
    )
