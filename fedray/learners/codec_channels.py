"""Channels between a codec's encoder and its decoder: what happens to complex symbols on the air."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedray.scenario.codec import CodecChannelSection


class CodecChannel(ABC):
    """A channel with Gaussian noise, whose receiver knows by how much it scales each image's symbols. Rician
    fading, for example:

        import torch
        from pydantic import Field

        import fedray

        class Rician(fedray.CodecChannel):
            class Section(fedray.CodecChannel.Section):
                k_factor: float = Field(default=3.0, description="Power of the direct path over the rest.")

            def gains(self, n, generator):
                k = self.section.k_factor
                real, imaginary = torch.randn(2, n, generator=generator) * (0.5 / (k + 1)) ** 0.5
                return torch.hypot(real + (k / (k + 1)) ** 0.5, imaginary)
    """

    Section: ClassVar[type[CodecChannelSection]] = CodecChannelSection

    def __init__(self, section: Any) -> None:
        """`section`: what the scenario says of this channel."""
        self.section = section

    @abstractmethod
    def gains(self, n: int, generator: torch.Generator) -> Tensor:
        """The amplitudes [n] by which the symbols of n images arrive scaled, whose squares have a mean of 1.

        Args:
            n: images.
            generator: every draw comes from it, on the CPU.
        """

    def snrs_db(self, n: int, generator: torch.Generator) -> Tensor:
        """Mean signal-to-noise ratios [n] in dB, one for each training image: uniform over the range."""
        lowest, highest = self.section.snr_range_db
        return lowest + (highest - lowest) * torch.rand(n, generator=generator)


class Awgn(CodecChannel):
    """Gaussian noise alone."""

    def gains(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.ones(n)


class Rayleigh(CodecChannel):
    """Slow Rayleigh fading: the amplitude of a complex Gaussian number of mean power 1."""

    def gains(self, n: int, generator: torch.Generator) -> Tensor:
        real, imaginary = torch.randn(2, n, generator=generator) * 0.5**0.5
        return torch.hypot(real, imaginary)


def noise_variance(snr_db: Tensor) -> Tensor:
    """Of each of a complex symbol's two real halves, at a mean symbol power of 1."""
    return 10 ** (-snr_db / 10) / 2


def transmitted(symbols: Tensor, gain: Tensor, snr_db: Tensor, noise: Tensor) -> Tensor:
    """What arrives of symbols [b, 2k], the real parts and the imaginary ones of k, once the receiver has
    turned their phase back.

    Args:
        symbols: of mean power 1, a complex one.
        gain: [b], the channel's amplitude.
        snr_db: [b], the mean signal-to-noise ratio in dB.
        noise: [b, 2k], standard normal.
    """
    return gain[:, None] * symbols + noise_variance(snr_db).sqrt()[:, None] * noise


def arrived(symbols: Tensor, gain: Tensor, snr_db: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a receiver has: `transmitted`, and what it knows of the channel, the mean signal-to-noise ratio
    and the amplitude [b].

    Args:
        symbols: [b, 2k].
        gain: [b].
        snr_db: [b].
        noise: [b, 2k].
    """
    return transmitted(symbols, gain, snr_db, noise), snr_db, gain
