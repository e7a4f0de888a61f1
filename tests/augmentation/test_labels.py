"""Who reports which labels, which of them are painted, and how far mixes lie apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.augmentation import labels
from fedray.data.census import distance
from fedray.planning.round import schedule_round
from fedray.planning.selection import SelectionContext, label_cover
from fedray.planning.shared import Shared, reported_counts
from fedray.scenario.augmentation import Augmentation
from fedray.scenario.weighting import Fixed, Linear
from tests.helpers import garments, job_of

COUNTS = st.lists(st.integers(0, 40), min_size=2, max_size=6).filter(any)


@given(counts=COUNTS, per_class=st.integers(1, 5), at_most=st.integers(1, 12), rounds=st.integers(1, 9))
@settings(max_examples=80)
def test_pictures_come_per_class_a_round_up_to_the_most_whichever_labels_are_chosen(
    counts, per_class, at_most, rounds
):
    counts = np.array(counts)
    for chosen in ("uniform", "lacking"):
        section = Augmentation(per_class=per_class, at_most=at_most, labels=chosen)
        order, n = labels.order(section, counts), labels.painted(section, len(counts), rounds)
        assert n == len(counts) * min(per_class * rounds, at_most)
        assert (np.bincount(order, minlength=len(counts)) == at_most).all()
        assert len(order[:n]) == n


@given(counts=COUNTS, n=st.integers(0, 60))
@settings(max_examples=80)
def test_lacking_paints_always_one_of_which_there_are_fewest(counts, n):
    counts = np.array(counts)
    order = labels.order(Augmentation(labels="lacking", at_most=60), counts)[:n]
    have = counts.copy()
    for label in order:
        assert have[label] == have.min()
        have[label] += 1


def test_uniform_goes_round_the_labels():
    assert labels.order(Augmentation(at_most=2), np.array([9, 0, 3])).tolist() == [0, 1, 2, 0, 1, 2]


def test_reported_counts_are_exact_or_under_noise_of_the_asked_for_scale(tmp_path):
    from fedray.data import holdings

    scenario = job_of(garments(tmp_path))[1].scenario
    samples, held = holdings(scenario, tmp_path)
    exact = reported_counts(scenario, samples, held)
    assert exact.sum() == 2500
    assert exact.shape == (5, 10)
    for epsilon in (0.02, 0.5):
        private = scenario.model_copy(
            update={"population": scenario.population.model_copy(update={"label_epsilon": epsilon})}
        )
        noisy = reported_counts(private, samples, held)
        assert (noisy == reported_counts(private, samples, held)).all()  # drawn once
        assert noisy.min() >= 0
    many = exact > 20  # where zero does not cut it off
    # a Laplace variable's mean magnitude is its scale
    assert np.abs(noisy - exact)[many].mean() == pytest.approx(1 / epsilon, rel=0.4)


@given(seed=st.integers(0, 500), n=st.integers(1, 6))
@settings(max_examples=60)
def test_clients_chosen_by_cover_are_different_ones_and_cover_as_much_as_any_greedy_choice(seed, n):
    rng = np.random.default_rng(seed)
    counts = np.eye(6, dtype=int)[rng.permutation(np.repeat(np.arange(6), 3))] * rng.integers(1, 9, (18, 1))
    clients = np.arange(18)
    chosen = label_cover(SelectionContext(1, clients, clients, n, np.random.default_rng(seed), counts))
    assert len(set(chosen)) == n
    # clients of one label each: every choice brings another label
    assert np.count_nonzero(counts[chosen].sum(0)) == n


def test_a_scenario_may_choose_its_clients_by_cover(tmp_path):
    from fedray.data import holdings
    from fedray.network.radio import Radio
    from fedray.planning.shared import shared

    changes = {
        "population": {"clients": 30, "per_round": 5, "selection": "label_cover"},
        "data.partition": {"kind": "shards", "per_client": 1},
    }
    scenario = job_of(garments(tmp_path, changes))[1].scenario
    known = shared(scenario, *holdings(scenario, tmp_path))
    random = scenario.model_copy(
        update={"population": scenario.population.model_copy(update={"selection": "random"})}
    )
    covered = {}
    for name, one in (("cover", scenario), ("random", random)):
        rounds = [schedule_round(one, Radio(one.network), t, known).clients for t in range(1, 21)]
        covered[name] = np.mean([np.count_nonzero(known.counts[clients].sum(0)) for clients in rounds])
        assert all(len(clients) == 5 for clients in rounds)
        assert len({tuple(clients) for clients in rounds}) > 10
    assert covered["cover"] > 8.5 > 7 > covered["random"]  # of ten labels; most clients have one, some two


def test_distances_are_those_of_zhao_2018():
    counts = np.array([[10, 0], [0, 10], [5, 5], [0, 0]])
    assert distance(counts[:3], np.array([15, 15])).tolist() == [1.0, 1.0, 0.0]
    section = Augmentation(weighting=Fixed(kappa_1=0.75, kappa_2=0.25))
    told = labels.distances(section, counts, np.array([0, 1] * 5), 0.25)
    assert told["emd_before"] == [1.0, 1.0, 0.0, None]
    assert told["emd_after"] == [0.75, 0.75, 0.0, None]  # kappa_1 of its own mix, kappa_2 of an even one
    sent = labels.distances(Augmentation(at="server_broadcast"), counts, np.array([0, 1] * 5), 0.0)
    assert sent["emd_after"] == [0.5, 0.5, 0.0, None]  # ten of its own, ten painted


def test_kappas_go_in_a_line():
    section = Augmentation(weighting=Linear(kind="linear", first=1.0, last=0.0))
    assert [section.weighting.kappas(t, 5) for t in (1, 2, 5)] == [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0)]


def test_a_client_without_samples_is_never_asked(tmp_path):
    changes = {
        "population.clients": 40,
        "data.partition": {"kind": "dirichlet", "alpha": 0.02, "allow_empty": True},
    }
    scenario = job_of(garments(tmp_path, changes))[1].scenario
    samples = [0] * 20 + [3] * 20
    assert Shared(samples).eligible(scenario).tolist() == list(range(20, 40))
