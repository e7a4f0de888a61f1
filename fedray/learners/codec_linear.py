"""The linear analog codec in closed form, and the bound that no code beats on a Gaussian source."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedray.learners.codec_channels import noise_variance

LEAST_VARIANCE = 1e-9  # of a component: fewer images than numbers leave some without any
# of neighbouring pixels, and of an image's colours, before any client has told of its own
NEIGHBOURS_CORRELATE = 0.95
COLOURS_CORRELATE = 0.9
PIXEL_VARIANCE = 1 / 12  # of uniform pixels in 0..1
GREY = 0.5  # the mean of the same, about which moments are taken


class Moments(nn.Module):
    """Means and second moments of images' numbers, about grey: buffers that travel as running means of
    BatchNorm do, so that the server's mean over clients, weighted by their samples, is the moment of all
    their images. Until the first ones arrive they are those of a Markov field (neighbouring pixels correlate
    by 0.95, as in the derivation of the cosine transform)."""

    mean: Tensor  # [d]
    second: Tensor  # [d (d + 1) / 2], the upper triangle, row by row

    def __init__(self, channels: int, size: int) -> None:
        """Of square images: channels, and pixels a side."""
        super().__init__()
        self.numbers = channels * size**2
        self.register_buffer("mean", torch.zeros(self.numbers))
        self.register_buffer("second", torch.zeros(self.numbers * (self.numbers + 1) // 2))
        if not self.second.is_meta:
            self.second.copy_(_triangle(torch.from_numpy(markov_covariance(channels, size))))
        self.seen = 0  # images of this local update

    def restart(self) -> None:
        """The next images are the first of a local update."""
        self.seen = 0

    @torch.no_grad()
    def add(self, images: Tensor) -> None:
        """Makes the moments those of a local update's images so far: exactly a client's own after a whole
        epoch. `images`: [b, d] in 0..1."""
        centred = images - GREY
        self.seen += len(images)
        share = len(images) / self.seen
        self.mean.lerp_(centred.mean(0), share)
        self.second.lerp_(_triangle(centred.T @ centred / len(images)), share)

    def covariance(self) -> Tensor:
        """[d, d] fp64, on the processor, so that every device finds the same components."""
        whole = torch.zeros(self.numbers, self.numbers, dtype=torch.float64)
        rows, columns = torch.triu_indices(self.numbers, self.numbers).unbind()
        second = self.second.cpu().double()
        whole[rows, columns] = second
        whole[columns, rows] = second
        mean = self.mean.cpu().double()
        return whole - torch.outer(mean, mean)


def markov_covariance(channels: int, size: int) -> np.ndarray:
    """[d, d] of square images: a Markov field's, the same in each colour, which correlate. By numpy, since
    on the meta device these products would import torch's compiler."""
    line = NEIGHBOURS_CORRELATE ** np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    colours = np.where(np.eye(channels, dtype=bool), 1.0, COLOURS_CORRELATE)
    covariance: np.ndarray = PIXEL_VARIANCE * np.kron(colours, np.kron(line, line))
    return covariance


def _triangle(square: Tensor) -> Tensor:
    """The upper triangle of a matrix, row by row."""
    rows, columns = torch.triu_indices(*square.shape, device=square.device).unbind()
    return square[rows, columns]


