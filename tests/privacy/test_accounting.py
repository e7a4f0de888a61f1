"""Epsilon against what dp-accounting gives for the published settings, and the noise that keeps to one."""

import pytest

from fedray.privacy.accounting import epsilon, facts, refuse_other_noise, with_noise
from fedray.privacy.events import tree_sensitivity
from fedray.scenario import load
from fedray.scenario.privacy import Central, Sample, Tree
from tests.helpers import garments


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    return load(garments(tmp_path_factory.mktemp("accounting"))).scenario


def changed(scenario, privacy, rounds, **population):
    """A scenario with this privacy, rounds and population."""
    sections = {
        "privacy": privacy,
        "training": scenario.training.model_copy(update={"rounds": rounds}),
        "population": scenario.population.model_copy(update=population),
    }
    return scenario.model_copy(update=sections)


def central(noise, **options):
    return Central(kind="central", clip_norm=1.0, noise_multiplier=noise, **options)


# share of clients a round, noise multiplier, rounds, delta; epsilon by RDP and by PLD
KNOWN = [
    (1, 1.0, 1, 1e-5, 4.728507, 4.377178),
    (0.1, 1.0, 100, 1e-5, 7.903850, 7.046603),
    (0.01, 1.1, 1000, 1e-5, 1.711770, 1.515370),
    (0.25, 1.0, 20, 1e-2, 4.931335, 3.865674),
]


@pytest.mark.parametrize(("rate", "noise", "rounds", "delta", "rdp", "pld"), KNOWN)
def test_epsilon_of_poisson_rounds_is_the_known_one(scenario, rate, noise, rounds, delta, rdp, pld):
    pytest.importorskip("dp_accounting")
    privacy = central(noise, delta=delta)
    drawn = {"clients": 1000, "per_round": round(1000 * rate), "sampling": "poisson"}
    whole = changed(scenario, privacy, rounds, **drawn)
    assert epsilon(whole, [], rounds) == pytest.approx(rdp, abs=1e-6)
    assert epsilon(whole, [], rounds, "pld") == pytest.approx(pld, abs=1e-4)


def test_rounds_of_a_fixed_size_cost_more_and_replacing_a_client_changes_a_sum_twice_as_much(scenario):
    pytest.importorskip("dp_accounting")
    fixed = {"clients": 1000, "per_round": 100}
    # 14.053750 is at noise of one sensitivity, which for neighbours that replace a client is 2 C
    whole = changed(scenario, central(2.0), 100, **fixed)
    assert epsilon(whole, [], 100) == pytest.approx(14.053750, abs=1e-6)
    assert epsilon(whole, [], 100, "pld") is None
    assert facts(whole, [])["neighbours"] == "replace one"


def test_clients_that_are_chosen_for_what_they_are_amplify_nothing(scenario):
    pytest.importorskip("dp_accounting")
    all_rounds = changed(scenario, central(1.0), 1, clients=1000, per_round=1000)
    chosen = changed(scenario, central(1.0), 1, clients=1000, per_round=100, selection="label_cover")
    assert epsilon(chosen, [], 1) == epsilon(all_rounds, [], 1) == pytest.approx(4.728507, abs=1e-6)


@pytest.mark.parametrize(("noise", "rounds", "known"), [(4.0, 64, 2.958509), (10.0, 200, 1.158151)])
def test_epsilon_of_a_tree_in_which_each_client_is_once_is_the_known_one(scenario, noise, rounds, known):
    pytest.importorskip("dp_accounting")
    privacy = Tree(kind="tree", clip_norm=1.0, noise_multiplier=noise)
    whole = changed(scenario, privacy, rounds, clients=rounds, per_round=1, selection="round_robin")
    assert epsilon(whole, [], rounds) == pytest.approx(known, abs=1e-6)


def test_a_client_that_comes_back_counts_in_each_node_above_its_rounds():
    # two of four leaves: themselves (2), the left half with both (4) and the root (4)
    assert tree_sensitivity([0, 1], 4) ** 2 == pytest.approx(2 + 4 + 4)
    # one in each half: themselves (2), each half (2) and the root (4)
    assert tree_sensitivity([0, 2], 4) ** 2 == pytest.approx(2 + 2 + 4)


def test_the_noise_for_an_epsilon_is_the_least_that_keeps_to_it(scenario):
    pytest.importorskip("dp_accounting")
    privacy = Central(kind="central", clip_norm=1.0, epsilon=8.0)
    whole = changed(scenario, privacy, 100, clients=1000, per_round=100, sampling="poisson")
    solved = with_noise(whole, [])
    noise = solved.privacy.noise_multiplier
    assert noise == pytest.approx(0.995, abs=2e-3)
    less = solved.privacy.model_copy(update={"noise_multiplier": noise - 1e-3})
    assert epsilon(solved, [], 100) <= 8 < epsilon(solved.model_copy(update={"privacy": less}), [], 100)


def test_samples_are_protected_by_their_batches_of_the_client_that_has_fewest(scenario):
    pytest.importorskip("dp_accounting")
    training = scenario.training.model_copy(update={"local_steps": 5, "batch_size": 10})
    privacy = Sample(kind="sample", clip_norm=1.0, noise_multiplier=1.0)
    whole = changed(scenario, privacy, 20).model_copy(update={"training": training})
    # 20 turns of 5 steps, each with 10 of 100 samples: the second of the known ones
    assert epsilon(whole, [400, 100, 0], 20) == pytest.approx(7.903850, abs=1e-6)


def test_a_run_does_not_go_on_with_other_noise_than_it_began_with(scenario):
    whole = changed(scenario, central(1.5), 20)
    refuse_other_noise(whole, {"noise_multiplier": 1.5})
    with pytest.raises(ValueError, match=r"got 1.5 for 20 rounds, where the run began with 1.2, expected"):
        refuse_other_noise(whole, {"noise_multiplier": 1.2})


def test_without_the_library_epsilon_is_unknown_and_one_that_is_asked_for_refused(scenario, monkeypatch):
    monkeypatch.setattr("fedray.privacy.accounting.installed", lambda: False)
    assert epsilon(changed(scenario, central(1.0), 1), [], 1) is None
    asked = changed(scenario, Central(kind="central", clip_norm=1.0, epsilon=8.0), 1)
    with pytest.raises(ValueError, match=r"got 8 without dp-accounting, expected pip install"):
        with_noise(asked, [])


def test_an_epsilon_that_protects_nothing_is_not_computed_tightly(scenario):
    pytest.importorskip("dp_accounting")
    known = facts(changed(scenario, central(0.01), 1, clients=10, per_round=10), [], pld=True)
    assert known["epsilon"] > 1000
    assert known["epsilon_pld"] is None


def test_check_says_epsilon_before_anything_trains(fedray, tmp_path):
    pytest.importorskip("dp_accounting")
    privacy = {"kind": "central", "clip_norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-2}
    drawn = {"clients": 20, "per_round": 5, "sampling": "poisson"}
    changes = {"privacy": privacy, "population": drawn, "training.rounds": 20}
    file = garments(tmp_path, changes | {"aggregation": {"kind": "fedavg", "weighting": "uniform"}})
    said = f"{file}: garments OK, epsilon 4.931 at delta 0.01, noise multiplier 1\n"
    assert fedray("check", file) == (0, said, "")
