import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.network import allocation

BAND = 20e6
DENSITY = 10 ** ((-174 + 9) / 10) / 1000


def shannon(gain):
    return lambda share: BAND * share * np.log2(1 + gain / (BAND * share))


def finishes(bits, ready, gain, share):
    return ready + bits / shannon(gain)(share)


def test_four_users_finish_together_at_85_0969_seconds():
    bits, ready = np.full(4, 72.8e6), np.array([1.0, 2, 3, 4])
    gain = 0.2 * np.array([1e-12, 5e-13, 2e-13, 1e-13]) / DENSITY
    assert finishes(bits, ready, gain, allocation.min_max(bits, ready, shannon(gain))) == pytest.approx(
        85.0969, abs=5e-5
    )
    assert finishes(bits, ready, gain, np.full(4, 0.25)).max() == pytest.approx(88.73, abs=0.005)


users = st.lists(st.tuples(st.floats(1e4, 1e9), st.floats(0, 100), st.floats(4, 12)), min_size=1, max_size=20)


@given(users)
def test_min_max_shares_equalise_finishing_times_and_beat_an_equal_split(some):
    bits, ready, gain = (
        np.array([b for b, *_ in some]),
        np.array([r for _, r, _ in some]),
        10 ** np.array([g for *_, g in some]),
    )
    share = allocation.min_max(bits, ready, shannon(gain))
    assert share.sum() == pytest.approx(1)
    ends = finishes(bits, ready, gain, share)
    assert ends == pytest.approx(np.full(len(some), ends.max()), rel=1e-5)
    assert ends.max() <= finishes(bits, ready, gain, np.full(len(some), 1 / len(some))).max() * (1 + 1e-6)


@pytest.mark.filterwarnings("error")
def test_who_is_never_ready_takes_nobody_else_s_band():
    share = allocation.min_max(np.full(3, 1e6), np.array([0.0, np.inf, 0.0]), shannon(np.full(3, 1e8)))
    assert share == pytest.approx([1 / 3] * 3)


def test_who_cannot_be_heard_takes_nobody_else_s_band():
    share = allocation.min_max(np.full(3, 1e6), np.zeros(3), shannon(np.array([1e8, 0.0, 1e8])))
    assert share == pytest.approx([1 / 3] * 3)


@given(st.lists(st.floats(4, 12), min_size=2, max_size=20), st.integers(0, 2**31))
def test_no_other_shares_have_a_greater_product_of_rates(gains_db, seed):
    gain = 10 ** np.array(gains_db)

    def utility(share):
        return np.log(BAND * share * np.log2(1 + gain / (BAND * share))).sum()

    share = allocation.proportional_fair(shannon(gain), len(gain))
    assert share.sum() == pytest.approx(1)
    other = np.abs(share * (1 + 0.1 * np.random.default_rng(seed).normal(size=len(gain))))
    assert utility(other / other.sum()) <= utility(share) + 1e-6


def test_resource_blocks_go_where_they_serve_best_and_all_get_as_many():
    rates = np.array([[9.0, 1, 8, 1], [1.0, 7, 1, 6]])
    assert (allocation.assign_blocks(rates, np.zeros(2)) * rates).sum(1) == pytest.approx([17, 13])
    greedy = np.array([[10.0, 9], [9.0, 1]])
    # 18 in all, not 11
    assert (allocation.assign_blocks(greedy, np.zeros(2)) * greedy).sum(1) == pytest.approx([9, 9])


@given(st.integers(1, 9), st.integers(9, 40), st.integers(0, 99))
def test_no_resource_block_is_left_over_and_nobody_has_two_more_than_another(n, count, seed):
    taken = allocation.assign_blocks(np.random.default_rng(seed).uniform(size=(n, count)), np.zeros(n))
    assert (taken.sum(0) == 1).all()
    assert np.ptp(taken.sum(1)) <= 1


def test_the_listeners_of_a_broadcast_share_the_time_it_takes():
    assert allocation.broadcast_time_s(np.array([3.0, 1.0, 2.0])) == pytest.approx(
        [1 / 3 + 0.5 + 1, 1 / 3, 1 / 3 + 0.5]
    )
    assert allocation.broadcast_time_s(np.array([3.0, 1.0, 2.0])).sum() == pytest.approx(3.0)


@given(users, st.floats(1.0, 8.0))
def test_min_max_equalises_rates_that_end_at_a_modulation_too(some, cap):
    bits, ready, gain = (
        np.array([b for b, *_ in some]),
        np.array([r for _, r, _ in some]),
        10 ** np.array([g for *_, g in some]),
    )

    def rate(share):
        return BAND * share * np.minimum(0.75 * np.log2(1 + gain / (BAND * share)), cap)

    ends = ready + bits / rate(allocation.min_max(bits, ready, rate))
    assert ends == pytest.approx(np.full(len(some), ends.max()), rel=1e-4)
    assert ends.max() <= (ready + bits / rate(np.full(len(some), 1 / len(some)))).max() * (1 + 1e-6)


def test_the_frequency_that_weighs_a_second_against_its_joules():
    best = allocation.best_frequency_hz(1.0, 1e-28)
    assert best == pytest.approx(1.70998e9, rel=1e-5)

    def cost(f):
        return 1e-28 * f**2 + 1 / f

    assert cost(best) < min(cost(0.99 * best), cost(1.01 * best))
