"""What the clock decides: who is late, lost, gone, and what that costs."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.network.client_devices import ClientDevices
from fedray.network.clock import time_round
from fedray.network.devices import open_device
from fedray.network.ledger import Ledger, idle_s
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.randomness import SERVER_ID
from fedray.scenario.cell import Cell, Places
from fedray.scenario.device import CpuDevice, FlopsDevice, Mix, Profile, Share
from fedray.scenario.links import FixedLink
from fedray.scenario.network import Network
from fedray.scenario.radio import LogDistance, Sidelink
from fedray.schedule import Schedule
from fedray.shipped import devices
from fedray.steps import SERVER_NODE, Aggregate, Send, Train, client_node
from fedray.topologies.parallel import parallel
from fedray.topologies.relay import random_order, relay
from fedray.topologies.split import splitfed

N = 4
WORK = Work(
    lambda client, pictures: 1e9 * (client + 1),
    lambda direction, client: 1_000_000,
    lambda updates: 1e6 * updates,
)


def fixed(rate=8e6, **more):
    return FixedLink(kind="fixed", rate_bps=rate, **more)


SECTIONS = {
    "uplink": fixed(), "downlink": fixed(), "sidelink": fixed(),
    "device": FlopsDevice(kind="flops", peak_flops=1e9, active_w=10.0),
    "server": FlopsDevice(kind="flops", peak_flops=1e9, active_w=100.0),
}  # fmt: skip


def radio(seed=0, **changes):
    return Radio(Network(**(SECTIONS | changes)), N, seed)


def outcomes(events):
    return {e.id: e.outcome for e in events}


def test_a_deadline_drops_who_is_late_and_charges_it_all_the_same():
    whole = time_round(parallel(1, range(N), False), WORK, radio(), 0.0)
    cut = time_round(parallel(1, range(N), False, deadline_s=4.5), WORK, radio(), 0.0)
    # they end at 3, 4, 5 and 6 s
    assert [outcomes(cut)[f"up-{k}"] for k in range(N)] == ["done", "done", "late", "late"]
    assert [e.bytes for e in cut] == [e.bytes for e in whole]
    assert sum(e.energy_j for e in cut) == sum(e.energy_j for e in whole)
    assert cut[-1].t0_s == 4.5
    assert Ledger().add(cut).sim_time_s == pytest.approx(4.5 + 0.004)
    kept = parallel(1, range(N), False, deadline_s=4.5).prune(outcomes(cut))
    assert kept.clients == [0, 1]
    assert kept.steps[-1].after == ("up-0", "up-1")


def test_who_comes_at_the_deadline_is_in_time():
    assert (
        outcomes(time_round(parallel(1, range(2), False, deadline_s=4.0), WORK, radio(), 100.0))["up-1"]
        == "done"
    )


@given(st.integers(1, N), st.integers(0, 50))
def test_a_round_that_asks_for_more_ends_with_the_m_th_of_them(m, seed):
    events = time_round(parallel(1, range(N), False, min_updates=m), WORK, radio(seed), 0.0)
    ups = sorted((e for e in events if e.direction == "uplink"), key=lambda e: e.t1_s)
    assert [e.outcome for e in ups] == ["done"] * m + ["late"] * (N - m)
    assert events[-1].t0_s == ups[m - 1].t1_s


def test_the_first_m_of_equals_are_those_with_the_smaller_numbers():
    even = Work(lambda client, pictures: 1e9, lambda direction, client: 10**6, lambda updates: 0.0)
    events = time_round(parallel(1, range(N), False, min_updates=2), even, radio(), 0.0)
    assert [outcomes(events)[f"up-{k}"] for k in range(N)] == ["done", "done", "late", "late"]


def test_a_device_that_vanishes_has_spent_what_it_did_and_sends_nothing():
    device = FlopsDevice(kind="flops", peak_flops=1e9, active_w=10.0, dropout=0.5)
    gone = 0
    for t in range(1, 51):
        events = {e.id: e for e in time_round(parallel(t, range(N), False), WORK, radio(device=device), 0.0)}
        for k in range(N):
            if events[f"train-{k}"].outcome == "dropped":
                gone += 1
                assert 0 < events[f"train-{k}"].energy_j < 10 * (k + 1)
                assert events[f"up-{k}"].outcome == "skipped"
                assert (events[f"up-{k}"].bytes, events[f"up-{k}"].energy_j) == (0, 0)
            else:
                assert events[f"train-{k}"].energy_j == 10 * (k + 1)
    assert 70 < gone < 130


def test_each_of_a_split_turn_s_transfers_is_lost_by_itself():
    """A turn of n transfers arrives with (1 - p)^n, p a Rayleigh channel's outage 1 - exp(-threshold /
    snr)."""
    n, batches = 1500, 3
    cell = Cell(placement=Places(kind="places", at=[[100.0, 1e-6 * k] for k in range(n)]))
    section = {
        "kind": "log_distance",
        "bandwidth_hz": n * 180e3,
        "shadowing_db": 0.0,
        "fading": "rayleigh",
        "rate": "shannon",
    }
    quiet = Radio(Network(**(SECTIONS | {"uplink": LogDistance(**section), "cell": cell})), n, 0)
    # all of a device's power for its share
    snr = quiet.links["uplink"].mean_snr(RoundStart(1, 0.0), np.arange(1), np.full(1, -1))[0][0] * n
    outage_db = 10 * np.log10(0.1 * snr)
    net = Radio(
        Network(**(SECTIONS | {"uplink": LogDistance(**section, outage_db=outage_db), "cell": cell})), n, 0
    )
    work = dataclasses.replace(
        WORK, pass_flops=lambda stage, samples: 1e6, crossing_bytes=lambda crossing, samples: 1000
    )
    asked = splitfed(1, {k: [1] * batches for k in range(n)}, u_shape=False)
    found = outcomes(time_round(asked, work, net, 0.0))
    p = 1 - np.exp(-0.1)
    first = np.mean([found[f"smashed-{k}-0"] == "lost" for k in range(n)])
    whole = np.mean([found[f"up-{k}"] == "done" for k in range(n)])
    assert first == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / n))
    assert whole == pytest.approx((1 - p) ** (batches + 1), abs=4 * np.sqrt(0.25 / n))
    lost = [
        i.split("-")[0] + i.split("-")[-1]
        for i, outcome in found.items()
        if outcome == "lost" and i.startswith("smashed")
    ]
    assert {f"smashed{b}" for b in range(batches)} == set(lost)


def test_a_hop_arrives_in_the_clock_as_it_did_for_who_was_tried_next():
    """Two chains share a sidelink; a hop that is not a chain's last from its sender was given up."""
    n = 12
    cell = Cell(placement=Places(kind="places", at=[[30.0 * k + 10, 0.0] for k in range(n)]))
    sidelink = Sidelink(
        kind="sidelink",
        model="d2d",
        frequency_hz=3.5e9,
        bandwidth_hz=2e6,
        fading="rayleigh",
        outage_db=27.0,
        block_error=0.5,
        harq=14,
    )
    net = Radio(Network(**(SECTIONS | {"sidelink": sidelink, "cell": cell})), n, 0)
    given_up, arrived = 0, 0
    for t in range(1, 40):
        when = RoundStart(t, 0.0)
        reaches = partial(_reaches, net, when, 2)
        schedule = relay(
            t, [list(range(6)), list(range(6, 12))], random_order, np.random.default_rng(t), reaches
        )
        found = outcomes(time_round(schedule, WORK, net, 0.0))
        hops = [s for s in schedule if isinstance(s, Send) and s.direction == "sidelink"]
        trained = {s.after[0] for s in schedule if isinstance(s, Train)}
        for hop in hops:
            assert (found[hop.id] == "done") == (hop.id in trained)
            given_up += hop.id not in trained
            arrived += hop.id in trained
    assert min(given_up, arrived) > 40


