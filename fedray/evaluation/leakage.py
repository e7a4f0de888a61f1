"""What smashed activations tell of a client's inputs."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH = 32  # of the attacker


def distance_correlation(inputs: Tensor, smashed: Tensor) -> Tensor:
    """The distance correlation of n samples and their activations (Szekely et al. 2007): 0 where they are
    independent, 1 where one is a rotation and scaling of the other. Of words the distance is the root of how
    many differ."""
    a = _centred(inputs)
    b = _centred(smashed)
    covariance = (a * b).mean().clamp(min=0)
    spread = (a * a).mean() * (b * b).mean()
    return (covariance / spread.clamp(min=1e-24).sqrt()).clamp(min=1e-12).sqrt()


def _centred(x: Tensor) -> Tensor:
    """Distances [n, n] between samples, less the means of their rows and columns."""
    if x.is_floating_point():
        flat = x.flatten(1).float()
        squares = (flat[:, None] - flat[None]).square().sum(-1)
    else:
        squares = (x.flatten(1)[:, None] != x.flatten(1)[None]).sum(-1).float()
    distances = (squares + 1e-12).sqrt()  # a root at 0 has no gradient
    return distances - distances.mean(0, keepdim=True) - distances.mean(1, keepdim=True) + distances.mean()


def reconstruct(
    smashed: Tensor, inputs: Tensor, known: int, words: int, steps: int, seed: int
) -> tuple[float, Tensor]:
    """An attacker who knows the first so many samples with their activations learns to invert these (an
    inverse network, He et al. 2019), and tries it on the others.

    Gives the error over the others: of pictures the mean squared error as a share of their variance, 1 for
    whoever only knows the mean picture; of text the share of tokens, out of so many `words`, that are wrong;
    and what it makes of them.

    Args:
        smashed: activations [n, ...], as the server gets them.
        inputs: what they were made of [n, ...].
        known: how many of the first samples the attacker knows.
        words: of the vocabulary; 0: of pictures.
        steps: of the attacker's optimizer.
        seed: of the attacker's draws.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder, judge = _decoder(smashed, inputs, words)
        decoder = decoder.to(smashed.device).requires_grad_(True)
        optimizer = torch.optim.Adam(decoder.parameters(), 1e-3)
        drawn = np.random.default_rng(seed)
        with torch.enable_grad():
            for _ in range(steps):
                some = torch.from_numpy(drawn.choice(known, min(BATCH, known), replace=False)).to(
                    smashed.device
                )
                optimizer.zero_grad()
                judge(decoder(smashed[some]), inputs[some]).backward()
                optimizer.step()
    with torch.no_grad():
        rebuilt = decoder(smashed[known:])
        true = inputs[known:]
        if words:
            rebuilt = rebuilt.argmax(1)
            return float((rebuilt != true).float().mean()), rebuilt
        return float(
            (rebuilt - true).square().mean() / (true - inputs[:known].mean(0)).square().mean()
        ), rebuilt


def _decoder(
    smashed: Tensor, inputs: Tensor, words: int
) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    """From [n, c, h, w] to pictures by convolutions, from anything else by a dense layer; to tokens [n,
    words, l]."""
    if words:
        return nn.Sequential(nn.Linear(smashed.shape[-1], words), _Transposed()), _over_tokens
    if smashed.ndim == 4:
        c = smashed.shape[1]
        size = inputs.shape[-2:]
        first = [
            nn.Conv2d(c, 32, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(size=tuple(size)),
            nn.Conv2d(32, 16, 3, padding=1),
            nn.ReLU(),
        ]
        return nn.Sequential(*first, nn.Conv2d(16, inputs.shape[1], 3, padding=1)), F.mse_loss
    wide = math.prod(smashed.shape[1:])
    shape = tuple(inputs.shape[1:])
    dense = [
        nn.Flatten(),
        nn.Linear(wide, 256),
        nn.ReLU(),
        nn.Linear(256, math.prod(shape)),
        nn.Unflatten(1, shape),
    ]
    return nn.Sequential(*dense), F.mse_loss


def _over_tokens(rebuilt: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy of [n, words, l] and [n, l], token by token: over whole texts CUDA has no deterministic
    one."""
    return F.cross_entropy(rebuilt.transpose(1, 2).flatten(0, 1), tokens.flatten())


class _Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)
