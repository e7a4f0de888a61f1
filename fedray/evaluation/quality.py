"""How good and how varied generated images are beside real ones, in the features of a classifier of ours.

The numbers are a judge's, not Inception's: they compare runs of fedray with each other, not with papers. With
few images an FID is biased upwards, so the number of images is part of the result, and the same on both
sides.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fedray.evaluation import judge as judges

NEIGHBOURS = 3  # of the hyperspheres (Kynkaanniemi et al. 2019)


class Features(nn.Module):
    """A judge as torchmetrics' feature extractor."""

    num_features = judges.FEATURES

    def __init__(self, judge: judges.GarmentJudge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [n, 3, 32, 32] to [n, 64]."""
        return judges.look(self.judge, images.float() / 255)[0]


def measure(judge: judges.GarmentJudge, real: Tensor, made: Tensor, seed: int) -> dict[str, float]:
    """classifier-FID (Heusel et al. 2017), KID (Binkowski et al. 2018; its subsets drawn from `seed`),
    precision and recall, of images [n, 3, 32, 32] in 0..1, as many real as made.

    Args:
        judge: whose features and probabilities are compared.
        real: real images.
        made: generated ones.
        seed: of KID's subsets.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    n = len(real)
    features = Features(judge)
    fid: Any = FrechetInceptionDistance(features)
    kid: Any = KernelInceptionDistance(features, subsets=20, subset_size=min(100, n // 2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for metric in (fid, kid):
            metric.update(_bytes(real), real=True)
            metric.update(_bytes(made), real=False)
        distances = {"eval_classifier_fid": float(fid.compute()), "eval_kid": float(kid.compute()[0])}
    made_features = features(_bytes(made))
    real_features = features(_bytes(real))
    precision = covered(made_features, real_features)
    recall = covered(real_features, made_features)
    return {**distances, "eval_precision": precision, "eval_recall": recall, "eval_quality_images": float(n)}


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().byte()


def covered(points: Tensor, by: Tensor) -> float:
    """The share of points [m, d] that lie within some point of `by` [n, d] as far as its 3rd nearest
    neighbour there: precision of what is made by what is real, recall the other way round."""
    radii = torch.cdist(by, by).sort(dim=1).values[:, NEIGHBOURS]  # its own distance of zero is the first
    return float((torch.cdist(points, by) <= radii).any(1).float().mean())
