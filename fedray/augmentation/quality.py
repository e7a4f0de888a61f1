"""How good generated pictures are (Qiang et al. 2024, Sec. II-B1): by a judge trained on real images, and as
training data."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedray.augmentation.image_generator import GeneratedImages
from fedray.data import DatasetInfo, Samples
from fedray.evaluation import judge as judges
from fedray.evaluation import quality, style
from fedray.evaluation.judge import resized
from fedray.learners.sheets import sheet as sheet_of
from fedray.learners.sheets import write_sheet
from fedray.randomness import SERVER, generator, key
from fedray.scenario.base import Refused

ROWS = 6  # of the sheet, a column a label


def gap(gradient: np.ndarray, whole: np.ndarray) -> float:
    """|g - G| / |G|."""
    return float(np.linalg.norm(gradient - whole) / max(float(np.linalg.norm(whole)), 1e-12))


def judged(
    judge: judges.GarmentJudge, pictures: GeneratedImages, dataset: DatasetInfo, real: Samples, seed: int
) -> dict[str, float]:
    """The share of pictures that a judge takes for what they were to show, and its classifier-FID to as many
    real images.

    Args:
        judge: a classifier of the same labels.
        pictures: with the labels that they were to show.
        dataset: what the real data are.
        real: real samples, of which as many are drawn.
        seed: of that draw.
    """
    made = _tensors(pictures.pixels)
    _, probabilities = judges.look(judge, made)
    wanted = torch.tensor([judge.labels.index(dataset.label_names[k]) for k in pictures.labels])
    n = min(len(made), len(real))
    chosen = generator(seed, 0, SERVER, "pictures judged").choice(len(real), n, replace=False)
    real_images = _tensors(np.stack([np.moveaxis(np.asarray(real.image(int(i))), -1, 0) for i in chosen]))
    distances = quality.measure(judge, real_images, made[:n], key(seed, 0, SERVER, "kid"))
    return {
        "recognised": style.recognised(probabilities, wanted),
        "classifier_fid": distances["eval_classifier_fid"],
        "judged": float(n),
    }


def verify(judge: judges.GarmentJudge, dataset: DatasetInfo) -> None:
    """Raises Refused for a judge that does not know the data's labels."""
    if missing := sorted(set(dataset.label_names) - set(judge.labels)):
        raise Refused(
            "augmentation.judge",
            f"one that does not know {', '.join(missing)}",
            f"a judge of {', '.join(dataset.label_names)}",
        )


def sheet(pictures: GeneratedImages, file: Path) -> None:
    """The first few of each label."""
    names = sorted(set(pictures.labels.tolist()))
    of = {k: np.flatnonzero(pictures.labels == k)[:ROWS] for k in names}
    rows = min(len(places) for places in of.values())
    chosen = [of[k][row] for row in range(rows) for k in names]
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet_of(_tensors(pictures.pixels[chosen], square=False), len(names)).save(file)


def candidates_sheet(pictures: GeneratedImages, images: int, file: Path) -> None:
    """A row a candidate prompt, `images` in each."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_sheet(_tensors(pictures.pixels, square=False), images, file)


def _tensors(pixels: np.ndarray, square: bool = True) -> Tensor:
    """[n, 3, h, w] in 0..1; 32 x 32, as judges look at them, where asked."""
    images = torch.from_numpy(pixels).float().expand(-1, 3, -1, -1) / 255
    return resized(images) if square else images
