import numpy as np
import pytest
from scipy.special import ndtr

from fedray.network.propagation import SIDELINK_MODELS, log_distance, shadowing
from fedray.scenario.radio import LogDistance

D, F = np.array([100.0]), 5.9


def test_side_links_of_tr_37_885_at_a_hundred_metres():
    urban, highway = SIDELINK_MODELS["urban"], SIDELINK_MODELS["highway"]
    assert urban.path_loss_los(D, F) == pytest.approx(86.20, abs=0.005)
    assert highway.path_loss_los(D, F) == pytest.approx(87.82, abs=0.005)
    assert urban.los_probability(D) == pytest.approx(1.05 * np.exp(-1.14))
    assert urban.los_probability(np.array([1.0])) == 1
    for one in (urban, highway):
        assert one.shadowing_db == 3.0  # Table 6.2.1-1, LOS and NLOSv alike


@pytest.mark.parametrize("model", ["urban", "highway"])
def test_behind_a_vehicle_a_link_loses_what_a_line_of_sight_does_and_about_five_decibel_more(model):
    one, luck = SIDELINK_MODELS[model], np.random.default_rng(0).standard_normal(200_000)
    near = one.path_loss_nlos(D, F, luck) - one.path_loss_los(D, F)
    assert near.min() == 0.0
    mean = 5 * ndtr(5 / 4) + 4 * np.exp(-((5 / 4) ** 2) / 2) / np.sqrt(2 * np.pi)  # of max(0, N(5, 4))
    assert near.mean() == pytest.approx(mean, abs=0.03)
    kilometre = np.array([1000.0])
    assert (one.path_loss_nlos(kilometre, F, np.zeros(1)) - one.path_loss_los(kilometre, F))[
        0
    ] == pytest.approx(5 + 15 * 3 - 41)


def test_the_literature_s_path_loss_is_the_default_log_distance():
    section = LogDistance(kind="log_distance", bandwidth_hz=1e6)
    assert log_distance(section, np.array([1000.0])) == pytest.approx(128.1)
    assert log_distance(section, D) == pytest.approx(128.1 - 37.6)


def test_between_devices_a_blocked_path_loses_more_and_farther_is_never_nearer():
    d = np.geomspace(3, 900, 200)
    for model, f in (("urban", 5.9), ("highway", 5.9), ("d2d", 0.7), ("d2d", 1.8), ("d2d", 3.5)):
        one = SIDELINK_MODELS[model]
        assert (np.diff(one.path_loss_los(d, f)) > 0).all()
        assert (np.diff(one.path_loss_nlos(d, f, 0.0)) > 0).all()
        assert (one.los_probability(d) <= 1).all()
        assert (one.los_probability(d) >= 0).all()
        far = d > 30  # nearer, D2D's blocked path falls back to free space
        assert (one.path_loss_nlos(d, f, 0.0)[far] >= one.path_loss_los(d, f)[far] - 3).all()


def test_shadowing_is_standard_normal_and_correlated_over_its_distance():
    places = np.random.default_rng(0).uniform(-3000, 3000, (4000, 2))
    fields = np.array([shadowing(places, 50.0, seed) for seed in range(60)])
    assert fields.mean() == pytest.approx(0, abs=0.05)
    assert fields.std() == pytest.approx(1, abs=0.05)
    for distance in (10.0, 50.0, 150.0):
        moved = np.array(
            [shadowing(places[:400] + np.array([distance, 0]), 50.0, seed) for seed in range(60)]
        )
        assert (fields[:, :400] * moved).mean() == pytest.approx(np.exp(-distance / 50), abs=0.06)


def test_who_stands_where_another_stood_has_its_shadow():
    assert (
        shadowing(np.array([[3.0, 4.0]]), 50.0, 1)
        == shadowing(np.array([[9.0, 9.0], [3.0, 4.0]]), 50.0, 1)[1]
    )
