"""One timeline across rounds: who arrives when, how stale, and what a shared band does to all of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.aggregation.staleness import HingeStaleness, PolynomialStaleness
from fedray.network.asynchronous import Timeline
from fedray.network.clock import time_round
from fedray.network.flights import events_of
from fedray.network.links import Link, LinkContext, RoundStart, TransferCosts
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.rounds import random_client
from fedray.scenario.allocation import Blocks, Equal
from fedray.scenario.cell import Cell, Places
from fedray.scenario.device import FlopsDevice
from fedray.scenario.links import BASE_W, FixedLink, TraceLink
from fedray.scenario.mode import FedBuff, Hinge, Polynomial
from fedray.scenario.network import Network
from fedray.scenario.radio import LogDistance
from fedray.topologies.parallel import parallel

NOTHING = FixedLink(kind="fixed", rate_bps=1e30, transmit_w=0)


SERVER = FlopsDevice(kind="flops", peak_flops=10.0, active_w=1.0)


def network(**changes):
    sections = {
        "uplink": NOTHING,
        "downlink": NOTHING,
        "sidelink": NOTHING,
        "device": FlopsDevice(kind="flops", peak_flops=1.0, active_w=1.0),
        "server": FlopsDevice(kind="flops", peak_flops=1e30, active_w=0.0),
    }
    return Network(**(sections | changes))


def timeline(seconds, mode, clients=None, seed=0, nbytes=0, **changes):
    """A timeline of clients that each train for so many seconds."""
    n = len(seconds)
    work = Work(lambda c, _: seconds[c], lambda *_: nbytes, lambda _: 0.0)
    radio = Radio(network(**changes), n, seed)
    return Timeline(mode, work, radio, random_client(seed, radio, np.arange(n)), 0.0, False)


def mode(concurrency, buffer, **more):
    return FedBuff(kind="fedbuff", concurrency=concurrency, buffer=buffer, **more)


def staleness(line, steps):
    found = []
    for _ in range(steps):
        step = line.next_step()
        found += [line.round - 1 - f.version for f in step.flights if f.outcome == "done"]
    return found


def test_functions_of_staleness_are_those_of_their_paper():
    polynomial = PolynomialStaleness(Polynomial(kind="polynomial", a=0.5))
    expected = [1, 0.707107, 0.5, 1 / 3, 0.25]
    assert [polynomial.factor(t) for t in (0, 1, 3, 8, 15)] == pytest.approx(expected, abs=1e-6)
    hinge = HingeStaleness(Hinge(kind="hinge", a=10, b=4))
    assert [hinge.factor(t) for t in (4, 5, 6, 9)] == [1, 1 / 11, 1 / 21, 1 / 51]


@pytest.mark.parametrize("buffer", [1, 5, 10])
def test_mean_staleness_is_what_is_under_way_beside_one_over_the_buffer(buffer):
    seconds = np.random.default_rng(0).lognormal(size=40)
    found = staleness(timeline(seconds, mode(10, buffer)), 2000 // buffer)[100:]
    assert np.mean(found) == pytest.approx((10 - 1) / buffer, rel=0.08, abs=0.08)


def test_as_many_updates_as_clients_under_way_is_a_synchronous_round():
    link = FixedLink(kind="fixed", rate_bps=8e3, latency_s=0.1)
    seconds = [1.0, 2.0, 3.0]
    line = timeline(seconds, mode(3, 3), nbytes=1000, uplink=link, downlink=link)
    work = Work(lambda c, _: seconds[c], lambda *_: 1000, lambda _: 0.0)
    start_s = 0.0
    for t in range(1, 4):
        step = line.next_step()
        assert [f.version for f in step.flights] == [t - 1] * 3
        timed = time_round(parallel(t, range(3), False), work, line.radio, start_s)
        mine = {e.id: e for e in events_of(t, step, start_s, line.radio)}
        for event in timed:
            assert mine[event.id].t1_s == pytest.approx(event.t1_s)
            assert mine[event.id].energy_j == pytest.approx(event.energy_j)
        start_s = timed[-1].t1_s


def test_who_arrives_at_the_same_second_arrives_by_number():
    line = timeline([1.0] * 6, mode(4, 2))
    first, second = line.next_step(), line.next_step()
    arrived = [f.client for f in (*first.flights, *second.flights)]
    assert arrived == sorted(arrived)
    assert [f.version for f in second.flights] == [0, 0]
    assert first.versions == {0}


def test_a_client_begins_at_most_once_a_server_step():
    line = timeline([0.1, 9.0, 9.0, 9.0], mode(2, 2))
    for _ in range(20):
        clients = [f.client for f in line.next_step().flights]
        assert len(set(clients)) == len(clients)


def test_what_would_be_too_stale_is_thrown_away_and_costs_all_the_same():
    line = timeline([1.0] * 20 + [3.5], mode(21, 1, max_staleness=25))
    outcomes = [(f.client, f.outcome) for _ in range(150) for f in line.next_step().flights]
    slow = [outcome for client, outcome in outcomes if client == 20]
    assert slow
    assert set(slow) == {"stale"}
    assert all(outcome == "done" for client, outcome in outcomes if client != 20)


def test_two_that_share_a_band_each_have_half_of_it_while_both_send():
    """Client 0 sends alone for a second, both for two seconds, then client 1 alone for one."""
    seconds = [0.0, 1.0]
    line = timeline(seconds, mode(2, 2), nbytes=2_000_000, uplink=FixedLink(kind="fixed", rate_bps=8e6))
    line.bands["uplink"] = shared(line, 2)
    ends = {f.client: f.end_s for f in line.next_step().flights}
    assert ends == pytest.approx({0: 3.0, 1: 4.0})


def shared(line, most):
    """A band of 8 Mbit/s that transfers share, without a channel."""
    from fedray.network.shared_band import SharedBand

    class Divided(Link):
        def rates_bps(self, start, sender, receiver):
            return np.full(len(sender), 8e6)

        def transfers(self, start, requests):
            time_s = 8 * requests.nbytes / (8e6 * requests.share)
            return TransferCosts(time_s, 0.2 * time_s, np.zeros(len(time_s), bool))

    return SharedBand(Divided(None, LinkContext()), most)


@given(starts=st.lists(st.floats(0, 5), min_size=1, max_size=8), sizes=st.data())
def test_a_shared_band_carries_in_all_what_it_could_carry_alone(starts, sizes):
    """Work is conserved: while anybody sends, the band carries its whole rate."""
    each = [sizes.draw(st.integers(1, 5_000_000)) for _ in starts]
    line = timeline([0.0], mode(1, 1))
    band = shared(line, len(starts))
    waiting = sorted(zip(starts, range(len(starts)), strict=True))
    spans, begun, now_s = [], {}, 0.0
    while waiting or band.active:
        end = band.next_end()
        if waiting and (end is None or waiting[0][0] <= end[0]):
            now_s, k = waiting.pop(0)
            begun[k] = now_s
            band.begin(now_s, 1, (k, -1), each[k])
        else:
            now_s, k = end
            assert band.end(now_s, k).joules > 0
            spans.append((begun[k], now_s))
    busy_s = 0.0
    until_s = 0.0
    for start_s, end_s in sorted(spans):
        busy_s += max(0.0, end_s - max(start_s, until_s))
        until_s = max(until_s, end_s)
    assert busy_s == pytest.approx(sum(each) / 1e6, rel=1e-6)


def test_a_recorded_downlink_takes_its_time_and_a_base_station_s_power_is_shared(tmp_path):
    """A packet of 1500 bytes at each of 10, 20, 30 ms, and so on."""
    (tmp_path / "a.trace").write_text("10\n")
    work = Work(lambda c, _: 1.0, lambda *_: 3000, lambda _: 0.0)
    trace = TraceLink(kind="trace", path="a.trace")
    radio = Radio(network(downlink=trace, uplink=NOTHING), 2, folder=tmp_path)
    line = Timeline(mode(2, 2), work, radio, random_client(0, radio, np.arange(2)), 0.0, False)
    for flight in line.next_step().flights:
        assert flight.stages[0].end_s == pytest.approx(0.02)
        assert flight.stages[0].joules == pytest.approx(BASE_W / 2 * 0.02)


def test_over_a_fading_radio_band_a_clients_stages_follow_each_other_and_all_finish():
    seconds = [0.1 * k for k in range(8)]
    cell = Cell(placement=Places(kind="places", at=[[20.0 + 10 * k, 0.0] for k in range(8)]))
    link = LogDistance(kind="log_distance", bandwidth_hz=1e7)
    line = timeline(seconds, mode(4, 2), nbytes=500_000, uplink=link, downlink=link, cell=cell)
    assert line.bands.keys() == {"uplink", "downlink"}
    last: dict[int, float] = {}
    for _ in range(10):
        flights = line.next_step().flights
        assert len(flights) == 2
        for flight in flights:
            down, train, up = flight.stages
            assert last.get(flight.client, 0.0) <= down.start_s < down.end_s == train.start_s
            assert train.end_s == up.start_s < up.end_s
            assert min(down.joules, up.joules) > 0
            last[flight.client] = up.end_s


def by_blocks(**more):
    """An uplink of 50 resource blocks without shadowing, that goes on the air at Shannon's rate."""
    more = {"fading": "none", "shadowing_db": 0.0, "rate": "shannon", "overhead": 0.0} | more
    return LogDistance(kind="log_distance", bandwidth_hz=9e6, allocation={"kind": "blocks"}, **more)


