"""How far clients' gradients can lie from the population's."""

import numpy as np
import pytest
import torch

from fedray.evaluation.gradient_bound import gradient_bounds
from fedray.scenario import ScenarioError
from tests.helpers import ARTISTS, garments, job_of, rows, run


def test_it_is_the_closed_form_of_two_clients_of_two_labels():
    # mixes (3/4, 1/4) and (0, 1); the population's (3/6, 3/6): differences of 1/4 and 1/2 a label
    counts = np.array([[3, 1], [0, 2], [0, 0]])
    assert gradient_bounds(counts, np.array([2.0, 6.0])) == pytest.approx([0.25 * 8, 0.5 * 8])


def test_no_gradient_lies_further_away_where_samples_of_a_label_are_alike():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(5, 40))  # of each label's only sample
    counts = rng.integers(0, 9, (12, 5)) + np.eye(5, dtype=int)[rng.integers(0, 5, 12)]
    mixes = counts / counts.sum(1, keepdims=True)
    gap = np.linalg.norm(mixes @ gradients - (counts.sum(0) / counts.sum()) @ gradients, axis=1)
    bounds = gradient_bounds(counts, np.linalg.norm(gradients, axis=1))
    assert (gap <= bounds).all()
    along = np.outer([1.0, -1.0], gradients[0])  # of two labels whose gradients are opposite: equal to it
    two = np.array([[4, 1], [2, 7]])
    mixes = two / two.sum(1, keepdims=True)
    gap = np.linalg.norm(mixes @ along - (two.sum(0) / two.sum()) @ along, axis=1)
    assert gap == pytest.approx(gradient_bounds(two, np.linalg.norm(along, axis=1)))


def test_a_run_measures_it_with_label_gradients_of_the_test_set(tmp_path):
    changes = {"evaluation": {"gradient_bound": {}}, "training.rounds": 1}
    run(garments(tmp_path, changes), tmp_path / "run")
    (row,) = rows(tmp_path / "run" / "metrics.jsonl")
    assert 0 < row["eval_gradient_bound"] < row["eval_gradient_bound_max"]


def test_label_gradients_are_those_of_the_mean_loss(tmp_path):
    from fedray.evaluation.gradient_bound import _mean_gradient_norm
    from tests.helpers import begun

    learner = begun(garments(tmp_path)).clients.learner
    samples = job_of(garments(tmp_path))[1].dataset.test
    chosen = np.flatnonzero(samples.labels == 3)
    shard = learner.encode(samples, chosen)
    norm = _mean_gradient_norm(learner, shard, len(chosen))
    learner.network.zero_grad()
    images = shard.images.float() / 127.5 - 1
    torch.nn.functional.cross_entropy(learner.network(images), shard.labels).backward()
    expected = torch.cat([p.grad.flatten() for p in learner.network.parameters()]).norm()
    assert norm == pytest.approx(float(expected), rel=1e-4)


def test_it_is_refused_without_a_test_set(tmp_path):
    with pytest.raises(ScenarioError, match=r"evaluation\.gradient_bound: got one for classifier on image"):
        job_of(garments(tmp_path, ARTISTS | {"evaluation": {"gradient_bound": {}}}))
