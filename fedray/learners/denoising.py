"""The denoising loss of held-out samples, under noise and timesteps that are the same in every round."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fedray.data import Samples
from fedray.randomness import SERVER, key
from fedray.scenario.evaluation import Denoising, Evaluation


class MeasuresHeldOut:
    """The part of a learner that measures held-out samples; its section says whether it `denoises`.

    Attributes:
        section: the scenario's `model`.
        context: what else the learner was built from.
    """

    held_out_at_once: ClassVar[int] = 64  # samples that are measured in one go
    section: Any
    context: Any

    def measure_held_out(
        self, samples: Samples, indices: np.ndarray, evaluation: Evaluation, client: int
    ) -> dict[str, float]:
        """Metrics over samples that nobody trains on, by names that begin with `eval_`: what `measure` says;
        of a learner that denoises, its loss by `denoising_loss`.

        Args:
            samples: some of which are measured.
            indices: those [n].
            evaluation: whose `denoising` says how often each gets noise; None: as by default.
            client: whose they are.
        """
        if not self.section.denoises:
            return self.measure(samples, indices)
        return self.denoising_loss(samples, indices, evaluation.denoising or Denoising(), client)

    @torch.no_grad()
    def denoising_loss(
        self, samples: Samples, indices: np.ndarray, denoising: Denoising, client: int = SERVER
    ) -> dict[str, float]:
        """The mean loss over samples and noise, and the same at each level of noise, from the least to the
        most, as `eval_loss_noise_1` and so on.

        Each sample has `draws` noises of its own, one timestep in each of as many equal parts of what
        training draws its timesteps from (stratified sampling): the mean is an unbiased estimate of the
        training loss with every caption read, with less variance than timesteps that are drawn freely.
        Noise and timesteps come from the scenario's seed, the client and the sample's place among these: two
        rounds, and two models of one scenario, are compared under the same ones.

        Args:
            samples: some of which are measured.
            indices: those [n].
            denoising: says how many draws, and levels.
            client: whose they are.
        """
        draws = denoising.draws
        totals = np.zeros(draws)
        with self.evaluating():
            for start in range(0, len(indices), self.held_out_at_once):
                chunk = indices[start : start + self.held_out_at_once]
                shard = self.encode(samples, chunk)
                places = range(start, start + len(chunk))
                seeds = [key(self.context.seed, 0, client, f"held-out noise {place}") for place in places]
                generators = [torch.Generator().manual_seed(seed) for seed in seeds]
                for stratum in range(draws):
                    within = [torch.rand((), generator=g, dtype=torch.float64) for g in generators]
                    levels = (stratum + torch.stack(within)) / draws
                    batch = self.noised(shard, np.arange(len(chunk)), levels, generators)
                    totals[stratum] += float(self.loss(batch)) * len(chunk)
        means = totals / len(indices)
        result = {"eval_loss": float(means.mean())}
        groups = np.array_split(means, min(denoising.levels, draws))
        return result | {f"eval_loss_noise_{i}": float(group.mean()) for i, group in enumerate(groups, 1)}

    def noised(
        self, shard: Any, indices: np.ndarray, levels: Tensor, generators: Sequence[torch.Generator]
    ) -> Any:
        """A step's inputs as `draw` has them, with every caption, at given levels of noise; for a learner
        whose section `denoises`.

        Args:
            shard: what `encode` gave.
            indices: [b], of samples in the shard.
            levels: [b] fp64 in 0..1, from the least noise to the most: which quantile of the distribution
                that `draw` takes timesteps from.
            generators: b of them, on the CPU: each sample's draws come from its own.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no noise away")

    # what a learner has

    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, float]:
        raise NotImplementedError

    def encode(self, samples: Samples, indices: np.ndarray) -> Any:
        raise NotImplementedError

    def loss(self, batch: Any) -> Tensor:
        raise NotImplementedError

    def evaluating(self) -> AbstractContextManager[None]:
        raise NotImplementedError


def named(measured: Mapping[str, float], name: str) -> dict[str, float]:
    """A loss and its levels as metrics of another name than eval_loss."""
    return {metric.replace("eval_loss", name, 1): round(value, 6) for metric, value in measured.items()}