def _reaches(net, when, chains, sender, receiver):
    return net.hop_arrives(when, sender, receiver, WORK.send_bytes("sidelink", sender), 1 / chains)


def test_what_is_lost_on_its_way_down_is_never_trained():
    far = LogDistance(kind="log_distance", bandwidth_hz=1e6, shadowing_db=0.0, fading="none")
    cell = Cell(placement=Places(kind="places", at=[[50.0, 0], [50_000, 0], [60, 0], [70, 0]]))
    events = time_round(parallel(1, range(N), False), WORK, radio(downlink=far, cell=cell), 0.0)
    assert [outcomes(events)[i] for i in ("down-1", "train-1", "up-1")] == ["lost", "skipped", "skipped"]
    assert parallel(1, range(N), False).prune(outcomes(events)).clients == [0, 2, 3]


def test_waiting_is_paid_where_a_device_idles():
    device = FlopsDevice(kind="flops", peak_flops=1e9, active_w=10.0, idle_w=2.0)
    events = time_round(parallel(1, range(N), False), WORK, radio(device=device), 0.0)
    waits = {e.node: e.energy_j for e in events if e.event == "wait"}
    end = next(e.t1_s for e in events if e.event == "aggregate")
    assert waits == pytest.approx({client_node(k): 2.0 * (end - (3 + k)) for k in range(N)})
    assert Ledger().add(events).energy_j == pytest.approx(sum(e.energy_j for e in events))


