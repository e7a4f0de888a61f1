"""Devices as they were recorded: how fast they are, and when they come and go."""

import json
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.checks import check
from fedray.network.asynchronous import Timeline
from fedray.network.clock import time_round
from fedray.network.ledger import Ledger
from fedray.network.presence import Presence
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.round import schedule_round
from fedray.planning.rounds import random_client
from fedray.scenario import ScenarioError
from fedray.scenario.cell import Cell, Places
from fedray.scenario.device import FlopsDevice
from fedray.scenario.links import FixedLink
from fedray.scenario.mode import FedBuff
from fedray.scenario.network import Network
from fedray.scenario.radio import LogDistance
from fedray.scenario.recorded import AvailabilityTrace, RecordedDevice, RecordedLink
from fedray.topologies.parallel import parallel
from tests.helpers import broken_off, garments, rows, run, timeless

# one second each way, and as many seconds of training as a client's number and one
WORK = Work(lambda client, pictures: 1e9 * (client + 1), lambda *_: 1_000_000, lambda updates: 0.0)
LINK = FixedLink(kind="fixed", rate_bps=8e6, transmit_w=2.0)
PHONES = {
    "1": {"computation": 162.0, "communication": 5648.109619499134},
    "2": {"computation": 43.0, "communication": 7064.78, "model": "ignored"},
}


def radio(folder, clients, sessions=None, **changes):
    """A network whose clients are there in these sessions, each [[comes, leaves], ...] of 1,000 seconds."""
    sections = {
        "uplink": LINK, "downlink": LINK, "sidelink": LINK,
        "device": FlopsDevice(kind="flops", peak_flops=1e9, active_w=10.0),
        "server": FlopsDevice(kind="flops", peak_flops=1e9, active_w=1.0, idle_w=5.0),
    }  # fmt: skip
    if sessions is not None:
        written(folder, [trace(*one) for one in sessions])
        sections["availability"] = AvailabilityTrace(path="sessions.json")
    return Radio(Network(**(sections | changes)), clients, 0, folder)


def trace(*sessions, finish_time=1000):
    come, leave = zip(*sessions, strict=True)
    return {"active": list(come), "inactive": list(leave), "finish_time": finish_time, "duration": 7}


def written(folder, value, name="sessions.json"):
    file = folder / name
    file.write_text(json.dumps(value))
    return file


def is_active(entry, time_s):
    """FedScale's own rule (fedscale/cloud/internal/client_metadata.py), asked at one second alone."""
    phase_s = time_s % entry["finish_time"]
    return any(a <= phase_s <= b for a, b in zip(entry["active"], entry["inactive"], strict=True))


def test_a_phone_takes_as_long_as_fedscale_says(tmp_path):
    written(tmp_path, PHONES, "phones.json")
    device = RecordedDevice(kind="recorded", path="phones.json", flops_per_sample=3e8, active_w=4.0)
    link = RecordedLink(kind="recorded", path="phones.json", transmit_w=0.5)
    phones = radio(tmp_path, 3, device=device, uplink=link, downlink=link)
    # get_completion_time there: three forward passes a sample, and kilobits over kilobits a second
    work = Work(lambda *_: 3 * 3e8 * 32 * 10, lambda *_: 1_000_000, lambda updates: 0.0)
    events = {e.id: e for e in time_round(parallel(1, range(3), False), work, phones, 0.0)}
    for client, phone in enumerate((PHONES["1"], PHONES["2"], PHONES["1"])):
        steps = [events[f"{step}-{client}"] for step in ("down", "train", "up")]
        took_s = [step.t1_s - step.t0_s for step in steps]
        train_s = 3.0 * 32 * 10 * phone["computation"] / 1000
        assert took_s == pytest.approx(
            [8000 / phone["communication"], train_s, 8000 / phone["communication"]]
        )
        joules = [step.energy_j for step in steps]
        assert joules == pytest.approx([0.5 * took_s[0], 4.0 * train_s, 0.5 * took_s[2]])


