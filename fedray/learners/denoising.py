"""The loss of held-out samples; of a learner that denoises, under noise and timesteps that are the same in
every round."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from fedray.data import Samples
from fedray.randomness import SERVER, key
from fedray.scenario.evaluation import Denoising, Evaluation


class Measured(Protocol):
    """What is needed here of a learner (see learner.Learner)."""

    section: Any
    context: Any
    held_out_at_once: ClassVar[int]

    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, float]: ...

    def encode(self, samples: Samples, indices: np.ndarray) -> Any: ...

    def noised(
        self, shard: Any, indices: np.ndarray, levels: Tensor, generators: Sequence[torch.Generator]
    ) -> Any: ...

    def loss(self, batch: Any) -> Tensor: ...

    def evaluating(self) -> AbstractContextManager[None]: ...


class MeasuresHeldOut:
    """The part of a learner that measures held-out samples; its section says whether it `denoises`.

    Attributes:
        held_out_at_once: samples that a learner which denoises measures in one go.
    """

    held_out_at_once: ClassVar[int] = 64

    def measure_held_out(
        self: Measured, samples: Samples, indices: np.ndarray, evaluation: Evaluation, client: int
    ) -> dict[str, float]:
        """Metrics over samples that nobody trains on, by names that begin with `eval_`: what `measure` says;
        of a learner that denoises, its `denoising_loss`.

        Args:
            samples: some of which are measured.
            indices: those [n].
            evaluation: whose `denoising` says how often each gets noise; None: as by default.
            client: whose they are.
        """
        if not self.section.denoises:
            return self.measure(samples, indices)
        return denoising_loss(self, samples, indices, evaluation.denoising or Denoising(), client)

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


@torch.no_grad()
def denoising_loss(
    learner: Measured, samples: Samples, indices: np.ndarray, denoising: Denoising, client: int = SERVER
) -> dict[str, float]:
    """The mean loss over samples and noise, and the same at each level of noise, from the least to the most,
    as `eval_loss_noise_1` and so on.

    Each sample has `draws` noises of its own, one timestep in each of as many equal parts of what training
    draws its timesteps from (stratified sampling): the mean is an unbiased estimate of the training loss with
    every caption read, with less variance than timesteps that are drawn freely. Noise and timesteps come from
    the scenario's seed, the client and the sample's place among these: two rounds, and two models of one
    scenario, are compared under the same ones.

    Args:
        learner: whose section `denoises`.
        samples: some of which are measured.
        indices: those [n].
        denoising: says how many draws, and levels.
        client: whose they are.
    """
    draws = denoising.draws
    totals = np.zeros(draws)
    with learner.evaluating():
        for start in range(0, len(indices), learner.held_out_at_once):
            chunk = indices[start : start + learner.held_out_at_once]
            shard = learner.encode(samples, chunk)
            places = range(start, start + len(chunk))
            seeds = [key(learner.context.seed, 0, client, f"held-out noise {place}") for place in places]
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            for stratum in range(draws):
                within = [torch.rand((), generator=g, dtype=torch.float64) for g in generators]
                levels = (stratum + torch.stack(within)) / draws
                batch = learner.noised(shard, np.arange(len(chunk)), levels, generators)
                totals[stratum] += float(learner.loss(batch)) * len(chunk)
    means = totals / len(indices)
    groups = np.array_split(means, min(denoising.levels, draws))
    by_level = {f"eval_loss_noise_{i}": float(group.mean()) for i, group in enumerate(groups, 1)}
    return {"eval_loss": float(means.mean())} | by_level


def named(measured: Mapping[str, float], name: str) -> dict[str, float]:
    """A loss and its levels as metrics of another name than eval_loss."""
    return {metric.replace("eval_loss", name, 1): round(value, 6) for metric, value in measured.items()}
