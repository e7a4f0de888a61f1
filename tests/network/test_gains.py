# ruff: noqa: E501  a table, a line a case

import numpy as np
import pytest

from fedray.checks import check
from fedray.network.asynchronous import Timeline
from fedray.network.cells import from_others, handovers
from fedray.network.gains import GainsFile, GainsLink, Way, read_gains
from fedray.network.links import LinkContext, RoundStart, TransferRequests
from fedray.network.radio import Radio
from fedray.network.shared_band import SharedBand
from fedray.network.transfers import transfer_costs
from fedray.network.work import Work
from fedray.planning.rounds import random_client
from fedray.scenario.base import Refused
from fedray.scenario.gains import Gains
from fedray.scenario.links import FixedLink
from fedray.scenario.load import ScenarioError
from fedray.scenario.mode import FedBuff
from fedray.scenario.network import Network
from fedray.topologies.parallel import parallel
from tests.helpers import garments, sent

SERVER = -1
NOISE_DBM = -174 + 10 * np.log10(20e6)


def saved(folder, gains_db, time_s, name="gains.npz"):
    np.savez(folder / name, gains_db=np.asarray(gains_db, float), time_s=np.asarray(time_s, float))
    return name


def link(folder, gains_db, time_s, direction="uplink", **more):
    section = {"kind": "gains", "path": saved(folder, gains_db, time_s), "bandwidth_hz": 20e6}
    section |= {"transmit_dbm": 23.0, "noise_figure_db": 0.0, "rate": "shannon"} | more
    clients = np.shape(gains_db)[1]
    return GainsLink(Gains(**section), LinkContext(direction, clients=clients, folder=folder))


def rates(one, time_s=0.0):
    clients = np.arange(one.budget.snr.shape[1])
    return one.rates_bps(RoundStart(1, time_s), clients, np.full_like(clients, SERVER))


def test_a_gain_makes_shannon_s_rate_at_its_signal_to_noise_ratio(tmp_path):
    one = link(tmp_path, [[-100.0, -110.0]], [0.0])
    snr = 10 ** ((23 - np.array([100, 110]) - NOISE_DBM) / 10)
    assert rates(one) == pytest.approx(20e6 * np.log2(1 + snr))
    (seconds, joules), lost = sent(one, 1, SERVER, 10**6)
    assert seconds == pytest.approx(8e6 / rates(one)[1])
    assert joules == pytest.approx(10 ** (2.3 - 3) * seconds)
    assert not lost


def test_a_transfer_has_the_rate_of_each_moment_and_waits_while_nothing_is_in_reach(tmp_path):
    """Rows at 0, 1, 3 and 4 s of rates r, 0, 2 r and r; the file begins anew after 5 s."""
    r = 20e6 * np.log2(1 + 10 ** ((23 - 100 - NOISE_DBM) / 10))
    twice_db = 10 * np.log10((2 ** (2 * r / 20e6) - 1) * 10 ** (NOISE_DBM / 10)) - 23
    one = link(tmp_path, [[-100.0], [-np.inf], [twice_db], [-100.0]], [0.0, 1.0, 3.0, 4.0])
    watts = 10 ** (2.3 - 3)
    for start_s, bits, seconds, on_air_s in (
        (0.0, 0.5 * r, 0.5, 0.5),
        (0.5, 1.5 * r, 3.0, 1.0),  # half a second, two of silence, half a second at twice the rate
        (2.0, 1.0 * r, 1.5, 0.5),
        (4.5, 1.0 * r, 1.0, 1.0),  # into the next time that the file is played
        (5.0, 0.5 * r, 0.5, 0.5),
    ):
        (found_s, joules), _ = sent(one, 0, SERVER, bits / 8, time_s=start_s)
        assert found_s == pytest.approx(seconds)
        assert joules == pytest.approx(watts * on_air_s)
    (found_s, joules), _ = sent(one, 0, SERVER, 10 * 4 * r / 8)
    assert (found_s, joules) == (pytest.approx(50.0), pytest.approx(30 * watts))