@given(
    st.lists(st.lists(st.integers(0, 60), min_size=2, max_size=8, unique=True), min_size=1, max_size=4),
    st.integers(0, 200),
)
def test_a_client_is_there_when_fedscale_says_and_until_it_leaves(tmp_path_factory, edges, second):
    folder = tmp_path_factory.mktemp("sessions")
    sessions = [[*pairwise(sorted(one))][::2] for one in edges]
    entries = [trace(*one, finish_time=61) for one in sessions]
    written(folder, entries)
    presence = Presence(AvailabilityTrace(path="sessions.json"), folder, "network.availability")
    clients = np.arange(2 * len(entries))
    now_s = second + 0.5  # between the seconds at which anybody comes or leaves
    there = presence.there(now_s, clients)
    assert there.tolist() == [is_active(entry, now_s) for entry in entries] * 2
    for client, is_there in zip(clients.tolist(), there.tolist(), strict=True):
        entry = entries[client % len(entries)]
        leaves_s = presence.leaves_s(now_s, client)
        seconds = range(second, second + 200)
        gone = next((s for s in seconds if not is_active(entry, s + 0.5)), None)
        assert leaves_s == (now_s if not is_there else gone)
        comes = next(s for s in seconds if is_active(entry, s + 0.5))
        first_s = presence.next_s(now_s, np.array([client]))
        assert first_s == (now_s if is_there else comes)
        assert presence.there(first_s, np.array([client])).all()


@pytest.mark.parametrize("start_s", [0.0, 0.1, 1e6 + 1 / 3])
def test_whom_the_server_waits_for_is_there_at_that_very_moment(tmp_path, start_s):
    written(tmp_path, [trace((7.7, 9.1), finish_time=24.3)])
    section = AvailabilityTrace(path="sessions.json", start_s=start_s)
    presence = Presence(section, tmp_path, "network.availability")
    now_s = 0.0
    for _ in range(1000):
        now_s = presence.next_s(now_s, np.arange(1))
        assert presence.there(now_s, np.arange(1)).all()
        now_s = presence.leaves_s(now_s, 0)
        assert not presence.there(now_s, np.arange(1)).any()


def test_one_who_is_always_there_never_leaves_and_one_who_comes_as_it_leaves_has_stayed(tmp_path):
    written(tmp_path, [trace((0, 400), (400, 1000)), trace((0, 100), (300, 300), (900, 1000))])
    presence = Presence(AvailabilityTrace(path="sessions.json"), tmp_path, "network.availability")
    assert presence.leaves_s(5000.0, 0) == np.inf
    assert presence.leaves_s(950.0, 1) == 1100.0


def test_what_a_client_does_when_it_leaves_comes_to_nothing(tmp_path):
    # client 0 leaves after half of its training, client 1 after a quarter of its uplink, client 2 at once
    sessions = [[(0, 1.5)], [(0, 3.25)], [(0, 0.5)], [(0, 1000)]]
    events = {
        e.id: e for e in time_round(parallel(1, range(4), False), WORK, radio(tmp_path, 4, sessions), 0.0)
    }
    assert [events[f"train-{k}"].outcome for k in range(4)] == ["dropped", "done", "skipped", "done"]
    assert [events[f"up-{k}"].outcome for k in range(4)] == ["skipped", "lost", "skipped", "done"]
    half, sent, begun = events["train-0"], events["up-1"], events["down-2"]
    assert (half.flops, half.t1_s, half.energy_j) == (0.5e9, 1.5, 5.0)
    assert (sent.bytes, sent.t1_s, sent.energy_j) == (250_000, 3.25, 0.5)
    assert (begun.outcome, begun.bytes, begun.t1_s) == ("lost", 500_000, 0.5)
    assert events["aggregate"].t0_s == 6.0


