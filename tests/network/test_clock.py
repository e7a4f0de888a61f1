from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.checks import check
from fedray.network.clock import time_round
from fedray.network.devices import open_device
from fedray.network.fixed import FixedRateLink
from fedray.network.ledger import Ledger
from fedray.network.links import LinkContext, RoundStart
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.randomness import SERVER_ID, generator
from fedray.scenario.device import FlopsDevice
from fedray.scenario.links import FixedLink
from fedray.scenario.network import Network
from fedray.schedule import Schedule
from fedray.steps import Aggregate, Send, Train
from fedray.topologies.parallel import parallel
from fedray.topologies.relay import random_order
from fedray.topologies.split import splitfed
from tests.helpers import chained, sent

PAYLOAD = 1_000_000  # bytes


def network(**changes):
    sections = {
        "uplink": FixedLink(kind="fixed", rate_bps=1e6, latency_s=0.1, transmit_w=2.0, receive_w=1.0),
        "downlink": FixedLink(kind="fixed", rate_bps=4e6, latency_s=0.2, transmit_w=20.0),
        "sidelink": FixedLink(kind="fixed", rate_bps=2e6, latency_s=0.05, transmit_w=0.5, receive_w=0.25),
        "device": FlopsDevice(kind="flops", peak_flops=2e9, utilisation=0.5, active_w=10.0),
        "server": FlopsDevice(kind="flops", peak_flops=1e10, utilisation=1.0, active_w=100.0),
    }
    return Radio(Network(**(sections | changes)))


WORK = Work(
    train_flops=lambda client, pictures: 1e9 * (client + 1),
    send_bytes=lambda direction, client: PAYLOAD,
    aggregate_flops=lambda updates: 2e9 * updates,
)
DOWN_S, UP_S, HOP_S = 0.2 + 2.0, 0.1 + 8.0, 0.05 + 4.0  # 8 Mbit over each link


def in_order(clients, rng):
    return lambda here, left: sorted(left)


def test_a_relay_takes_downlink_turns_hops_uplink_and_aggregation_one_after_another():
    events = time_round(chained(1, range(5), 1, in_order, generator(0, 1, -1, "order")), WORK, network(), 0.0)
    assert events[-1].event == "aggregate"
    assert events[-1].t1_s == pytest.approx(DOWN_S + (1 + 2 + 3 + 4 + 5) + 4 * HOP_S + UP_S + 0.2)


def test_each_step_starts_when_the_one_before_it_ends():
    events = time_round(
        chained(1, range(3), 1, in_order, generator(0, 1, -1, "order")), WORK, network(), 100.0
    )
    ends = {e.id: e.t1_s for e in events}
    assert events[0].t0_s == 100.0
    assert all(e.t0_s == max(ends[i] for i in e.after) for e in events[1:])
    assert [e.event for e in events] == [
        "send",
        "train",
        "send",
        "train",
        "send",
        "train",
        "send",
        "aggregate",
    ]


def test_chains_side_by_side_take_as_long_as_the_longest():
    schedule = chained(1, range(4), 2, in_order, generator(0, 1, -1, "order"))
    events = time_round(schedule, WORK, network(), 0.0)
    chains, own = [], []
    for step in schedule:
        if isinstance(step, Send) and step.direction == "downlink":
            chains.append([])
        if isinstance(step, Train):
            chains[-1].append(step.client)
    for chain in chains:
        own.append(DOWN_S + sum(c + 1 for c in chain) + (len(chain) - 1) * HOP_S + UP_S)
    assert sorted(map(len, chains)) == [2, 2]
    assert own[0] != own[1]
    assert events[-1].t1_s == pytest.approx(max(own) + 0.4)


def test_energy_is_power_times_time_of_every_device_and_radio():
    events = time_round(chained(1, range(5), 1, in_order, generator(0, 1, -1, "order")), WORK, network(), 0.0)
    radio = 20.0 * 2.0 + (2.0 + 1.0) * 8.0 + 4 * (0.5 + 0.25) * 4.0  # on air without latency
    assert sum(e.energy_j for e in events) == pytest.approx(radio + 10.0 * 15 + 100.0 * 0.2)


