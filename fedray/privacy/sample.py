"""DP-SGD in a local update (Abadi et al. 2016, Algorithm 1), for any learner: its samples go through it one
by one, and each one's gradient is clipped before they are added."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fedray.privacy.mechanism import Mechanism
from fedray.privacy.noise import clipped, gaussian


class Sample(Mechanism):
    """Takes the gradient of a batch. It does nothing to updates: what DP-SGD has made is private already."""

    def gradient(
        self, gradient: Tensor, losses: Callable[[int], Tensor], samples: int, expected: int, draw: int
    ) -> float:
        """The noisy mean gradient of a batch, and its samples' mean loss (0 of an empty one).

        Args:
            gradient: [n] fp32, into which the backward pass of a loss adds; it has the result afterwards.
            losses: the loss of the batch's i-th sample alone.
            samples: of the batch.
            expected: that a batch has on average, by which the sum is divided.
            draw: key of the noise.
        """
        total = torch.zeros_like(gradient)
        loss = 0.0
        for i in range(samples):
            gradient.zero_()
            one = losses(i)
            one.backward()
            loss += float(one.detach())
            total += clipped(gradient, self.section.clip_norm)[0]
        scale = self.multiplier * self.section.clip_norm
        noise = scale * gaussian(len(total), self.section.noise, draw)
        gradient.copy_((total + noise.to(total)) / expected)
        return loss / max(1, samples)

    def batches(self, sizes: Sequence[int], samples: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Batches in which each sample is with the same probability, independently (Poisson).

        Args:
            sizes: on average.
            samples: that there are.
            rng: what draws.
        """
        return [np.flatnonzero(rng.random(samples) < size / samples) for size in sizes]
