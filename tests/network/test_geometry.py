import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.network.geometry import Geometry, nearest_groups
from fedray.scenario.cell import Cell, Disc, Line, RandomWaypoint

CELL = Cell(placement=Disc(kind="disc", radius_m=200.0, least_m=20.0))
WALKING = CELL.model_copy(
    update={"mobility": RandomWaypoint(kind="random_waypoint", speed_mps=[1.0, 2.0], pause_s=5.0)}
)


def test_a_disc_is_filled_evenly_and_nobody_is_too_near():
    r = np.linalg.norm(Geometry(CELL, 20_000, 0).at(0.0), axis=1)
    assert 20 <= r.min() <= r.max() <= 200
    assert (r < np.sqrt((20**2 + 200**2) / 2)).mean() == pytest.approx(0.5, abs=0.02)


def test_a_platoon_stands_in_a_row():
    at = Geometry(Cell(placement=Line(kind="line", spacing_m=40.0, offset_m=35.0)), 3, 0).at(7.0)
    assert at.tolist() == [[-40, 35], [0, 35], [40, 35]]


@given(st.lists(st.floats(0, 5000), min_size=1, max_size=6))
def test_where_somebody_is_follows_from_the_time_alone(times):
    one = Geometry(WALKING, 12, 3)
    for t in times:
        assert np.array_equal(one.at(t), Geometry(WALKING, 12, 3).at(t))


def test_walkers_stay_in_the_disc_and_within_their_speed():
    walk, before = Geometry(WALKING, 200, 1), None
    for t in np.arange(0.0, 2000, 10):
        now = walk.at(t)
        assert (
            20 - 1e-6 <= np.linalg.norm(now, axis=1).min() <= np.linalg.norm(now, axis=1).max() <= 200 + 1e-6
        )
        if before is not None:
            assert np.linalg.norm(now - before, axis=1).max() <= 20 + 1e-6
        before = now


@given(st.integers(1, 40), st.data())
def test_groups_of_neighbours_hold_everybody_once_and_are_as_equal_as_can_be(n, data):
    groups = data.draw(st.integers(1, n))
    clients = sorted(data.draw(st.sets(st.integers(0, 99), min_size=n, max_size=n)))
    places = np.random.default_rng(0).normal(size=(100, 2))
    found = nearest_groups(places, clients, groups)
    assert sorted(c for g in found for c in g) == clients
    assert len(found) == groups
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_neighbours_share_a_group():
    places = np.array([[0.0, 0], [100, 0], [1, 0], [101, 0], [0, 1], [100, 1]])
    assert sorted(nearest_groups(places, range(6), 2)) == [[0, 2, 4], [1, 3, 5]]
