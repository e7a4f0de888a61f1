"""Du et al.'s environment against their own code (Lizonghang/AGOD), which was run beside it."""

import numpy as np
import pytest

from fedray.scenario.environment import Agod as Section
from fedray.serving.agod import Agod
from fedray.serving.environment import Place
from tests.serving.played import earned

# One episode in their code, of providers by a pattern: when what comes, where it goes, what it earns.
ARRIVALS_S = [0, 700, 1500, 2100, 9000, 12000, 12500, 14000, 18000, 22000, 26000, 31000, 40000]
WANTED = [100, 250, 180, 130, 240, 150, 250, 210, 120, 170, 200, 230]
ACTIONS = [0, 0, 1, 0, 0, 7, 7, 7, 19, 19, 3, 0]
REWARDS = [
    *(0.333333, 0.5, 0.647619, -5.646157, 0.5, 0.282353),
    *(0.6, -5.751923, 0.066667, 0.177778, 0.4, -2.860576),
]
# Mean reward a request in their code, over 8 mixes of providers of an episode each (standard deviations .085,
# .045, .033 and .034 over mixes).
PUBLISHED = {"random": -0.132, "round_robin": 0.230, "most_free": 0.394, "prophet": 0.550}


def episode():
    environment = Agod(Section(kind="agod"), Place(0, 0), 1)
    environment.reset(np.random.default_rng(0))
    i = np.arange(20)
    environment.capacity = 400.0 + 100 * (i % 6)
    environment.begins = 10 * (i % 10)
    environment.lowest = 0.05 * (3 * i % 10)
    environment.ends = 150 + 10 * (7 * i % 10)
    environment.highest = 0.5 + 0.05 * (9 * i % 10)
    environment.arrivals_s = [np.array(ARRIVALS_S)]
    return environment


def test_an_episode_earns_what_it_earns_in_the_code_of_its_authors():
    environment = episode()
    steps = []
    for wanted, action in zip(WANTED, ACTIONS, strict=True):
        environment.steps = np.array([float(wanted)])
        steps.append(environment.step(np.array([action])))
    assert [step.rewards.item() for step in steps] == pytest.approx(REWARDS, abs=1e-6)
    assert [step.ended.item() for step in steps] == [False] * 11 + [True]


def test_an_observation_is_that_of_the_code_of_its_authors():
    environment = episode()
    for wanted, action in zip(WANTED[:5], ACTIONS[:5], strict=True):
        environment.steps = np.array([float(wanted)])
        environment.step(np.array([action]))
    environment.steps = np.array([150.0])
    observed = environment._observed()[0]
    assert observed[:6].tolist() == pytest.approx([0.444444, 0.4, 0.555556, 0.64, 0.666667, 1.0], abs=1e-6)
    assert observed[-2:].tolist() == pytest.approx([0.6, 0.569414], abs=1e-6)


def test_rules_earn_what_they_earn_in_the_code_of_its_authors():
    def mean(rule):
        mixes = (Agod(Section(kind="agod"), Place(seed, 0), 3) for seed in range(8))
        return np.mean([earned(mix, rule, 160, seed, 40) for seed, mix in enumerate(mixes)])

    means = {rule: mean(rule) for rule in PUBLISHED}
    assert means == pytest.approx(PUBLISHED, abs=0.07)  # two standard errors of theirs and ours
    assert sorted(means, key=means.get) == list(PUBLISHED)


def test_an_episode_has_the_requests_that_it_drew_and_begins_anew_without_tasks():
    environment = Agod(Section(kind="agod"), Place(0, 0), 2)
    environment.reset(np.random.default_rng(0))
    environment.arrivals_s = [np.array([0, 5, 9]), np.array([0, 5, 9, 12, 15])]
    ended = [environment.step(np.array([3, k])).ended.tolist() for k in range(3)]
    assert ended == [[False, False], [True, False], [False, False]]
    assert (environment.running[0] > 0).sum() == 1
    assert (environment.running[1] > 0).sum() == 3