def test_times_add_up_however_a_transfer_is_cut():
    rng = np.random.default_rng(0)
    time_s = np.cumsum(rng.uniform(0.1, 2.0, 30)) - 0.1
    file = GainsFile(np.zeros((30, 1, 1)), time_s - time_s[0])
    way = Way(file, rng.uniform(0, 1e6, 30) * (rng.random(30) < 0.6))
    for start_s in rng.uniform(0, 200, 40):
        whole, on_air = way.delivery_s(start_s, 9e6)
        first, first_on_air = way.delivery_s(start_s, 4e6)
        rest, rest_on_air = way.delivery_s(start_s + first, 5e6)
        assert whole == pytest.approx(first + rest)
        assert on_air == pytest.approx(first_on_air + rest_on_air)


def test_who_never_is_in_reach_is_lost_and_costs_nothing(tmp_path):
    one = link(tmp_path, [[-100.0, -np.inf], [-90.0, -np.inf]], [0.0, 1.0])
    assert sent(one, 1, SERVER, 1000) == ((np.inf, 0.0), True)
    assert sent(one, 0, SERVER, 1000)[1] is False
    assert one.fading_speedup(RoundStart(1, 0.0), requests([0, 1], 10)).tolist()[1] == 0.0


def requests(clients, nbytes, share=1.0):
    clients = np.array(clients)
    ones = np.ones(len(clients), int)
    return TransferRequests(clients, -ones, nbytes * ones, ones, share * ones, 0 * ones)


def test_an_uplink_that_is_better_than_its_mean_is_a_speedup(tmp_path):
    one = link(tmp_path, [[-90.0, -100.0], [-100.0, -90.0]], [0.0, 10.0])
    now, later = (one.fading_speedup(RoundStart(1, t), requests([0, 1], 100)) for t in (0.0, 10.0))
    assert now[0] > 1 > now[1]
    assert now == pytest.approx(later[::-1])


@pytest.mark.parametrize("direction", ["uplink", "downlink"])
def test_between_two_equal_cells_without_noise_the_ratio_is_one(tmp_path, direction):
    """0 dB at load 1, 3 dB at half of it. Client 0 is served by one cell, client 1 by the other."""
    near = 1e-9  # dB, by which its own is the nearer
    gains_db = [[[-60.0, -60.0 - near], [-60.0 - near, -60.0]]]
    for load, snr in ((1.0, 1.0), (0.5, 2.0)):
        one = link(tmp_path, gains_db, [0.0], direction, load=load)
        assert one.cells(RoundStart(1, 0.0), np.arange(2)).tolist() == [0, 1]
        assert one.budget.snr[0] == pytest.approx([snr, snr], rel=1e-3)  # 60 dB above noise
    alone = link(tmp_path, gains_db, [0.0], direction, load=0.0).budget.snr
    assert alone == pytest.approx(10 ** ((23 - 60 - NOISE_DBM) / 10))


def test_a_base_station_hears_one_device_of_another_cell_at_a_time():
    received_mw = np.array([[8.0, 1.0, 0.1], [1.0, 8.0, 0.1], [3.0, 8.0, 0.3]])
    serving = np.array([0, 1, 1])  # the third cell serves nobody
    assert from_others("uplink", received_mw, serving) == pytest.approx([2.0, 1.0, 1.0])
    assert from_others("downlink", received_mw, serving) == pytest.approx([1.1, 1.1, 3.3])


def test_a_cell_takes_over_that_was_stronger_for_long_enough_and_by_enough():
    """The other cell is stronger by -1, 1, 2, 4, 1, 4, 4, -9 dB."""
    more_db = np.array([-1.0, 1, 2, 4, 1, 4, 4, -9])
    gains_db = np.stack([np.zeros(8), more_db], 1)[:, None, :]
    time_s = np.arange(8.0)

    def serving(*options):
        return handovers(gains_db, time_s, *options)[:, 0].tolist()

    assert serving() == [0, 1, 1, 1, 1, 1, 1, 0]
    assert serving(3.0) == [0, 0, 0, 1, 1, 1, 1, 0]
    assert serving(0.0, 2.0) == [0, 0, 0, 1, 1, 1, 1, 1]
    assert serving(3.0, 1.0) == [0, 0, 0, 0, 0, 0, 1, 1]


def network(tmp_path, gains_db, **more):
    uplink = {"kind": "gains", "path": saved(tmp_path, gains_db, [0.0]), "bandwidth_hz": 20e6, **more}
    fixed = {"kind": "fixed", "rate_bps": 8e6}
    device = {"kind": "flops", "peak_flops": 1e9, "active_w": 1.0}
    ends = {"device": device, "server": device}
    return Network.model_validate({"uplink": uplink, "downlink": fixed, "sidelink": fixed} | ends)


