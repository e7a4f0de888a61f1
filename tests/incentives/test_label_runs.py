"""Reported labels that are paid for, in a run."""

import numpy as np
import pytest

from fedray import checks
from fedray.incentives.scores import quadratic_score
from fedray.planning.bidding import label_shares
from fedray.planning.plan import plan
from fedray.planning.shared import shared
from fedray.randomness import generator
from fedray.scenario import ScenarioError
from tests.helpers import garments, job_of, rows, run, unevaluated

BASE = {
    "population": {"clients": 6, "per_round": 3, "selection": "label_cover"},
    "incentive": {"kind": "label_scores", "price": 2.0},
    "data.partition": {"kind": "dirichlet", "alpha": 0.5},
}


def scenario(folder, changes=None):
    return garments(folder, BASE | (changes or {}))


def total(folder, changes=None):
    return plan(checks.check(scenario(folder, changes)))["total"]


def lie(factor):
    return {"adversary": {"clients": [0, 2, 4], "attack": {"kind": "misreport", "factor": factor}}}


def known(file):
    from fedray.data import holdings

    job = job_of(file)[1]
    return shared(job.scenario, *holdings(job.scenario, job.folder))


def test_a_round_pays_each_client_the_score_of_its_report_at_an_audited_sample(tmp_path):
    file = scenario(tmp_path, {"training.rounds": 1})
    with unevaluated():
        run(file, tmp_path / "run")
    (row,) = rows(tmp_path / "run" / "metrics.jsonl")
    reports = label_shares(known(file).counts)
    paid = 0.0
    for client in rows(tmp_path / "run" / "clients.jsonl"):
        report = reports[client["client"]]
        audited = generator(0, 1, client["client"], "audited sample").choice(np.arange(10), p=report)
        paid += 2.0 * (1 + quadratic_score(report, int(audited)))
    assert row["paid"] == pytest.approx(paid)
    assert row["social_cost"] == 0


@pytest.mark.parametrize("factor", [0.01, 0.5, 3.0])
def test_no_other_report_of_labels_gains(factor, tmp_path):
    assert total(tmp_path, lie(factor))["misreport_gain"] < 0


def test_attackers_report_other_counts_and_have_the_same_samples(tmp_path):
    honest = known(scenario(tmp_path))
    lied = known(scenario(tmp_path, lie(0.01)))
    assert (lied.true_counts == honest.counts).all()
    assert (lied.counts[[1, 3, 5]] == honest.counts[[1, 3, 5]]).all()
    held = honest.counts[0] > 0
    assert np.ptp(lied.counts[0][held]) <= 2 < np.ptp(honest.counts[0][held])  # shares become nearly equal


def test_a_report_under_strong_noise_is_paid_less_on_average(tmp_path):
    rounds = {"training.rounds": 40}
    noisy = {"population": BASE["population"] | {"label_epsilon": 0.02}}
    assert total(tmp_path, rounds | noisy)["paid"] < total(tmp_path, rounds)["paid"]


def test_a_client_that_reports_nothing_is_taken_to_have_equally_many_of_each_label():
    assert label_shares(np.array([[0, 0], [3, 1]])).tolist() == [[0.5, 0.5], [0.75, 0.25]]


def test_scores_are_refused_where_nobody_reports_labels(tmp_path):
    changes = {"population": {"clients": 6, "per_round": 3}}
    with pytest.raises(ScenarioError, match="label_scores where nobody reports labels"):
        checks.check(scenario(tmp_path, changes))


def test_a_negative_price_of_labels_is_refused(tmp_path):
    with pytest.raises(ScenarioError, match=r"incentive\.price: got -1, expected a number above 0"):
        checks.check(scenario(tmp_path, {"incentive": BASE["incentive"] | {"price": -1}}))
