"""How alike pictures are: PSNR, SSIM, and which of one set is which of another."""

import torch
from torch import Tensor

LEAST_ERROR = 1e-10  # squared, so that equal pictures have a PSNR of 100 dB and no infinite one


def psnr(pictures: Tensor, originals: Tensor) -> Tensor:
    """The peak signal-to-noise ratio [n] in dB, at most 100, of pictures [n, c, h, w] in 0..1."""
    error = (pictures - originals).square().flatten(1).mean(1)
    return -10 * error.clamp(min=LEAST_ERROR).log10()


def ssim(pictures: Tensor, originals: Tensor) -> Tensor:
    """The structural similarity [n] (Wang et al. 2004, a Gaussian window of 11 pixels) of pictures [n, c, h,
    w] in 0..1."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    result = structural_similarity_index_measure(pictures, originals, data_range=1.0, reduction="none")
    assert isinstance(result, Tensor)
    return result.reshape(len(pictures))  # of one picture it has no dimension


def matched(pictures: Tensor, originals: Tensor) -> Tensor:
    """The pictures [n, c, h, w] in the order of the originals to which they fit: that with the least squared
    error in all (the Hungarian method)."""
    from scipy.optimize import linear_sum_assignment

    flat = pictures.flatten(1).double()
    errors = (originals.flatten(1).double()[:, None] - flat[None]).square().mean(2)
    _, order = linear_sum_assignment(errors.cpu().numpy())
    return pictures[torch.from_numpy(order).to(pictures.device)]
