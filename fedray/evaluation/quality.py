"""How good and how varied generated images are beside real ones, in features of both.

With few images an FID is biased upwards, so the number of images is part of the result, and the same on both
sides. A judge's numbers compare runs of fedray with each other, not with papers.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fedray.evaluation import judge as judges

NEIGHBOURS = 3  # of the hyperspheres (Kynkaanniemi et al. 2019)
SUBSETS = 20  # of KID
SUBSET = 100  # images in each


class Seen(nn.Module):
    """Features that have been computed, as torchmetrics' feature extractor."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = features

    def forward(self, features: Tensor) -> Tensor:
        return features


def measure(judge: judges.GarmentJudge, real: Tensor, made: Tensor, seed: int) -> dict[str, float]:
    """`distances` in a judge's features, of images [n, 3, 32, 32] in 0..1, as many real as made.

    Args:
        judge: whose features are compared.
        real: real images.
        made: generated ones.
        seed: of KID's subsets.
    """
    of_real, of_made = (judges.look(judge, as_bytes(images).float() / 255)[0] for images in (real, made))
    measured = distances(of_real, of_made, seed)
    fid = measured.pop("fid")
    named = {f"eval_{name}": value for name, value in measured.items()}
    return {"eval_classifier_fid": fid, **named, "eval_quality_images": float(len(real))}


def distances(real: Tensor, made: Tensor, seed: int) -> dict[str, float]:
    """FID (Heusel et al. 2017), KID (Binkowski et al. 2018), precision and recall (Kynkaanniemi et al. 2019)
    between features [n, d] of images.

    Args:
        real: of real ones.
        made: of generated ones, as many.
        seed: of KID's subsets.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    seen = Seen(real.shape[1])
    fid: Any = FrechetInceptionDistance(seen)
    kid: Any = KernelInceptionDistance(seen, subsets=SUBSETS, subset_size=min(SUBSET, len(real) // 2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for metric in (fid, kid):
            metric.update(real, real=True)
            metric.update(made, real=False)
        result = {"fid": float(fid.compute()), "kid": float(kid.compute()[0])}
    return result | {"precision": covered(made, real), "recall": covered(real, made)}


def as_bytes(images: Tensor) -> Tensor:
    """uint8 of images in 0..1."""
    return (images * 255).round().byte()


def covered(points: Tensor, by: Tensor) -> float:
    """The share of points [m, d] that lie within some point of `by` [n, d] as far as its 3rd nearest
    neighbour there: precision of what is made by what is real, recall the other way round."""
    radii = torch.cdist(by, by).sort(dim=1).values[:, NEIGHBOURS]  # its own distance of zero is the first
    return float((torch.cdist(points, by) <= radii).any(1).float().mean())
