"""Split rounds on the clock: huang2023, Fig. 2(b), with the check values of shared/reference/wireless.md."""

import dataclasses
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.network.clock import time_round
from fedray.network.ledger import Ledger
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.scenario.device import FlopsDevice
from fedray.scenario.links import FixedLink
from fedray.scenario.network import Network
from fedray.scenario.topology import Split
from fedray.steps import SERVER_NODE, Aggregate, Pass, Send
from fedray.topologies.split import SplitTopology, parts, splitfed, vanilla
from fedray.topologies.topology import RoundContext

PART, SMASHED = 1000, 1_000_000  # bytes


def radio(clients=8, dropout=0.0, seed=0):
    """Links that take a second for a sample's activations, devices of a FLOP a second."""
    link = FixedLink(kind="fixed", rate_bps=8e6)
    device = FlopsDevice(kind="flops", peak_flops=1.0, active_w=10.0, dropout=dropout)
    return Radio(
        Network(
            uplink=link,
            downlink=link,
            sidelink=link,
            device=device,
            server=device.model_copy(update={"dropout": 0.0}),
        ),
        clients,
        seed,
    )


def work(part=0, smashed=SMASHED, **seconds):
    flops = {
        "front": 1.0,
        "server_forward_backward": 1.0,
        "server_forward": 1.0,
        "tail": 1.0,
        "server_backward": 1.0,
        "back": 2.0,
    } | seconds
    return Work(
        lambda client, pictures: 0.0,
        lambda direction, client: part,
        lambda updates: 0.0,
        pass_flops=lambda stage, n: n * flops[stage],
        crossing_bytes=lambda crossing, n: n * smashed,
    )


def test_one_client_s_three_batches_of_six_seconds_take_eighteen():
    events = time_round(splitfed(1, {0: [1, 1, 1]}, False), work(), radio(), 0.0)
    assert events[-1].t0_s == 18.0
    assert [e.event for e in events[1:6]] == ["front", "send", "server_forward_backward", "send", "back"]
    assert [e.node for e in events[1:6]] == ["client-0", "client-0", "server", "server", "client-0"]


def test_three_clients_that_share_a_server_of_half_a_second_are_back_at_12_and_then_one_by_one():
    seconds = work(smashed=250_000, front=5.75, server_forward_backward=0.5, back=5.25)
    events = time_round(splitfed(1, {k: [1] for k in range(3)}, False), seconds, radio(), 0.0)
    assert sorted(e.t1_s for e in events if e.event == "back") == [12.0, 12.5, 13.0]


@given(st.integers(1, 6), st.floats(0.1, 5), st.floats(0.1, 5), st.floats(0.1, 5))
def test_a_pipeline_of_micro_batches_takes_its_stages_and_the_longest_again_for_each_other(
    m, front, up, serve
):
    """Forwards alone, which is where each has a stage of its own: the sum of the stages and (m - 1) times the
    longest."""
    seconds = work(smashed=0, front=front, server_forward_backward=serve, back=0.0)
    link = FixedLink(kind="fixed", rate_bps=8e6)
    schedule = splitfed(1, {0: [m]}, False, m)
    events = time_round(schedule, seconds, radio(), 0.0)
    assert max(e.t1_s for e in events if e.event == "server_forward_backward") == pytest.approx(
        front + serve + (m - 1) * max(front, serve)
    )
    assert link.rate_bps  # links take no time here


@given(st.integers(1, 100), st.integers(1, 8))
def test_micro_batches_are_the_batch_in_parts_that_differ_by_one_at_most(size, n):
    found = parts(size, n)
    assert sum(found) == size
    assert max(found) - min(found) <= 1
    assert len(found) == min(n, size)


@given(
    st.dictionaries(
        st.integers(0, 50), st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=4
    ),
    st.booleans(),
    st.integers(1, 3),
)
def test_every_sample_goes_up_once_and_its_gradient_comes_down_once(turns, u_shape, micro):
    schedule = splitfed(1, turns, u_shape, micro)
    samples = sum(map(sum, turns.values()))
    for crossing in ("smashed", "gradients", *(("features", "feature_gradients") if u_shape else ())):
        sends = [s for s in schedule if isinstance(s, Send) and s.crossing == crossing]
        assert sum(s.samples for s in sends) == samples
        assert {s.direction for s in sends} == {
            "uplink" if crossing in ("smashed", "feature_gradients") else "downlink"
        }
    assert schedule.clients == list(turns)
    served = {s.stage for s in schedule if isinstance(s, Pass) and s.node == SERVER_NODE}
    assert served == ({"server_forward", "server_backward"} if u_shape else {"server_forward_backward"})


