import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.network.channel import COHERENCE_TIMES, RadioChannel
from fedray.network.geometry import Geometry
from fedray.network.links import LinkContext, RoundStart, TransferRequests
from fedray.network.radio import Radio
from fedray.network.rates import linear, shannon
from fedray.scenario.cell import Cell, Disc, Places, RandomWaypoint
from fedray.scenario.network import Network
from fedray.scenario.radio import Level, LogDistance, Neighbours, Sidelink
from tests.helpers import sent

SERVER, NOW = -1, RoundStart(1, 0.0)
QUIET = {
    "kind": "log_distance",
    "bandwidth_hz": 20e6,
    "shadowing_db": 0.0,
    "fading": "none",
    "rate": "shannon",
}


def cell(*at, **more):
    return Cell(
        placement=Places(kind="places", at=[list(map(float, p)) for p in at]), server_height_m=1.5, **more
    )


def link(direction="uplink", at=((100, 0), (200, 0), (400, 0)), seed=0, **section):
    sections = QUIET | section
    kind = Sidelink if sections["kind"] == "sidelink" else LogDistance
    if kind is Sidelink:
        sections.pop("shadowing_db")
    return RadioChannel(
        kind(**sections), LinkContext(direction, seed=seed, geometry=Geometry(cell(*at), len(at), seed))
    )


def rates(one, clients=(0, 1, 2)):
    who = np.array(clients)
    pair = (who, np.full_like(who, SERVER))
    return one.rates_bps(NOW, *(pair if one.direction == "uplink" else pair[::-1]))


def test_a_quiet_link_is_shannon_s_formula_at_the_path_s_signal_to_noise_ratio():
    snr_db = 23 - (128.1 + 37.6 * np.log10(0.1)) - (-174 + 10 * np.log10(20e6) + 5)
    assert rates(link())[0] == pytest.approx(20e6 * np.log2(1 + 10 ** (snr_db / 10)))
    (seconds, joules), lost = sent(link(latency_s=0.5), 0, SERVER, 1_000_000)
    assert seconds == pytest.approx(0.5 + 8e6 / rates(link())[0])
    assert joules == pytest.approx(10 ** (2.3 - 3) * (seconds - 0.5))
    assert not lost


def test_overhead_and_block_errors_lengthen_a_transfer_by_their_closed_forms():
    plain, slow = (sent(one, 0, SERVER, 10**6)[0][0] for one in (link(), link(overhead=0.2, block_error=0.1)))
    assert slow == pytest.approx(plain / 0.8 / 0.9)


def test_symbols_take_their_number_over_the_senders_share_of_the_band_and_are_never_lost():
    """Less its overhead; they are tried once, whatever the outage, and have no blocks to send again."""
    unlucky = link(latency_s=0.5, overhead=0.2, block_error=0.5, harq=1, outage_db=90.0, receive_w=1.0)
    whole = np.ones(2, int)
    requests = TransferRequests(
        np.arange(2), -whole, 0 * whole, whole, np.array([0.5, 0.25]), np.zeros(2, int)
    )
    found = unlucky.symbol_transfers(NOW, requests, np.array([980, 98]))
    on_air_s = np.array([980 / (0.5 * 0.8 * 20e6), 98 / (0.25 * 0.8 * 20e6)])
    assert found.time_s == pytest.approx(0.5 + on_air_s)
    assert found.energy_j == pytest.approx((10 ** (2.3 - 3) + 1.0) * on_air_s)
    assert not found.lost.any()


def test_half_the_band_doubles_a_devices_ratio_and_leaves_a_base_stations():
    whole = np.ones(1, int)
    half = TransferRequests(0 * whole, -whole, 0 * whole, whole, np.array([0.5]), 0 * whole)
    mean_db = 23 - (128.1 + 37.6 * np.log10(0.1)) - (-174 + 10 * np.log10(20e6) + 5)
    assert link().mean_snr_db(NOW, half) == pytest.approx(mean_db + 10 * np.log10(2))
    down = link("downlink", noise_figure_db=5.0, transmit_dbm=23.0)
    back = half._replace(sender=half.receiver, receiver=half.sender)
    assert down.mean_snr_db(NOW, back) == pytest.approx(mean_db)


