"""A generator and a discriminator of convolutions, as in DCGAN (Radford et al. 2016), small enough for a
CPU."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from fedray.scenario.gan import Gan as Section

GROUP = 8  # channels that GroupNorm normalises together
SLOPE = 0.2  # of LeakyReLU below zero, as in DCGAN


class Generator(nn.Module):
    """Noise, and labels where there are some, to images in -1..1: a linear layer to a quarter of the images'
    size, then two transposed convolutions that double it.

    Args:
        section: the scenario's `model`.
        channels: of images.
        size: of images, in pixels a side, a multiple of 4.
        labels: how many there are; 0: images follow none.
    """

    def __init__(self, section: Section, channels: int, size: int, labels: int) -> None:
        super().__init__()
        width = section.width
        self.labels = labels
        self.shape = (2 * width, size // 4, size // 4)
        self.linear = nn.Linear(section.latent + labels, 2 * width * (size // 4) ** 2)
        self.body = nn.Sequential(
            _norm(section, 2 * width),
            nn.ReLU(),
            # which BatchNorm would take away again
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=section.norm != "batch"),
            _norm(section, width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[b, channels, size, size] of noise [b, latent] and labels [b]."""
        if labels is not None:
            z = torch.cat([z, F.one_hot(labels, self.labels).to(z)], 1)
        return self.body(self.linear(z).view(-1, *self.shape))


class Discriminator(nn.Module):
    """Images to logits, positive where they seem real: convolutions that halve an image twice, one more, then
    a sum over all places. A label adds the inner product of its own vector and these features (the
    projection of Miyato and Koyama 2018).

    Args:
        section: the scenario's `model`.
        channels: of images.
        labels: how many there are; 0: images follow none.
    """

    def __init__(self, section: Section, channels: int, labels: int) -> None:
        super().__init__()
        width = section.width
        normed: Callable[[nn.Module], nn.Module] = spectral_norm if section.spectral_norm else lambda m: m
        self.body = nn.Sequential(
            normed(nn.Conv2d(channels, width, 4, 2, 1)),
            nn.LeakyReLU(SLOPE),
            normed(nn.Conv2d(width, 2 * width, 4, 2, 1)),
            nn.LeakyReLU(SLOPE),
            normed(nn.Conv2d(2 * width, 4 * width, 3, 1, 1)),
            nn.LeakyReLU(SLOPE),
        )
        self.head = normed(nn.Linear(4 * width, 1))
        self.label = normed(nn.Embedding(labels, 4 * width)) if labels else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits [b] of images [b, channels, size, size] in -1..1 and labels [b]."""
        features = self.body(images).sum((2, 3))
        logits = self.head(features).squeeze(1)
        if self.label is not None:
            logits = logits + (self.label(labels) * features).sum(1)
        return logits


def _norm(section: Section, channels: int) -> nn.Module:
    if section.norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(channels // GROUP, channels) if section.norm == "group" else nn.Identity()
