"""How alike pictures are: PSNR, SSIM, and which of one set is which of another."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_ERROR = 1e-10  # squared, so that equal pictures have a PSNR of 100 dB and no infinite one

WINDOW = 11  # pixels a side
DEVIATION = 1.5  # of the window's weights, in pixels
C1 = 0.01**2
C2 = 0.03**2


def psnr(pictures: Tensor, originals: Tensor) -> Tensor:
    """The peak signal-to-noise ratio [n] in dB, at most 100, of pictures [n, c, h, w] in 0..1."""
    error = (pictures - originals).square().flatten(1).mean(1)
    return -10 * error.clamp(min=LEAST_ERROR).log10()


def ssim(pictures: Tensor, originals: Tensor) -> Tensor:
    """The structural similarity [n] (Wang et al. 2004, Eq. 13, with their Gaussian window of 11 pixels) of
    pictures [n, c, h, w] in 0..1, each side at least 11, the mean over the windows that lie within. Written
    out, as torchmetrics takes seconds to import."""
    n = len(pictures)
    a = pictures.double().flatten(0, 1)[:, None]
    b = originals.double().flatten(0, 1)[:, None]
    offsets = torch.arange(WINDOW, dtype=a.dtype, device=a.device) - WINDOW // 2
    bell = (-(offsets**2) / (2 * DEVIATION**2)).exp()
    column = (bell / bell.sum())[None, None, :, None]
    row = column.transpose(2, 3)
    mean_a, mean_b, square_a, square_b, product = (
        F.conv2d(F.conv2d(x, column), row) for x in (a, b, a * a, b * b, a * b)
    )
    spread = square_a - mean_a**2 + square_b - mean_b**2  # both variances
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    structure = (2 * (product - mean_a * mean_b) + C2) / (spread + C2)
    return (luminance * structure).view(n, -1).mean(1)


def matched(pictures: Tensor, originals: Tensor) -> Tensor:
    """The pictures [n, c, h, w] in the order of the originals to which they fit: that with the least squared
    error in all (the Hungarian method)."""
    from scipy.optimize import linear_sum_assignment

    flat = pictures.flatten(1).double()
    errors = (originals.flatten(1).double()[:, None] - flat[None]).square().mean(2)
    _, order = linear_sum_assignment(errors.cpu().numpy())
    return pictures[torch.from_numpy(order).to(pictures.device)]
