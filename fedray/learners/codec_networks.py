"""The networks of a codec: what they learn is added to what linear maps leave."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIDDLE_DB = 7.5  # signal-to-noise ratios are told to networks about here,
SCALE_DB = 10.0  # in these units


class Attention(nn.Module):
    """Scales channels by what is in them and by the signal-to-noise ratio: the attention feature module of Xu
    et al. 2022, Fig. 3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Linear(channels + 1, channels // 2)
        self.outer = nn.Linear(channels // 2, channels)

    def forward(self, x: Tensor, snr: Tensor) -> Tensor:
        """Features [b, c, h, w], and ratios [b, 1] as `scaled_snr` gives them."""
        seen = torch.cat([x.mean((2, 3)), snr], 1)
        # twice, so that it begins near 1
        scales = 2 * self.outer(F.silu(self.inner(seen))).sigmoid()
        return x * scales[:, :, None, None]


class SymbolNetwork(nn.Module):
    """What is added to linear symbols, which it sees; nothing at first."""

    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(symbols + 1, hidden)
        self.outer = nn.Linear(hidden, symbols)
        _zero(self.outer)

    def forward(self, symbols: Tensor, snr: Tensor) -> Tensor:
        """Symbols [b, 2k], and ratios [b, 1] as `scaled_snr` gives them."""
        return symbols + self.outer(F.silu(self.inner(torch.cat([symbols, snr], 1))))


class ImageNetwork(nn.Module):
    """What is added to a linear estimate of an image, which it sees: a U-Net of three levels; nothing at
    first."""

    def __init__(self, channels: int, width: int) -> None:
        """`channels` of an image; `width`: the network's at the image's size."""
        super().__init__()
        wide = 2 * width
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.Conv2d(width, wide, 4, stride=2, padding=1)
        self.before = nn.Conv2d(wide, wide, 3, padding=1)
        self.downer = nn.Conv2d(wide, wide, 4, stride=2, padding=1)
        self.middle = nn.Conv2d(wide, wide, 3, padding=1)
        self.upper = nn.ConvTranspose2d(wide, wide, 4, stride=2, padding=1)
        self.behind = nn.Conv2d(wide, wide, 3, padding=1)
        self.up = nn.ConvTranspose2d(wide, width, 4, stride=2, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        self.attentions = nn.ModuleList(map(Attention, (width, wide, wide, wide)))
        _zero(self.last)

    def forward(self, images: Tensor, snr: Tensor) -> Tensor:
        """Images [b, c, h, w], and ratios [b, 1] as `scaled_snr` gives them."""
        at_first, at_down, at_middle, at_behind = self.attentions
        whole = at_first(F.silu(self.first(images)), snr)
        half = F.silu(self.down(whole))
        half = half + at_down(F.silu(self.before(half)), snr)
        quarter = F.silu(self.downer(half))
        quarter = quarter + at_middle(F.silu(self.middle(quarter)), snr)
        x = F.silu(self.upper(quarter)) + half
        x = x + at_behind(F.silu(self.behind(x)), snr)
        return images + self.last(F.silu(self.up(x)) + whole)


def scaled_snr(snr_db: Tensor) -> Tensor:
    """Ratios [b] in dB as networks are told them [b, 1]: of the order of 1."""
    return (snr_db[:, None].clamp(-20, 40) - MIDDLE_DB) / SCALE_DB


def _zero(layer: nn.Linear | nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