@pytest.mark.parametrize("allocation", ["equal", "min_max", "proportional_fair"])
def test_each_cell_has_the_band_for_its_own_clients(tmp_path, allocation):
    """Three of equal gains in one cell have a third each, the one in the other all of it."""
    own, other = -90.0, -np.inf
    gains_db = [[[own, other]] * 3 + [[other, own]]]
    section = network(tmp_path, gains_db, load=0.0, rate="shannon", allocation=allocation)
    radio = Radio(section, 4, folder=tmp_path)
    work = Work(lambda client, images: 1e9, lambda direction, client: 10**6, lambda updates: 0.0)
    schedule = parallel(1, [0, 1, 2, 3], False)
    costs = transfer_costs(schedule, [work.load(step) for step in schedule], radio, RoundStart(1, 0.0))
    up_s = [costs[i].starting_at(0.0)[0] for i in schedule.sends["uplink"]]
    snr = 10 ** ((23 - 90 - (NOISE_DBM + 5)) / 10)
    third_s = 8e6 / (20e6 / 3 * np.log2(1 + 3 * snr))
    assert up_s == pytest.approx([third_s] * 3 + [8e6 / (20e6 * np.log2(1 + snr))], rel=1e-4)


def test_a_broadcast_is_charged_once_in_each_cell(tmp_path):
    gains_db = [[[-90.0, -np.inf], [-90.0, -np.inf], [-np.inf, -90.0]]]
    one = link(tmp_path, gains_db, [0.0], "downlink", allocation="broadcast", load=0.0)
    clients = np.arange(3)
    down = requests(clients, 10**6)._replace(sender=np.full(3, SERVER), receiver=clients)
    costs = one.transfers(RoundStart(1, 0.0), down)
    seconds = costs.time_s[0]
    assert costs.energy_j == pytest.approx(10 ** (2.3 - 3) * seconds * np.array([0.5, 0.5, 1.0]))


def test_a_shared_band_goes_on_at_each_moment_s_rate_and_share(tmp_path):
    """A rate r, from second 1 to 2 nothing, then r. Client 0 begins at 0, client 1 at half a second, r bits each."""
    r = 20e6 * np.log2(1 + 10 ** ((23 - 100 - NOISE_DBM) / 10))
    gains_db = [[-100.0] * 2, [-np.inf] * 2, [-100.0] * 2]
    band = SharedBand(link(tmp_path, gains_db, [0.0, 1.0, 2.0], "downlink", latency_s=0.0), 2)
    for client, start_s in ((0, 0.0), (1, 0.5)):
        band.begin(start_s, 1, (SERVER, client), r / 8)
    ends = []
    while (end := band.next_end()) is not None:
        ends.append((*end, band.end(*end).joules))
    watts = 10 ** (2.3 - 3)
    expected = [(2.5, 0, watts * (0.5 + (0.5 + 0.5) / 2)), (3.0, 1, watts * (1.0 / 2 + 0.5))]
    assert np.array(ends) == pytest.approx(np.array(expected))


def test_in_a_shared_band_latency_is_waited_for_before_the_first_bit(tmp_path):
    """A quarter of a second of latency, then r bits each at a rate r; client 1 begins a second after client 0."""
    r = 20e6 * np.log2(1 + 10 ** ((23 - 100 - NOISE_DBM) / 10))
    band = SharedBand(link(tmp_path, [[-100.0] * 2], [0.0], "downlink", latency_s=0.25), 2)
    band.begin(0.0, 1, (SERVER, 0), r / 8)
    band.begin(1.0, 1, (SERVER, 1), r / 8)
    assert band.next_end() == (pytest.approx(1.5), 0)  # a quarter of it at half the rate
    band.end(*band.next_end())
    assert band.next_end() == (pytest.approx(1.5 + 7 / 8), 1)