def at(*distances_m):
    return Cell(placement=Places(kind="places", at=[[float(d), 0.0] for d in distances_m]))


def test_who_ends_leaves_its_resource_blocks_to_the_others():
    """Client 0 at 200 m sends 2 MB in all, client 1 at 300 m: it has half of the band, then the whole."""
    line = timeline([0.0, 0.0], mode(2, 2), nbytes=2_000_000, uplink=by_blocks(), cell=at(200, 300))
    link = line.radio.links["uplink"]
    ends = {f.client: f.end_s for f in line.next_step().flights}
    bits = 8 * 2_000_000

    def rate_bps(client, share):
        snr, _ = link.mean_snr(RoundStart(1, 0.0), np.array([client]), np.array([-1]))
        in_share = float(snr[0]) / share
        return share * 9e6 * np.log2(1 + in_share) / (1 / (1 - link.section.block_error))

    first_s = bits / rate_bps(0, 0.5)
    left = bits - first_s * rate_bps(1, 0.5)
    assert ends == pytest.approx({0: first_s, 1: first_s + left / rate_bps(1, 1.0)})


def test_resource_blocks_that_fade_serve_asynchronous_clients_at_least_as_well_as_equal_shares():
    cell = at(*(100 + 20 * k for k in range(8)))
    ends = {}
    for kind in ("blocks", "equal"):
        link = by_blocks(fading="rayleigh", rate="truncated").model_copy(
            update={"allocation": Blocks(kind="blocks") if kind == "blocks" else Equal(kind="equal")}
        )
        line = timeline([0.1 * k for k in range(8)], mode(6, 2), nbytes=500_000, uplink=link, cell=cell)
        steps = [line.next_step() for _ in range(20)]
        assert all(f.outcome == "done" for step in steps for f in step.flights)
        assert all(f.stages[2].joules > 0 for step in steps for f in step.flights)
        ends[kind] = steps[-1].stage.end_s
        again = timeline([0.1 * k for k in range(8)], mode(6, 2), nbytes=500_000, uplink=link, cell=cell)
        assert [again.next_step() for _ in range(20)] == steps
    assert ends["blocks"] < ends["equal"]