def test_a_device_does_one_thing_at_a_time():
    send = Send("down", SERVER_ID, 0, "downlink")
    trains = [Train(f"train-{i}", 0, ("down",)) for i in range(2)]
    events = time_round(
        Schedule(1, (send, *trains, Aggregate("aggregate", ("train-0", "train-1")))), WORK, network(), 0.0
    )
    first, second = (e for e in events if e.event == "train")
    assert (first.t0_s, first.t1_s) == (DOWN_S, DOWN_S + 1)
    assert (second.t0_s, second.t1_s) == (DOWN_S + 1, DOWN_S + 2)


def test_a_link_carries_one_thing_at_a_time_in_each_direction():
    sends = [Send(f"down-{k}-{i}", SERVER_ID, k, "downlink") for k in range(2) for i in range(2)]
    trains = [Train(f"train-{s.id}", int(s.id[5]), (s.id,)) for s in sends]
    events = time_round(
        Schedule(1, (*sends, *trains, Aggregate("aggregate", tuple(t.id for t in trains)))),
        WORK,
        network(),
        0.0,
    )
    assert [e.t1_s for e in events if e.event == "send"] == pytest.approx([DOWN_S, 2 * DOWN_S] * 2)


def test_each_client_has_its_own_rate_in_a_list():
    uplink = FixedLink(kind="fixed", rate_bps=[1e6, 2e6, 4e6])
    events = time_round(
        chained(1, range(3), 3, in_order, generator(0, 1, -1, "order")), WORK, network(uplink=uplink), 0.0
    )
    took = {e.node: e.t1_s - e.t0_s for e in events if e.direction == "uplink"}
    assert took == pytest.approx({"client-0": 8.0, "client-1": 4.0, "client-2": 2.0})


def test_a_table_of_sidelinks_goes_by_sender_and_receiver():
    table = FixedRateLink(
        FixedLink(kind="fixed", rate_bps=[[1.0, 2e6], [4e6, 1.0]], latency_s=0.5), LinkContext("sidelink")
    )
    assert sent(table, 0, 1, PAYLOAD)[0][0] == 4.5
    assert sent(table, 1, 0, PAYLOAD)[0][0] == 2.5


def test_a_client_is_the_one_with_the_rate_in_either_direction():
    link = FixedRateLink(FixedLink(kind="fixed", rate_bps=[1e6, 2e6]), LinkContext())
    both = np.array([-1, 1]), np.array([1, -1])
    assert link.rates_bps(RoundStart(1, 0.0), *both).tolist() == [2e6, 2e6]


def test_compute_time_is_work_over_what_the_device_can_use():
    device = open_device(FlopsDevice(kind="flops", peak_flops=8e12, utilisation=0.25, active_w=200.0))
    assert device.time_s(4e12) == 2.0
    assert device.energy_j(4e12) == 400.0


def test_a_ledger_runs_on_through_the_rounds():
    radio, ledger, ends = network(), Ledger(), []
    for t in (1, 2, 3):
        events = time_round(
            chained(t, range(5), 1, in_order, generator(0, t, -1, "order")), WORK, radio, ledger.sim_time_s
        )
        assert events[0].t0_s == ledger.sim_time_s
        ledger = ledger.add(events)
        ends.append(ledger.sim_time_s)
    assert ends == pytest.approx([ends[0], 2 * ends[0], 3 * ends[0]])
    assert ledger.transfers == 18
    assert (ledger.bytes_uplink, ledger.bytes_downlink, ledger.bytes_sidelink) == (
        3 * PAYLOAD,
        3 * PAYLOAD,
        12 * PAYLOAD,
    )