def test_beside_a_mode_cells_share_their_bands_each_by_itself(tmp_path):
    """Clients 0 and 1 begin together in one cell, client 2 is alone in the other."""
    gains_db = [[[-100.0, -np.inf], [-100.0, -np.inf], [-np.inf, -100.0]]]
    section = network(tmp_path, gains_db, load=0.0, rate="shannon")
    section = section.model_copy(update={"downlink": FixedLink(kind="fixed", rate_bps=1e30, transmit_w=0.0)})
    radio = Radio(section, 3, folder=tmp_path)
    work = Work(lambda client, images: 0.0, lambda direction, client: 10**6, lambda updates: 0.0)
    mode = FedBuff(kind="fedbuff", concurrency=3, buffer=3)
    line = Timeline(mode, work, radio, random_client(0, radio, np.arange(3)), 0.0, False)
    ends_s = {flight.client: flight.end_s for flight in line.next_step().flights}
    snr = 10 ** ((23 - 100 - (NOISE_DBM + 5)) / 10)
    half_s = 8e6 / (10e6 * np.log2(1 + 2 * snr))
    assert ends_s == pytest.approx({0: half_s, 1: half_s, 2: 8e6 / (20e6 * np.log2(1 + snr))})


BAD = {
    "not a number": ({"gains_db": [[-90.0, -90.0], [-90.0, np.nan]], "time_s": [0, 1]}, "whose gains_db[1, 1, 0] is nan, expected at most 0 dB"),
    "a loss": ({"gains_db": [[-90.0, 95.0]], "time_s": [0]}, "whose gains_db[0, 1, 0] is 95, expected at most 0 dB, or -inf for no path: a gain is minus the path loss"),
    "too few clients": ({"gains_db": [[-90.0]], "time_s": [0]}, "whose gains_db has 1 clients, expected at least population.clients, 2"),
    "a shape of one dimension": ({"gains_db": [-90.0, -90.0], "time_s": [0, 1]}, "whose gains_db has the shape [2], expected [time, client, cell] or [time, client]"),
    "fewer times than rows": ({"gains_db": [[-90.0, -90.0]] * 3, "time_s": [0, 1]}, "whose time_s has the shape [2], expected [3]"),
    "times that stand still": ({"gains_db": [[-90.0, -90.0]] * 3, "time_s": [0, 1, 1]}, "whose time_s[2] is 1 after 1, expected seconds that rise"),
    "a time that is none": ({"gains_db": [[-90.0, -90.0]] * 2, "time_s": [0, np.inf]}, "whose time_s[1] is inf"),
    "no times": ({"gains_db": [[-90.0, -90.0]]}, "which has gains_db, expected the arrays gains_db"),
    "complex amplitudes": ({"gains_db": [[1j, 1j]], "time_s": [0]}, "whose gains_db is of complex128, expected real numbers"),
    "objects": ({"gains_db": np.array([[None, None]]), "time_s": [0]}, "which cannot be read (Object arrays cannot be loaded"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "expected"), BAD.values(), ids=BAD.keys())
def test_a_file_that_is_none_of_gains_is_refused_with_its_array_and_place(tmp_path, arrays, expected):
    np.savez(tmp_path / "gains.npz", **{name: np.array(values) for name, values in arrays.items()})
    with pytest.raises(Refused) as refused:
        read_gains("gains.npz", tmp_path, "network.uplink.path", 2)
    assert (
        str(refused.value).startswith("network.uplink.path: got 'gains.npz', whose ") or "which" in expected
    )
    assert str(refused.value).count("network.uplink.path") == 1
    assert expected in str(refused.value)


def test_check_reads_the_file(tmp_path):
    uplink = {"kind": "gains", "path": "gains.npz", "bandwidth_hz": 5e6}
    file = garments(tmp_path, {"network.uplink": uplink})
    expected = [
        "network.uplink.path: got 'gains.npz', which cannot be read (No such file or directory)",
        "network.uplink.path: got 'gains.npz', which cannot be read (",
        "network.uplink.path: got 'gains.npz', whose gains_db has 4 clients, expected at least population",
    ]
    for i, line in enumerate(expected):
        if i == 1:
            (tmp_path / "gains.npz").write_bytes(b"PK\x03\x04 no zip")
        if i == 2:
            saved(tmp_path, np.full((1, 4), -90.0), [0.0])
        with pytest.raises(ScenarioError) as error:
            check(file)
        assert len(error.value.problems) == 1
        assert line in error.value.problems[0]
    saved(tmp_path, np.full((1, 5), -90.0), [0.0])
    check(file)
