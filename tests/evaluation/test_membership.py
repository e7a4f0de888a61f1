import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from fedray.evaluation.membership import auc, true_positives


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