@given(st.integers(1, 6), st.floats(0.5, 8), st.integers(0, 99))
def test_the_ledger_has_every_event_s_joules_and_bytes(rounds, deadline, seed):
    device = FlopsDevice(kind="flops", peak_flops=1e9, active_w=10.0, idle_w=1.0, dropout=0.2)
    ledger, total, nbytes, net = Ledger(), 0.0, 0, radio(seed, device=device)
    for t in range(1, rounds + 1):
        events = time_round(parallel(t, range(N), False, deadline_s=deadline), WORK, net, ledger.sim_time_s)
        again = time_round(
            parallel(t, range(N), False, deadline_s=deadline),
            WORK,
            radio(seed, device=device),
            ledger.sim_time_s,
        )
        assert events == again
        ledger = ledger.add(events)
        total, nbytes = total + sum(e.energy_j for e in events), nbytes + sum(e.bytes for e in events)
    assert ledger.energy_j == pytest.approx(total)
    assert ledger.bytes_uplink + ledger.bytes_downlink == nbytes


def test_one_client_s_three_batches_of_six_seconds_take_eighteen():
    assert batches(1, 3)[-1].t0_s == 18.0


def test_three_clients_that_share_a_server_of_half_a_second_finish_at_12_and_then_one_by_one():
    ends = [e.t1_s for e in batches(3, 1, compute_s=5.75, server_s=0.5) if e.id.startswith("back")]
    assert sorted(ends) == [12.0, 12.5, 13.0]


def batches(clients, count, compute_s=2.75, server_s=0.5):
    """Split training by hand: forward at the client, the server's turn, which others wait for, backward at
    the client."""
    steps, ends = [], []
    for k in range(clients):
        before = ()
        for b in range(count):
            steps.append(Train(f"forward-{k}-{b}", k, before))
            steps.append(Train(f"server-{k}-{b}", -1, (steps[-1].id,)))
            steps.append(Train(f"back-{k}-{b}", k, (steps[-1].id,)))
            before = (steps[-1].id,)
        ends += before
    work = Work(
        lambda client, pictures: (server_s if client == -1 else compute_s) * 1e9,
        lambda d, c: 0,
        lambda n: 0.0,
    )
    return time_round(Schedule(1, (*steps, Aggregate("aggregate", tuple(ends)))), work, radio(), 0.0)


def test_equal_shares_halve_a_band_and_min_max_lets_all_finish_together():
    cell = Cell(placement=Places(kind="places", at=[[50.0, 0], [80.0, 10], [60, 0], [120, 0]]))
    section = {
        "kind": "log_distance",
        "bandwidth_hz": 5e6,
        "shadowing_db": 0.0,
        "fading": "none",
        "rate": "shannon",
    }
    even, fair = (
        [
            e
            for e in time_round(
                parallel(1, range(N), False),
                WORK,
                radio(uplink=LogDistance(**section, allocation=how), cell=cell),
                0.0,
            )
            if e.direction == "uplink"
        ]
        for how in ("equal", "min_max")
    )
    assert len({e.t1_s for e in even}) == N
    assert [e.t1_s for e in fair] == pytest.approx([fair[0].t1_s] * N)
    assert fair[0].t1_s < max(e.t1_s for e in even)