@given(st.floats(-20, 20), st.floats(0.1, 20), st.floats(1, 200), st.floats(1, 100))
def test_a_rate_grows_with_power_and_bandwidth_and_falls_with_distance(dbm, more_db, mhz, more_m):
    base = rates(link(transmit_dbm=dbm, bandwidth_hz=mhz * 1e6, fading="rayleigh"))
    assert (rates(link(transmit_dbm=dbm + more_db, bandwidth_hz=mhz * 1e6, fading="rayleigh")) > base).all()
    assert (rates(link(transmit_dbm=dbm, bandwidth_hz=1.1 * mhz * 1e6, fading="rayleigh")) > base).all()
    assert (np.diff(base) < 0).all()
    farther = link(
        transmit_dbm=dbm,
        bandwidth_hz=mhz * 1e6,
        fading="rayleigh",
        at=((100 + more_m, 0), (200, 0), (400, 0)),
    )
    assert rates(farther)[0] < base[0]


def test_a_device_has_all_its_power_for_its_share_and_a_base_station_only_a_part():
    up, down = link(), link("downlink", noise_figure_db=5.0, transmit_dbm=23.0)
    (whole, _), _ = sent(up, 0, SERVER, 10**6)
    (half_up, _), _ = sent(up, 0, SERVER, 10**6, share=0.5)
    (half_down, joules), _ = sent(down, SERVER, 0, 10**6, share=0.5)
    assert whole < half_up < half_down == pytest.approx(2 * whole)
    assert joules == pytest.approx(sent(down, SERVER, 0, 10**6)[0][1])  # half the power for twice the time


def test_a_long_transfer_has_the_ergodic_rate_and_a_short_one_its_own_luck():
    faded = link(fading="rayleigh", speed_mps=10.0)
    mean = rates(faded)[0]
    long = int(mean * COHERENCE_TIMES * faded.coherence_s / 8 * 1.01)
    assert [sent(faded, 0, SERVER, long, round=t)[0][0] for t in range(5)] == pytest.approx(
        [8 * long / mean] * 5
    )
    short = int(mean * 4 * faded.coherence_s / 8)
    times = np.array([sent(faded, 0, SERVER, short, round=t)[0][0] for t in range(400)])
    assert len(set(times)) > 390
    assert short * 8 / times.mean() == pytest.approx(mean, rel=0.1)


def test_blocks_add_up_to_what_was_sent():
    faded = link(fading="rayleigh", speed_mps=10.0)
    nbytes = int(rates(faded)[0] * 3.3 * faded.coherence_s / 8)
    seconds = sent(faded, 0, SERVER, nbytes, round=7)[0][0]
    snr, k = faded.mean_snr(NOW, np.array([0]), np.array([SERVER]))
    power = faded._fading_power(
        RoundStart(7, 0.0), "block", k[:, None], np.array([[0]]), np.array([[SERVER]]), np.arange(64)
    )[0]
    bps, left, t = 20e6 * shannon(snr * power), 8.0 * nbytes, 0.0
    for rate in bps:
        step = min(faded.coherence_s, left / rate)
        left, t = left - rate * step, t + step
    assert seconds == pytest.approx(t)


def many(one, nbytes, n=4000, numbers=1):
    """So many clients at the same place send so often each."""
    who = np.repeat(np.arange(n), numbers)
    like, number = np.ones(len(who), int), np.tile(np.arange(numbers), n)
    return one.transfers(NOW, TransferRequests(who, -like, like * nbytes, like, like.astype(float), number))


HERE = [(100.0, 1e-6 * k) for k in range(4000)]


def test_outage_costs_tries_and_loses_what_has_none_left():
    snr_db = float(10 * np.log10(link(at=HERE).mean_snr(NOW, np.array([0]), np.array([SERVER]))[0][0]))
    once = many(link(at=HERE, fading="rayleigh", outage_db=snr_db - 3), 10**10)
    thrice = many(link(at=HERE, fading="rayleigh", outage_db=snr_db - 3, attempts=3), 10**10)
    p = 1 - np.exp(-(10**-0.3))
    assert once.lost.mean() == pytest.approx(p, abs=0.03)
    assert thrice.lost.mean() == pytest.approx(p**3, abs=0.015)
    assert (thrice.time_s / thrice.time_s.min()).mean() == pytest.approx((1 - p**3) / (1 - p), abs=0.03)
    assert thrice.energy_j == pytest.approx(thrice.time_s * linear(-7.0))


