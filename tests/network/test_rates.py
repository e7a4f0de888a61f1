"""Known answers of shared/reference/wireless.md, and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import exp1

from fedray.network.rates import (
    arq,
    efficiency,
    ergodic,
    linear,
    min_efficient_snr,
    noise_dbm,
    outage,
    peak_rate_bps,
    shannon,
    truncated,
)

RAYLEIGH, STEADY = np.zeros(1), np.full(1, np.inf)


@pytest.mark.parametrize(("db", "capacity"), [(0, 0.86035), (10, 2.90651), (20, 5.88405)])
def test_the_ergodic_capacity_of_a_rayleigh_channel_is_the_exponential_integrals(db, capacity):
    g = linear(db)
    found = ergodic(shannon, np.array([g]), RAYLEIGH)[0]
    assert found == pytest.approx(capacity, abs=5e-6)
    assert found == pytest.approx(np.exp(1 / g) * exp1(1 / g) / np.log(2), abs=1e-7)


def test_outage_and_retransmissions_have_their_closed_forms():
    p = float(outage(2**2 - 1, linear(10)))
    assert p == pytest.approx(0.25918, abs=5e-6)
    assert arq(p, 10_000)[0] == pytest.approx(1.34986, abs=5e-6)
    assert arq(p, 4) == (pytest.approx(1.34377, abs=1e-5), pytest.approx(0.0045125, abs=1e-7))


def test_the_rates_and_energies_of_hierfavg_s_table():
    rate = 1e6 * shannon(np.array(0.5 * 1e-8 / 1e-10))
    assert rate == pytest.approx(5.6724e6, rel=1e-5)
    for numbers, seconds, joules in ((21_840, 0.1232, 0.0616), (5_852_170, 33.01, 16.51)):
        assert numbers * 32 / rate == pytest.approx(seconds, rel=1e-3)
        assert 0.5 * numbers * 32 / rate == pytest.approx(joules, rel=1e-3)


def test_packet_errors_and_times_of_the_joint_learning_and_communications_framework():
    d, power, noise = 100.0, 0.01, 1e-14
    gain = power * d**-2
    assert outage(1.08, gain / (1e-8 + noise)) == pytest.approx(0.010742, rel=1e-4)
    bits = 39_760 * 16 / 2**20 * 1e6
    assert bits / 1e6 == pytest.approx(0.606689, rel=1e-6)
    up_s = bits / (1e6 * shannon(np.array(gain / (1e-8 + noise))))
    assert up_s == pytest.approx(0.091119, rel=1e-4)
    assert power * up_s == pytest.approx(9.11e-4, rel=1e-3)
    assert bits / (20e6 * shannon(np.array(1.0 * d**-2 / (1.8e-7 + noise)))) == pytest.approx(
        0.003326, rel=2e-4
    )


def test_noise_of_twenty_megahertz_at_a_terminal():
    assert noise_dbm(20e6, 9) == pytest.approx(-91.99, abs=0.005)


def test_the_highest_rate_of_an_nr_carrier_of_100_mhz():
    assert peak_rate_bps(273, 4, 8, 1e-3 / 28) == pytest.approx(2337.0e6, rel=1e-6)


def test_truncated_rates_end_where_the_modulation_does_and_begin_at_minus_ten_decibel():
    assert truncated(linear(np.array([60.0])), "64qam") == 5.55
    assert truncated(linear(np.array([60.0])), "256qam") == 7.41
    assert truncated(linear(np.array([-10.1]))) == 0
    assert truncated(linear(np.array([10.0]))) == pytest.approx(0.75 * np.log2(11))


@given(st.floats(-20, 60), st.floats(0, 30), st.sampled_from(["shannon", "truncated"]))
def test_fading_never_helps_the_mean_and_a_steadier_channel_is_never_slower(db, k_db, rate):
    carried, snr = efficiency(rate, "64qam"), np.array([linear(db)])
    rates = [float(ergodic(carried, snr, k)[0]) for k in (RAYLEIGH, np.array([linear(k_db)]), STEADY)]
    if rate == "shannon":  # truncated is not concave: below its start a good moment is all there is
        assert rates[0] <= rates[1] + 1e-9 <= rates[2] + 2e-9
    assert rates[2] == pytest.approx(float(carried(snr)[0]))


def test_a_rician_channel_without_a_line_of_sight_is_rayleigh():
    snr = linear(np.linspace(-10, 40, 11))
    near = ergodic(shannon, snr, np.full(11, 1e-9))
    assert near == pytest.approx(ergodic(shannon, snr, np.zeros(11)), rel=1e-6)


@given(
    st.floats(-10, 50),
    st.floats(0.01, 10),
    st.sampled_from(["shannon", "truncated"]),
    st.sampled_from([0.0, 3.0, np.inf]),
)
def test_a_better_signal_is_never_slower(db, more_db, rate, k):
    carried = efficiency(rate, "256qam")
    low, high = (ergodic(carried, np.array([linear(at)]), np.array([k]))[0] for at in (db, db + more_db))
    assert low <= high + 1e-12


@pytest.mark.parametrize("carried", [truncated, lambda snr: truncated(snr, "256qam")])
def test_below_what_band_is_worth_less_of_it_carries_more(carried):
    least = min_efficient_snr(carried)
    assert 0.1 <= least < 0.3
    assert min_efficient_snr(shannon) == 0.0
    snr = np.array([least / 3])
    for k in (0.0, np.inf):
        spread, narrow = (part * ergodic(carried, snr / part, np.full(1, k))[0] for part in (1.0, 1 / 3))
        assert narrow > spread