def test_only_who_is_there_is_selected_and_the_server_waits_where_nobody_is(tmp_path):
    scenario = check(garments(tmp_path, {"population": {"clients": 3}})).scenario
    net = radio(tmp_path, 3, [[(10, 20)], [(400, 900)], [(500, 600)]])
    total = Ledger()
    for t, (clients, waited_s, end_s) in enumerate(
        [([0], 10.0, 13.0), ([0], 0.0, 16.0), ([0], 0.0, 19.0), ([0], 0.0, 20.0), ([1], 380.0, 404.0)], 1
    ):
        schedule = schedule_round(scenario, net, t, None, WORK, total)
        assert (schedule.clients, schedule.waited_s) == (clients, waited_s)
        events = time_round(schedule, WORK, net, total.sim_time_s)
        waits = [e for e in events if e.event == "wait"]
        total = total.add(events)
        assert total.sim_time_s == pytest.approx(end_s)
        idle_s = end_s - min(e.t0_s for e in events if e.event != "wait") + waited_s
        sends_s = sum(e.t1_s - e.t0_s for e in events if e.event == "send")  # the server at one end
        assert sum(e.energy_j for e in waits) == pytest.approx(5.0 * (idle_s - sends_s))


def test_beside_a_mode_who_leaves_frees_its_place_and_its_share_of_the_band(tmp_path):
    # both train for no time and share the uplink; client 1 leaves half a second after both began to send
    mode = FedBuff(kind="fedbuff", concurrency=2, buffer=1)
    nothing = FixedLink(kind="fixed", rate_bps=1e30, transmit_w=0)
    air = {"kind": "log_distance", "bandwidth_hz": 1e6, "frequency_hz": 2e9, "fading": "none"}
    places = Cell(placement=Places(kind="places", at=[[100.0, 0.0], [100.0, 0.0]]))
    work = Work(lambda *_: 0.0, lambda direction, _: 1_000_000 * (direction == "uplink"), lambda _: 0.0)
    shared = {"cell": places, "uplink": LogDistance(**air), "downlink": nothing}

    def line(net):
        return Timeline(mode, work, net, random_client(0, net, np.arange(2)), 0.0, False)

    first = line(radio(tmp_path, 2, **shared)).next_step().flights[0]
    both = line(radio(tmp_path, 2, [[(0, 1000)], [(0, 0.5)]], **shared)).next_step().flights
    assert [flight.outcome for flight in both] == ["lost", "done"]
    left, done = both[0].stages[2], both[1].stages[2]
    assert left.end_s == 0.5
    # as processor sharing has it: T alone, 2 T with two; half a second of it at half the rate
    whole_s = first.end_s / 2
    assert done.end_s == pytest.approx(whole_s + 0.25, rel=1e-6)
    assert left.load == pytest.approx(1_000_000 * 0.25 / whole_s, rel=1e-6)


def test_beside_a_mode_the_server_waits_for_somebody_to_come(tmp_path):
    mode = FedBuff(kind="fedbuff", concurrency=1, buffer=1)
    net = radio(tmp_path, 1, [[(50, 60), (70, 71)]])
    eligible = np.arange(1)
    next_s = partial(net.devices.next_s, clients=eligible)
    line = Timeline(mode, WORK, net, random_client(0, net, eligible), 0.0, False, next_s)
    flights = [flight for _ in range(6) for flight in line.next_step().flights]
    assert [(flight.outcome, flight.end_s) for flight in flights] == [
        ("done", 53.0), ("done", 56.0), ("done", 59.0),
        ("dropped", 60.0), ("dropped", 71.0),  # as it has got the model
        ("done", 1053.0),
    ]  # fmt: skip


def scenario(folder, **changes):
    phones = str(written(folder, PHONES, "phones.json"))
    # 4 phones: always there, one round of ten, never twice, for the first seconds
    entries = [trace((0, 1000)), trace((0, 3), (500, 503)), trace((1, 1000)), trace((0, 0.001))]
    sessions = str(written(folder, entries))
    return garments(
        folder,
        {
            "population": {"clients": 4},
            "network.device": {"kind": "recorded", "path": phones, "flops_per_sample": 1e6},
            "network.uplink": {"kind": "recorded", "path": phones},
            "network.availability": {"path": sessions},
            "training.rounds": 3,
            **changes,
        },
    )