def test_clients_in_turn_hand_their_part_on_and_the_last_gives_it_back():
    schedule = vanilla(1, {4: [2], 1: [2, 2], 7: [2]}, False)
    sent = [(s.id, s.direction) for s in schedule if isinstance(s, Send) and s.crossing is None]
    assert sent == [
        ("down-4", "downlink"),
        ("hop-4-1", "sidelink"),
        ("hop-1-7", "sidelink"),
        ("up-7", "uplink"),
    ]
    events = time_round(schedule, work(), radio(), 0.0)
    starts = {c: min(e.t0_s for e in events if e.node == f"client-{c}") for c in (4, 1, 7)}
    assert starts[4] < starts[1] < starts[7]
    assert next(s for s in schedule if isinstance(s, Aggregate)).after == ("up-7",)


def test_who_vanishes_within_its_turn_is_charged_for_what_it_did_and_asked_for_nothing():
    turns = {k: [1, 1] for k in range(8)}
    asked = splitfed(1, turns, False)
    events = time_round(asked, work(PART), radio(dropout=0.5, seed=3), 0.0)
    outcome = {e.id: e.outcome for e in events}
    gone = {e.node for e in events if e.outcome == "dropped"}
    assert 0 < len(gone) < 8
    kept = asked.prune(outcome)
    assert {f"client-{c}" for c in kept.clients} == {f"client-{c}" for c in range(8)} - gone
    assert not any(isinstance(s, Pass) and f"client-{s.client}" in gone for s in kept)
    for node in gone:
        its = [e for e in events if e.node == node and e.event in ("front", "back")]
        assert [e.outcome for e in its] == ["done"] * its.index(
            next(e for e in its if e.outcome == "dropped")
        ) + ["dropped"] + ["skipped"] * (3 - its.index(next(e for e in its if e.outcome == "dropped")))
    whole = Ledger().add(time_round(asked, work(PART), radio(), 0.0))
    assert Ledger().add(events).energy_j < whole.energy_j


def test_the_order_of_the_clock_is_one_in_which_everything_stands_behind_what_it_waits_for():
    schedule = splitfed(1, {k: [3, 3] for k in range(4)}, True, 2)
    events = time_round(schedule, work(), radio(), 5.0)
    starts = {e.id: e.t0_s for e in events}
    ordered = schedule.sorted(starts)
    served = [s.id for s in ordered if isinstance(s, Pass) and s.node == SERVER_NODE]
    assert served == sorted(served, key=lambda i: (starts[i], [s.id for s in schedule].index(i)))
    assert len({i.split("-")[1] for i in served[:4]}) > 1  # several clients are in flight


# --- what stays at home goes on with another client


def swaps(t, every=2, clients=(0, 3, 5, 8), seed=0):
    section = Split(kind="split", cut="z", tail="discriminator", swap_every=every)
    rng = partial(np.random.default_rng, seed)
    context = RoundContext(t, clients, rng=rng, batches=lambda client: [1])
    return [s for s in SplitTopology(section).schedule(context) if isinstance(s, Send) and s.state]


@given(st.integers(2, 9), st.integers(0, 100))
def test_a_swap_is_one_circle_over_all_clients_of_the_round(n, seed):
    sends = swaps(3, clients=range(n), seed=seed)
    next_ = {s.sender: s.receiver for s in sends}
    assert len(sends) == len(next_) == n
    way = [0]
    while (after := next_[way[-1]]) != 0:
        way.append(after)
    assert len(way) == n


def test_clients_swap_before_every_second_further_round_and_never_before_the_first():
    assert [bool(swaps(t)) for t in range(1, 8)] == [False, False, True, False, True, False, True]
    assert [bool(swaps(t, every=1)) for t in range(1, 4)] == [False, True, True]
    assert not swaps(3, clients=[4])


def test_a_client_begins_once_it_has_what_it_goes_on_with_at_the_cost_of_its_bytes():
    schedule = splitfed(3, {0: [1], 1: [1]}, True, swapped={0: 1, 1: 0})
    costs = dataclasses.replace(work(smashed=0), state_bytes=5_000_000)  # 5 s over a sidelink
    events = {e.id: e for e in time_round(schedule, costs, radio(), 0.0)}
    assert (events["swap-1-0"].bytes, events["swap-1-0"].t1_s) == (5_000_000, 5.0)
    assert events["front-0-0"].t0_s == 5.0
    alone = schedule.without(1)
    assert not [s for s in alone if isinstance(s, Send) and s.state]
    assert next(s for s in alone if s.id == "front-0-0").after == ("down-0",)