def test_a_base_station_has_its_power_once_however_many_it_sends_to():
    for n in (1, 4):
        down = [
            e
            for e in time_round(parallel(1, range(n), False), WORK, radio(), 0.0)
            if e.direction == "downlink"
        ]
        # 46 dBm for the second that 8 Mbit take
        assert sum(e.energy_j for e in down) == pytest.approx(40.0 * 1.0)
        own = [
            e
            for e in time_round(
                parallel(1, range(n), False), WORK, radio(downlink=fixed(transmit_w=2.0)), 0.0
            )
        ]
        # what is said is each link's
        assert [e.energy_j for e in own if e.direction == "downlink"] == pytest.approx([2.0] * n)


def test_one_who_sends_alone_has_the_whole_band():
    cell = Cell(placement=Places(kind="places", at=[[50.0, 0], [80.0, 10], [60, 0], [120, 0]]))
    uplink = LogDistance(kind="log_distance", bandwidth_hz=5e6, shadowing_db=0.0, fading="none")
    alone, among = (
        time_round(parallel(1, range(n), False), WORK, radio(uplink=uplink, cell=cell), 0.0)[2 * n]
        for n in (1, 4)
    )
    assert alone.id == among.id == "up-0"
    assert alone.t1_s - alone.t0_s < among.t1_s - among.t0_s


def test_saving_energy_meets_the_deadline_with_less():
    cell = Cell(placement=Places(kind="places", at=[[50.0, 0], [80.0, 10], [60, 0], [120, 0]]))
    uplink = LogDistance(
        kind="log_distance", bandwidth_hz=5e6, shadowing_db=0.0, fading="none", rate="shannon"
    )
    device = CpuDevice(kind="cpu", frequency_hz=2e9, flops_per_cycle=1.0)
    nets = (
        radio(uplink=uplink, cell=cell, device=device, deadline_s=12.0, save_energy=save)
        for save in (False, True)
    )
    usual, saving = (time_round(parallel(1, range(N), False, 12.0), WORK, net, 0.0) for net in nets)
    assert {e.outcome for e in saving} == {"done"}
    assert max(e.t1_s for e in saving if e.direction == "uplink") == pytest.approx(12.0, rel=1e-9)
    joules = [sum(e.energy_j for e in events if e.node != SERVER_NODE) for events in (saving, usual)]
    assert joules[0] < 0.5 * joules[1]
    for k in range(N):
        train, up = (next(e for e in saving if e.id == f"{what}-{k}") for what in ("train", "up"))
        rest_s = 12.0 - train.t0_s - (up.t1_s - up.t0_s)
        # f = C / T
        assert train.energy_j == pytest.approx(
            1e-28 * 1e9 * (k + 1) * (1e9 * (k + 1) / rest_s) ** 2, rel=1e-6
        )


def test_cpu_cycles_have_their_time_and_energy():
    one = open_device(CpuDevice(kind="cpu", frequency_hz=2e9, flops_per_cycle=4.0))
    assert one.time_s(8e9) == 1.0
    assert one.energy_j(8e9) == pytest.approx(1e-28 * 2e9 * 4e18)
    weighed = open_device(CpuDevice(kind="cpu", frequency_hz=5e9, second_w=1.0))
    assert weighed.frequency_hz == pytest.approx(1.70998e9, rel=1e-5)


def test_every_profile_says_where_its_figures_are_from():
    for name, figures in devices().items():
        assert len(figures["source"]) > 20, name
        one = open_device(Profile(kind="profile", name=name, utilisation=0.5))
        assert one.time_s(figures["peak_flops"]) == 2.0
        assert one.energy_j(figures["peak_flops"]) == 2 * figures["active_w"]
        assert one.memory_bytes == figures["memory_bytes"]