def test_transfers_of_a_pair_have_each_its_own_luck():
    """n of them are all in vain with p^n, not with p."""
    snr_db = float(10 * np.log10(link(at=HERE).mean_snr(NOW, np.array([0]), np.array([SERVER]))[0][0]))
    one = link(
        at=HERE, fading="rayleigh", outage_db=snr_db - 1, attempts=2, block_error=0.5, harq=3, speed_mps=1e-3
    )
    found, p = many(one, 100, numbers=3), (1 - np.exp(-(10**-0.1))) ** 2
    q = p + (1 - p) * 0.5**3
    assert found.lost.reshape(-1, 3).all(1).mean() == pytest.approx(q**3, abs=0.03)
    assert 1 - found.lost.reshape(-1, 3).any(1).mean() == pytest.approx((1 - q) ** 3, abs=0.03)
    faded = many(link(at=HERE, fading="rayleigh", speed_mps=1e-3), 100, numbers=2).time_s.reshape(-1, 2)
    assert abs(np.corrcoef(np.log(faded).T)[0, 1]) < 0.06


def test_interference_raises_the_noise():
    level = link(interference=Level(kind="level", dbm=-80.0))
    noise_mw = 10 ** ((-174 + 5) / 10) * 20e6
    quiet, loud = (one.mean_snr(NOW, np.array([0]), np.array([SERVER]))[0][0] for one in (link(), level))
    assert quiet / loud == pytest.approx((noise_mw + 1e-8) / noise_mw)


@pytest.mark.parametrize("direction", ["uplink", "downlink"])
def test_busier_and_nearer_neighbours_are_heard_louder(direction):
    def snr(load, distance):
        one = link(direction, interference=Neighbours(kind="neighbours", load=load, distance_m=distance))
        return one.mean_snr(NOW, np.array([0, 1, 2]), np.array([SERVER] * 3))[0]

    assert (snr(0.1, 1000.0) > snr(0.9, 1000.0)).all()
    assert (snr(0.5, 1000.0) < snr(0.5, 4000.0)).all()
    assert (
        snr(0.5, 1000.0) < link(direction).mean_snr(NOW, np.array([0, 1, 2]), np.array([SERVER] * 3))[0]
    ).all()


def test_a_pair_of_devices_has_the_same_luck_both_ways_and_whoever_else_is_asked():
    one = link(
        "sidelink",
        kind="sidelink",
        model="d2d",
        frequency_hz=3.5e9,
        at=[(i * 37.0, i % 3) for i in range(1, 8)],
    )
    i, j = np.array([0, 1, 2, 5]), np.array([3, 4, 6, 1])
    there, back = one.mean_snr(NOW, i, j), one.mean_snr(NOW, j, i)
    assert np.array_equal(there, back)
    assert one.mean_snr(NOW, np.array([2]), np.array([6]))[0][0] == there[0][2]


def test_who_walks_away_is_slower_and_comes_back_to_the_same():
    walking = Cell(
        placement=Disc(kind="disc", radius_m=500.0), mobility=RandomWaypoint(kind="random_waypoint")
    )
    one = RadioChannel(LogDistance(**QUIET), LinkContext(geometry=Geometry(walking, 5, 0)))
    who, base = np.arange(5), np.full(5, SERVER)
    first, later = (one.rates_bps(RoundStart(t, float(at)), who, base) for t, at in ((1, 0), (9, 900)))
    assert (first != later).all()
    assert np.array_equal(one.rates_bps(NOW, who, base), first)


def test_resource_blocks_serve_at_least_as_well_as_chance():
    frequency = {"fading": "rayleigh", "bandwidth_hz": 20 * 180e3}
    blocks = link(allocation="blocks", **frequency)
    who = np.arange(3)
    sends = TransferRequests(
        who, np.full(3, SERVER), np.full(3, 10**6), np.ones(3, int), np.full(3, 1 / 3), np.zeros(3, int)
    )
    chosen, even = blocks.transfers(NOW, sends).time_s, link(**frequency).transfers(NOW, sends).time_s
    assert chosen.sum() < even.sum()