def test_a_run_of_recorded_phones_trains_those_that_are_there_and_goes_on_to_the_same_bits(tmp_path):
    whole = run(scenario(tmp_path), tmp_path / "whole")
    metrics = rows(tmp_path / "whole" / "metrics.jsonl")
    events = rows(tmp_path / "whole" / "timeline.jsonl")
    asked = {e["client"] for e in events if e["event"] == "train" and e["round"] == 1}
    assert asked == {0, 1, 3}  # client 2 comes a second later
    assert {e["outcome"] for e in events if e.get("node") == "client-3" and e["round"] == 1} == {"skipped"}
    assert metrics[0]["clients"] < 3
    again = broken_off(tmp_path / "whole", tmp_path / "again", 3)
    assert run(tmp_path / "garments.yaml", again, resume=True)["weights_sha256"] == whole["weights_sha256"]
    assert timeless(rows(again / "metrics.jsonl")) == timeless(metrics)


@pytest.mark.parametrize(
    ("file", "value", "line"),
    [
        ("phones.json", [], r"network\.device\.path: got '.*phones\.json': '\[\]', expected an object of"),
        ("phones.json", {"7": 3}, r"got '3' of device '7' in '.*phones\.json', expected an object"),
        ("phones.json", [{"computation": 0}], r"got computation 0 of device '0'.*a number above 0"),
        ("phones.json", [{"computation": 1}], r"got communication None of device '0'.*a number above 0"),
        ("sessions.json", [trace((5, 3))], r"network\.availability\.path: got 3 of device '0'.*that rise"),
        ("sessions.json", [trace((5, 30), (20, 40))], r"got 20 of device '0'.*that rise"),
        ("sessions.json", [trace((5, 3000))], r"got 3000 of device '0'.*from 0 to finish_time, 1000"),
        ("sessions.json", [trace((5, 5))], r"no session longer than 0 s.*one at least"),
        ("sessions.json", [trace((1, 2)) | {"inactive": []}], r"inactive \[\].*a list of seconds"),
        ("sessions.json", [trace((1, 2)) | {"inactive": [2, 3]}], r"1 active and 2 inactive"),
        ("sessions.json", [trace((1, 2)) | {"finish_time": None}], r"finish_time None.*of seconds above 0"),
    ],
)
def test_a_file_that_says_something_else_is_refused_with_its_device(tmp_path, file, value, line):
    yaml = scenario(tmp_path)
    written(tmp_path, value, file)
    with pytest.raises(ScenarioError, match=line):
        check(yaml)


def test_a_file_that_is_no_json_or_not_there_is_refused(tmp_path):
    yaml = scenario(tmp_path)
    (tmp_path / "phones.json").write_text("{")
    with pytest.raises(ScenarioError, match=r"device\.path: got '.*phones\.json': Expecting property"):
        check(yaml)
    (tmp_path / "phones.json").unlink()
    with pytest.raises(ScenarioError, match=r"network\.uplink\.path: got '.*phones\.json', which"):
        check(yaml)


def test_asynchronous_rounds_go_on_without_who_has_left_and_to_the_same_bits_after_a_resume(tmp_path):
    mode = {"kind": "parallel", "mode": {"kind": "fedbuff", "concurrency": 2, "buffer": 2}}
    sessions = [
        trace((0, 1000)),
        trace((0, 0.9), finish_time=2),
        trace((0, 1000)),
        trace((0.5, 1), finish_time=3),
    ]
    file = scenario(tmp_path, topology=mode, **{"training.rounds": 6})
    written(tmp_path, sessions)
    whole = run(file, tmp_path / "whole")
    events = rows(tmp_path / "whole" / "timeline.jsonl")
    gone = {e["client"] for e in events if e["outcome"] in ("lost", "dropped")}
    assert gone <= {1, 3}
    assert gone
    took = {
        e["client"] for e in events if e["event"] == "send" and e["outcome"] == "done" and e["id"][:2] == "up"
    }
    assert {0, 2} <= took
    again = broken_off(tmp_path / "whole", tmp_path / "again", 6)
    assert run(file, again, resume=True)["weights_sha256"] == whole["weights_sha256"]
    assert rows(again / "timeline.jsonl") == events


def test_a_deadline_is_judged_by_who_comes_where_nobody_is_there_at_first(tmp_path):
    file = scenario(tmp_path, **{"network.deadline_s": 60.0})
    written(tmp_path, [trace((400, 1000))])
    assert run(file, tmp_path / "run")["rounds"] == 3
    assert rows(tmp_path / "run" / "timeline.jsonl")[0]["t0_s"] == 400.0