def test_whom_no_block_reaches_is_lost_and_keeps_nobody_waiting():
    line = timeline(
        [0.0, 0.0], mode(2, 2), nbytes=2_000_000, uplink=by_blocks(rate="truncated"), cell=at(100, 9e4)
    )
    outcomes = {f.client: f.outcome for _ in range(3) for f in line.next_step().flights}
    assert outcomes == {0: "done", 1: "lost"}


def test_steps_follow_each_other_and_the_server_takes_its_time():
    line = timeline(
        [0.5, 1.0, 2.0, 4.0], mode(3, 1), server=FlopsDevice(kind="flops", peak_flops=10.0, active_w=1.0)
    )
    line.work = Work(line.work.train_flops, lambda *_: 0, lambda n: 2.0 * n)
    steps = [line.next_step() for _ in range(30)]
    for before, after in pairwise(steps):
        assert after.stage.start_s >= before.stage.end_s
        assert after.stage.end_s - after.stage.start_s == pytest.approx(0.2)
    for t, step in enumerate(steps, 1):
        for flight in step.flights:
            made = steps[flight.version - 1].stage.end_s if flight.version else 0.0
            assert flight.stages[0].start_s >= made
            assert flight.version < t


def test_lost_and_dropped_clients_free_their_place_and_fill_no_buffer():
    device = FlopsDevice(kind="flops", peak_flops=1.0, active_w=1.0, dropout=0.5)
    line = timeline([1.0] * 10, mode(5, 3), device=device)
    for _ in range(20):
        outcomes = [f.outcome for f in line.next_step().flights]
        assert outcomes.count("done") == 3 or outcomes.count("done") + outcomes.count("dropped") == 10
        assert set(outcomes) <= {"done", "dropped"}