@pytest.mark.parametrize(("nbytes", "slots"), [(100, 1), (10**5, None), (10**6, None), (2 * 10**7, None)])
def test_a_transfer_is_lost_with_the_first_of_its_blocks_that_has_no_tries_left(nbytes, slots):
    """1 - (1 - p^h)^n of n blocks, a millisecond of Shannon's rate each."""
    p, h, n = 0.3, 4, len(HERE)
    (plain, _), _ = sent(link(at=HERE), 0, SERVER, nbytes)
    slots = slots or np.ceil(8 * nbytes / rates(link(at=HERE), (0,))[0] / 1e-3)
    found = many(link(at=HERE, block_error=p, harq=h), nbytes)
    lost = 1 - (1 - p**h) ** slots
    assert found.time_s == pytest.approx(plain * (1 - p**h) / (1 - p))
    assert found.lost.mean() == pytest.approx(lost, abs=4 * np.sqrt(lost * (1 - lost) / n) + 1 / n)
    assert not many(link(at=HERE, block_error=p), nbytes).lost.any()  # sent until it is through


@given(
    st.floats(50, 3000),
    st.floats(0.36, 100),
    st.sampled_from(["none", "rayleigh"]),
    st.sampled_from(["uplink", "downlink"]),
)
def test_more_band_is_never_worth_less_however_far_away(distance, mhz, fading, direction):
    def rate(band_mhz):
        one = link(
            direction,
            at=((distance, 0),),
            rate="truncated",
            fading=fading,
            bandwidth_hz=band_mhz * 1e6,
            noise_figure_db=5.0,
        )
        return rates(one, (0,))[0]

    assert rate(1.3 * mhz) >= rate(mhz) * (1 - 1e-9)


def test_a_share_in_which_a_signal_is_strong_enough_is_not_lost():
    far = {"at": ((1200, 0),), "rate": "truncated"}
    whole = link(**far)
    snr, _ = whole.mean_snr(NOW, np.array([0]), np.array([SERVER]))
    assert snr[0] < 0.1  # over all 20 MHz
    (seconds, _), lost = sent(whole, 0, SERVER, 10**6, share=0.2)
    assert not lost
    assert seconds == pytest.approx(8e6 / (4e6 * 0.75 * np.log2(1 + 5 * snr[0])))
    outage = link(**far, outage_db=float(10 * np.log10(2 * snr[0])))
    assert [sent(outage, 0, SERVER, 10**6, share=s)[1] for s in (1.0, 0.2)] == [True, False]


def test_a_base_station_sends_a_broadcast_once():
    def joules(how):
        one = link("downlink", allocation=how, transmit_dbm=40.0)
        who = np.arange(3)
        share = np.ones(3) if how == "broadcast" else np.full(3, 1 / 3)
        found = one.transfers(
            NOW,
            TransferRequests(
                np.full(3, SERVER), who, np.full(3, 10**6), np.ones(3, int), share, np.zeros(3, int)
            ),
        )
        return found.energy_j.sum(), found.time_s

    energy, seconds = joules("broadcast")
    assert energy == pytest.approx(10 * seconds.max())
    assert energy < joules("equal")[0]