@given(clients=st.integers(1, 12), data=st.data())
def test_a_round_is_never_shorter_than_its_slowest_chain_nor_longer_than_all_in_a_row(clients, data):
    chains = data.draw(st.integers(1, clients))
    seed = data.draw(st.integers(0, 1000))
    events = time_round(
        chained(1, range(clients), chains, random_order, generator(seed, 1, -1, "order")),
        WORK,
        network(),
        0.0,
    )
    ends = {e.id: e for e in events}
    for e in events:
        assert e.t0_s >= max((ends[i].t1_s for i in e.after), default=0.0)
    assert (
        max(e.t1_s - e.t0_s for e in events) <= events[-1].t1_s <= sum(e.t1_s - e.t0_s for e in events) + 1e-9
    )


def test_the_shipped_scenarios_links_give_the_papers_times_of_a_turn_and_its_hop():
    radio = Radio(
        check(
            next(Path(__file__).parents[2].glob("scenarios/huang2023/huang2023-lora.yaml"))
        ).scenario.network
    )
    lora = radio.devices[0].time_s(4 * 1.730e12) + sent(radio.links["sidelink"], 0, 1, 9_437_184)[0][0]
    full = radio.devices[0].time_s(4 * 2.407e12) + sent(radio.links["sidelink"], 0, 1, 1_719_041_928)[0][0]
    assert round(lora, 2) == 1.23
    assert round(full, 1) == 71.4
    assert (round(143 * lora / 60, 1), round(110 * full / 60)) == (2.9, 131)


def test_events_say_whose_client_batch_and_part_they_are_of():
    schedule = splitfed(1, {3: [4]}, u_shape=False, micro=2)
    work = Work(
        WORK.train_flops,
        WORK.send_bytes,
        WORK.aggregate_flops,
        pass_flops=lambda stage, samples: 1e9,
        crossing_bytes=lambda crossing, samples: 1000,
    )
    events = {e.id: e for e in time_round(schedule, work, network(), 0.0)}
    found = {i: (e.client, e.batch, e.part) for i, e in events.items()}
    assert found["down-3"] == found["up-3"] == (3, None, None)
    assert (
        found["smashed-3-0-1"]
        == found["server_forward_backward-3-0-1"]
        == found["gradients-3-0-1"]
        == (3, 0, 1)
    )
    assert found["front-3-0-0"] == (3, 0, 0)
    assert found["aggregate"] == (None, None, None)


def test_a_hop_between_two_clients_is_its_sender_s():
    schedule = chained(1, [2, 5], 1, in_order, generator(0, 1, -1, "order"))
    (hop,) = (e for e in time_round(schedule, WORK, network(), 0.0) if e.direction == "sidelink")
    assert (hop.node, hop.client) == (f"client-{hop.client}", 2)


def test_a_local_update_that_waits_takes_longer_by_that_at_its_devices_idle_power():
    device = FlopsDevice(kind="flops", peak_flops=2e9, utilisation=0.5, active_w=10.0, idle_w=3.0)
    waiting = replace(WORK, waits_s=lambda client: 60.0 if client else 0.0)
    schedule = parallel(1, range(2), allreduce=False)
    plain, waited = (
        {e.id: e for e in time_round(schedule, work, network(device=device), 0.0)} for work in (WORK, waiting)
    )
    assert waited["train-1"].t1_s == pytest.approx(plain["train-1"].t1_s + 60)
    assert waited["train-1"].energy_j == pytest.approx(plain["train-1"].energy_j + 3.0 * 60)
    assert waited["train-1"].row()["waits_s"] == 60
    assert waited["train-0"] == plain["train-0"]
    assert "waits_s" not in waited["train-0"].row()


def test_fedcs_and_auctions_count_what_a_local_update_waits():
    device = FlopsDevice(kind="flops", peak_flops=2e9, utilisation=0.5, active_w=10.0, idle_w=3.0)
    radio = network(device=device)
    start = RoundStart(1, 0.0)
    clients = np.array([0])
    waiting = replace(WORK, waits_s=lambda client: 60.0)
    seconds = [radio.finish_times_s(start, work, clients)(1)[0] for work in (WORK, waiting)]
    joules = [radio.client_energy_j(start, work, clients, 1)[0] for work in (WORK, waiting)]
    assert seconds[1] == pytest.approx(seconds[0] + 60)
    assert joules[1] == pytest.approx(joules[0] + 180)