def test_a_mix_is_drawn_once_by_its_shares():
    kinds = [
        Share(share=s, device=FlopsDevice(kind="flops", peak_flops=p, active_w=1.0))
        for s, p in ((3.0, 1e9), (1.0, 2e9))
    ]
    section = radio(device=Mix(kind="mix", of=kinds)).section
    mixed = ClientDevices(section, 10_000, 0, Path())
    rates = np.array([mixed[k].flops_per_s for k in range(10_000)])
    assert (rates == 1e9).mean() == pytest.approx(0.75, abs=0.02)
    assert np.array_equal(mixed.kind_of[:50], ClientDevices(section, 50, 0, Path()).kind_of)


def test_available_devices_change_from_round_to_round_and_come_at_their_rate():
    seldom = FlopsDevice(kind="flops", peak_flops=1e9, active_w=1.0, availability=0.3)
    one = ClientDevices(radio(device=seldom).section, 10_000, 0, Path())
    first, second = (one.available(RoundStart(t, 0.0), np.arange(10_000)) for t in (1, 2))
    assert len(first) == pytest.approx(3000, abs=150)
    assert set(first) != set(second)


def test_a_row_of_the_timeline_is_json():
    assert (
        json.loads(json.dumps(time_round(parallel(1, range(N), False), WORK, radio(), 0.0)[0].row()))[
            "outcome"
        ]
        == "done"
    )


def test_a_failed_hop_is_charged_and_the_next_one_waits_for_it():
    steps = (
        Send("down-0", SERVER_ID, 0, "downlink"),
        Train("train-0", 0, ("down-0",)),
        Send("hop-0-1", 0, 1, "sidelink", ("train-0",)),
        Send("hop-0-2", 0, 2, "sidelink", ("train-0", "hop-0-1")),
        Train("train-2", 2, ("hop-0-2",)),
        Send("up-2", 2, SERVER_ID, "uplink", ("train-2",)),
        Aggregate("aggregate", ("up-2",)),
    )
    decided = {s.id: "lost" if s.id == "hop-0-1" else "done" for s in steps}
    events = {e.id: e for e in time_round(Schedule(1, steps), WORK, radio(), 0.0, decided)}
    assert events["hop-0-1"].bytes == 10**6
    assert events["hop-0-2"].t0_s == events["hop-0-1"].t1_s
    assert events["train-2"].outcome == "done"
    kept = Schedule(1, steps).prune({i: e.outcome for i, e in events.items()})
    assert "hop-0-1" not in {s.id for s in kept}
    assert kept.clients == [0, 2]


def test_who_is_late_is_busy_until_it_is_through():
    device = FlopsDevice(kind="flops", peak_flops=1e9, active_w=10.0)
    ledger = Ledger().add(
        time_round(parallel(1, range(N), False, deadline_s=4.5), WORK, radio(device=device), 0.0)
    )
    assert ledger.busy == {"client-2": 5.0, "client-3": 6.0}
    again = ledger.add(
        time_round(parallel(2, [0], False, deadline_s=4.5), WORK, radio(device=device), ledger.sim_time_s)
    )
    assert again.busy == {}


def test_a_round_that_finds_nobody_free_lasts_until_its_deadline():
    (event,) = time_round(parallel(1, [], False, deadline_s=4.5), WORK, radio(), 10.0)
    assert (event.t0_s, event.t1_s) == (14.5, 14.5)


def test_what_overlaps_is_no_more_than_once_busy():
    steps = [("a", "b", 0.0, 4.0), ("b", "a", 1.0, 3.0), ("a", None, 6.0, 20.0)]
    assert idle_s(steps, 0.0, 10.0) == {"a": 2.0, "b": 6.0}


def test_a_server_that_waits_pays_for_it():
    server = FlopsDevice(kind="flops", peak_flops=1e9, active_w=100.0, idle_w=3.0)
    events = time_round(parallel(1, [0], False), WORK, radio(server=server), 0.0)
    # while the client trains
    assert [(e.node, e.energy_j) for e in events if e.event == "wait"] == [(SERVER_NODE, pytest.approx(3.0))]
