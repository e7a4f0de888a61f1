"""What smashed activations tell of a client's inputs."""

from torch import Tensor


def distance_correlation(inputs: Tensor, smashed: Tensor) -> Tensor:
    """The distance correlation of n samples and their activations (Szekely et al. 2007): 0 where they are independent, 1
    where one is a rotation and scaling of the other. Of words the distance is the root of how many differ."""
    a, b = _centred(inputs), _centred(smashed)
    covariance, spread = (a * b).mean().clamp(min=0), (a * a).mean() * (b * b).mean()
    return (covariance / spread.sqrt().clamp(min=1e-12)).clamp(min=1e-12).sqrt()


def _centred(x: Tensor) -> Tensor:
    """Distances [n, n] between samples, less the means of their rows and columns."""
    if x.is_floating_point():
        flat = x.flatten(1).float()
        squares = (flat[:, None] - flat[None]).square().sum(-1)
    else:
        squares = (x.flatten(1)[:, None] != x.flatten(1)[None]).sum(-1).float()
    distances = (squares + 1e-12).sqrt()  # a root at 0 has no gradient
    return distances - distances.mean(0, keepdim=True) - distances.mean(1, keepdim=True) + distances.mean()
