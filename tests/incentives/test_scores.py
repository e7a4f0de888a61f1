"""Scores of shared labels, and payment for quality."""

import numpy as np
import pytest

from fedray.incentives.scores import audit_payments, expected_score, quadratic_score, quality_payments

TRUTH = [0.5, 0.3, 0.2]


@pytest.mark.parametrize(
    ("report", "score"), [(TRUTH, 0.38), ([1 / 3] * 3, 1 / 3), ([0.34, 0.33, 0.33], 0.3366)]
)
def test_the_expected_scores_of_the_worked_example(report, score):
    assert expected_score(report, TRUTH) == pytest.approx(score)


def test_no_report_scores_above_the_truth():
    reports = np.random.default_rng(0).dirichlet(np.ones(3), 500)
    assert max(expected_score(report, TRUTH) for report in reports) < expected_score(TRUTH, TRUTH)


def test_audits_pay_the_mean_score_and_never_below_zero():
    paid = audit_payments([[1, 0], [1, 0], [0.5, 0.5]], [[0, 0], [1], []], 10)
    assert paid == pytest.approx([10 * (1 + quadratic_score([1, 0], 0)), 0, 0])


def test_quality_shares_the_budget_among_those_that_improve_the_model():
    assert quality_payments([0.03, -0.5, 0.01], 8) == pytest.approx([6, 0, 2])
    assert quality_payments([-0.1, 0], 8).tolist() == [0, 0]


def test_a_report_that_is_no_distribution_is_refused():
    with pytest.raises(ValueError, match="expected numbers that add up to 1"):
        quadratic_score([0.5, 0.6], 0)
