from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from fedray.evaluation.membership import auc, losses, true_positives


class Noisy:
    """A learner whose loss is a sample's number plus noise, averaged over a batch."""

    evaluating = staticmethod(nullcontext)

    def encode(self, samples, indices):
        return samples[indices]

    def draw(self, shard, indices, generator):
        return torch.from_numpy(shard[indices]) + torch.randn(len(indices), generator=generator)

    def loss(self, batch):
        return batch.mean()


def test_every_sample_s_loss_is_a_mean_over_the_same_draws():
    samples = np.array([5.0, 1.0, 3.0])
    found = losses(Noisy(), samples, np.array([2, 0]), 4, seed=7)
    noise = torch.randn(4, generator=torch.Generator().manual_seed(7)).mean()
    assert found == pytest.approx([3 + float(noise), 5 + float(noise)])


def test_the_area_is_mann_and_whitney_s_statistic_ties_and_all():
    rng = np.random.default_rng(0)
    members = rng.integers(0, 20, 60).astype(float)
    others = rng.integers(3, 25, 80).astype(float)
    expected = mannwhitneyu(others, members).statistic / (60 * 80)
    assert auc(members, others) == pytest.approx(expected)
    assert auc(np.zeros(3), np.ones(4)) == 1.0
    assert auc(np.ones(3), np.ones(4)) == 0.5


def test_true_positives_are_counted_where_one_in_a_thousand_others_is_named():
    members = np.array([0.5, 1.5, 2.5, 9.0])
    others = np.arange(1.0, 2001.0)  # two of them may have lower losses than the threshold
    assert true_positives(members, others) == 0.75
    assert true_positives(members, others[:999]) == 0.25  # none may