@dataclass(frozen=True)
class LinearCodec:
    """Principal components as real symbols, two to a channel use.

    Attributes:
        mean: of an image's numbers [d].
        variances: of all its components, the largest first [d].
        all_components: as columns [d, d], of which the first 2k have a symbol.
        uses: k, channel uses an image.
    """

    mean: Tensor
    variances: Tensor
    all_components: Tensor
    uses: int

    @classmethod
    def of(cls, moments: Moments, uses: int) -> "LinearCodec":
        """Of images with these moments, k channel uses each; on their device."""
        device = moments.mean.device
        if device.type == "meta":  # for counting: a shape is all there is
            blank = torch.zeros(moments.numbers, moments.numbers, device=device)
            return cls(moments.mean, blank[0], blank, uses)
        variances, vectors = torch.linalg.eigh(moments.covariance())
        variances = variances.flip(0).clamp(min=LEAST_VARIANCE)
        vectors = vectors.flip(1)
        # an eigenvector has two signs: that in which its largest number is positive
        largest = vectors.abs().argmax(0)
        vectors = vectors * vectors.gather(0, largest[None]).sign()
        mean = moments.mean + GREY
        return cls(mean, variances.float().to(device), vectors.float().to(device), uses)

    @property
    def components(self) -> Tensor:
        """Those that have a symbol [d, 2k]."""
        return self.all_components[:, : 2 * self.uses]

    def amplitudes(self, snr_db: Tensor) -> Tensor:
        """By how much each component is scaled [b, 2k], at mean signal-to-noise ratios [b] in dB."""
        variances = self.variances[: 2 * self.uses]
        return (allocated(variances, noise_variance(snr_db), self.uses) / variances).sqrt()

    def encode(self, images: Tensor, snr_db: Tensor) -> Tensor:
        """Symbols [b, 2k] of images [b, d], of mean power 1 over images with these moments."""
        return ((images - self.mean) @ self.components) * self.amplitudes(snr_db)

    def decode(self, received: Tensor, snr_db: Tensor, gain: Tensor) -> Tensor:
        """Images [b, d]: the estimate of least mean squared error that is linear in what was received.

        Args:
            received: [b, 2k].
            snr_db: [b], that the sender reckoned with.
            gain: [b], the channel's amplitude.
        """
        amplitude = self.amplitudes(snr_db) * gain[:, None]
        variances = self.variances[: 2 * self.uses]
        heard = amplitude.square() * variances + noise_variance(snr_db)[:, None]
        return self.mean + (received * amplitude * variances / heard) @ self.components.T

    def expected_error(self, snr_db: Tensor) -> Tensor:
        """The mean squared error a number [b] of images with these moments, without fading: l s2 / (p + s2)
        of a component of variance l with power p, and all of one without a symbol."""
        variances = self.variances[: 2 * self.uses]
        variance = noise_variance(snr_db)[:, None]
        power = allocated(variances, variance[:, 0], self.uses)
        kept = (variances * power / (power + variance)).sum(1)
        return (self.variances.sum() - kept) / len(self.mean)


def allocated(variances: Tensor, noise: Tensor, power: float) -> Tensor:
    """The power of each real symbol [b, n] that leaves the least mean squared error: sqrt(l s2 / nu) - s2
    where that is positive, and nu such that they add up (Lee and Petersen 1976).

    Args:
        variances: l, of the components, the largest first [n].
        noise: s2, the variance of a real symbol's noise [b].
        power: of all n together.
    """
    roots = variances.sqrt()
    counts = torch.arange(1, len(variances) + 1, device=variances.device)
    # were the first m all that have power: sqrt(s2 / nu), by which their roots are scaled
    scales = (power + counts * noise[:, None]) / roots.cumsum(0)
    powers_last = scales * roots - noise[:, None]
    used = (powers_last > 0).sum(1, keepdim=True).clamp(min=1)
    scale = scales.gather(1, used - 1)
    return (scale * roots - noise[:, None]).clamp(min=0)


def capacity(snr_db: float) -> float:
    """Bits a complex symbol that an ideal code carries over Gaussian noise (Shannon 1948)."""
    return math.log2(1 + 10 ** (snr_db / 10))


def gaussian_distortions(variances: Tensor, bits: float) -> Tensor:
    """The mean squared error [d] of each component of a Gaussian source with these variances [d] and so many
    bits in all: reverse water-filling (Cover and Thomas 2006, Theorem 10.3.3)."""
    lowest = 0.0
    highest = float(variances.max())
    for _ in range(100):
        level = (lowest + highest) / 2
        rate = float((variances / max(level, 1e-300)).clamp(min=1).log2().sum()) / 2
        lowest, highest = (level, highest) if rate > bits else (lowest, level)
    return variances.clamp(max=highest)