def test_a_device_sends_with_its_own_power_where_its_link_names_none():
    geometry = Geometry(cell((100, 0), (100.0, 1e-9)), 2, 0)
    context = LinkContext(geometry=geometry, transmit_dbm=np.array([13.0, 23.0]))
    own = RadioChannel(LogDistance(**QUIET), context)
    weak, strong = own.mean_snr(NOW, np.arange(2), np.full(2, SERVER))[0]
    assert strong / weak == pytest.approx(10, rel=1e-6)
    named = RadioChannel(LogDistance(**QUIET, transmit_dbm=20.0), context)
    assert named.power_w(np.arange(2), 1.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("section", "dbm"),
    [
        ({"kind": "log_distance", "bandwidth_hz": 20e6}, 46.0),  # TR 36.942, Table 4.6
        ({"kind": "log_distance", "bandwidth_hz": 5e6}, 43.0),
        # TR 38.901, Table 7.8-1
        ({"kind": "3gpp", "model": "umi", "bandwidth_hz": 20e6, "frequency_hz": 3.5e9}, 44.0),
        ({"kind": "3gpp", "model": "uma", "bandwidth_hz": 20e6, "frequency_hz": 3.5e9}, 49.0),
        ({"kind": "3gpp", "model": "inh", "bandwidth_hz": 20e6, "frequency_hz": 3.5e9}, 24.0),
        ({"kind": "3gpp", "model": "umi", "bandwidth_hz": 100e6, "frequency_hz": 30e9}, 35.0),
    ],
)
def test_a_downlink_has_a_base_station_s_power_where_nobody_says_another(section, dbm):
    def power_dbm(direction, server=None, **more):
        fixed = {"kind": "fixed", "rate_bps": 1e6}
        processor = {"kind": "flops", "peak_flops": 1e12, "active_w": 1.0}
        network = {
            "uplink": section | more,
            "downlink": section | more,
            "sidelink": fixed,
            "device": processor,
            "server": (
                {"kind": "profile", "name": "h100"} | ({} if server is None else {"transmit_dbm": server})
            ),
            "cell": {"placement": {"kind": "disc", "radius_m": 100.0, "least_m": 35.0}},
        }
        one = Radio(Network.model_validate(network), 2).links[direction]
        return 30 + 10 * np.log10(one.power_w(np.array([0]), 1.0))

    assert power_dbm("downlink") == pytest.approx(dbm)
    assert power_dbm("downlink", server=30.0) == pytest.approx(30.0)
    assert power_dbm("downlink", server=30.0, transmit_dbm=20.0) == pytest.approx(20.0)
    assert power_dbm("uplink", server=30.0) == pytest.approx(23.0)


@given(
    st.floats(200, 20_000), st.sampled_from(["none", "rayleigh"]), st.sampled_from(["shannon", "truncated"])
)
def test_a_larger_share_of_the_band_is_never_worth_less_down_to_less_than_a_resource_block(
    distance, fading, rate
):
    one = link(at=((distance, 0),), rate=rate, fading=fading, bandwidth_hz=1e6)
    snr, k = one.mean_snr(NOW, np.array([0]), np.array([SERVER]))
    shares = np.logspace(-3, 0, 40)
    found = [float(one.rate_bps(snr, k, share)[0] * one.is_reachable(snr, share)[0]) for share in shares]
    assert (np.diff(found) >= -1e-9 * max(found)).all()


@pytest.mark.parametrize("model", ["urban", "highway"])
def test_links_of_vehicles_lose_what_tr_37_885_has_them_lose(model):
    """Table 6.2-1's chance of a line of sight, Table 6.2.1-1's losses, 3 dB of shadowing, and a vehicle's
    max(0, N(5, 4)) dB."""
    n, distance = 4000, 100.0
    at = [(0.0, 1e6 * i) for i in range(1, n + 1)] + [(distance, 1e6 * i) for i in range(1, n + 1)]
    one = link("sidelink", kind="sidelink", model=model, frequency_hz=5.9e9, at=at, fading="model")
    snr, k = one.mean_snr(NOW, np.arange(n), np.arange(n, 2 * n))
    loss = 23 - 10 * np.log10(snr) - (-174 + 10 * np.log10(20e6) + 9)
    sight, clear_db, k_db = {
        "urban": (1.05 * np.exp(-1.14), 86.20, 3.48),
        "highway": (2.1013e-2 - 0.2 + 1.0193, 87.82, 9.0),
    }[model]
    clear = np.isclose(k, 10 ** (k_db / 10))
    assert clear.mean() == pytest.approx(sight, abs=4 * np.sqrt(sight * (1 - sight) / n))
    assert loss[clear].mean() == pytest.approx(clear_db, abs=4 * 3 / np.sqrt(clear.sum()))
    assert loss[clear].std() == pytest.approx(3.0, rel=0.1)
    behind = loss[~clear] - clear_db
    assert behind.mean() == pytest.approx(5.2023, abs=4 * 4.7 / np.sqrt(len(behind)))
    assert behind.std() == pytest.approx(np.sqrt(9 + 3.641**2), rel=0.1)
    assert k[~clear] == pytest.approx(1.0)  # Table 6.2.3-1: a mean of 0 dB
