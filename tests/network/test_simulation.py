"""The rules of a simulated round, one by one."""

import subprocess
import sys

import pytest

from fedray.network.simulation import Replay, Simulation
from fedray.randomness import SERVER_ID
from fedray.schedule import Schedule
from fedray.steps import Aggregate, Pass, Send, Train


def simulated(steps, seconds, unusable=()):
    """Each step's start and end by its id."""
    schedule = Schedule(1, tuple(steps))
    timing = Simulation(schedule, lambda i, now_s: seconds[schedule.steps[i].id], unusable).run()
    return {
        step.id: (start_s, end_s)
        for step, start_s, end_s in zip(schedule, timing.start_s, timing.end_s, strict=True)
    }, {schedule.steps[i].id for i in timing.late}


def served(client, batch):
    return Pass(
        f"server_forward_backward-{client}-{batch}",
        client,
        "server_forward_backward",
        batch,
        0,
        1,
        1,
        (f"up-{client}",),
    )


def test_a_step_starts_when_the_last_of_those_it_waits_for_ends():
    steps = [Train("train-0", 0, ()), Train("train-1", 1, ()), Aggregate("aggregate", ("train-0", "train-1"))]
    times, _ = simulated(steps, {"train-0": 2.0, "train-1": 5.0, "aggregate": 1.0})
    assert times["aggregate"] == (5.0, 6.0)


def test_the_server_serves_first_come_first_served_and_equals_in_the_order_in_which_they_came():
    ups = [Send(f"up-{k}", k, SERVER_ID, "uplink") for k in range(4)]
    serves = [served(k, 0) for k in range(4)]
    steps = [*ups, *serves, Aggregate("aggregate", tuple(s.id for s in serves))]
    seconds = dict(zip([f"up-{k}" for k in range(4)], [3.0, 1.0, 3.0, 2.0], strict=True))
    times, _ = simulated(
        steps, seconds | {f"server_forward_backward-{k}-0": 10.0 for k in range(4)} | {"aggregate": 0.0}
    )
    # 1 came at 1 s, 3 at 2 s, and 0 and 2 at 3 s
    assert [times[f"server_forward_backward-{k}-0"][0] for k in range(4)] == [21.0, 1.0, 31.0, 11.0]


@pytest.mark.parametrize(
    ("deadline_s", "min_updates", "begins_s", "late"),
    [
        (None, None, 3.0, set()),
        (2.5, None, 2.5, {"train-2"}),
        (None, 1, 1.0, {"train-1", "train-2"}),
        (9.0, 2, 2.0, {"train-2"}),
        (0.5, 2, 0.5, {"train-0", "train-1", "train-2"}),
    ],
)
def test_a_server_waits_for_all_until_its_deadline_or_for_enough_updates(
    deadline_s, min_updates, begins_s, late
):
    trains = [Train(f"train-{k}", k, ()) for k in range(3)]
    steps = [*trains, Aggregate("aggregate", tuple(t.id for t in trains), deadline_s, min_updates)]
    times, found = simulated(steps, {"train-0": 1.0, "train-1": 2.0, "train-2": 3.0, "aggregate": 0.0})
    assert times["aggregate"][0] == begins_s
    assert found == late


def test_what_needs_a_lost_transfer_is_skipped_at_once_however_many_steps_that_are():
    n = 5000
    steps = [Send("down-0", SERVER_ID, 0, "downlink")]
    for i in range(n):
        steps.append(Train(f"train-{i}", 0, (steps[-1].id,)))
    schedule = Schedule(1, (*steps, Aggregate("aggregate", (steps[-1].id,))))
    timing = Simulation(schedule, lambda i, now_s: 2.0, {0}).run()
    assert timing.skipped == set(range(1, n + 1))
    assert set(timing.end_s[1:-1]) == {2.0}
    assert timing.start_s[-1] == 2.0


def test_a_transfer_needs_what_it_carries_and_only_waits_for_the_others():
    steps = (
        Train("train-0", 0, ()),
        Send("hop-0-1", 0, 1, "sidelink", ("train-0",)),
        Send("hop-0-2", 0, 2, "sidelink", ("train-0", "hop-0-1")),
        Aggregate("aggregate", ("hop-0-2",)),
    )
    timing = Simulation(Schedule(1, steps), lambda i, now_s: 1.0, {1}).run()
    assert timing.skipped == set()
    assert timing.start_s == [0.0, 1.0, 2.0, 3.0]


def test_on_another_network_a_server_waits_for_those_that_came_in_time_where_it_was_decided():
    trains = [Train(f"train-{k}", k, ()) for k in range(3)]
    schedule = Schedule(1, (*trains, Aggregate("aggregate", tuple(t.id for t in trains), 4.0)))
    seconds = [9.0, 1.0, 20.0, 0.0]
    timing = Replay(schedule, lambda i, now_s: seconds[i], (), ["done", "done", "late", "done"]).run()
    assert timing.start_s[3] == 9.0
    assert timing.late == {2}


WAITS = """
from fedray.network.clock import time_round
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.scenario.network import Network
from fedray.topologies.parallel import parallel
link = {"kind": "fixed", "rate_bps": 8e6}
device = {"kind": "flops", "peak_flops": 1e9, "active_w": 1.0, "idle_w": 1.0}
links = {direction: link for direction in ("uplink", "downlink", "sidelink")}
radio = Radio(Network.model_validate(links | {"device": device, "server": device}), 4)
work = Work(lambda client, images: 1e9 * (client + 1), lambda direction, client: 10**6, lambda updates: 0.0)
events = time_round(parallel(1, range(4), False), work, radio, 0.0)
print([e.node for e in events if e.event == "wait"])
"""


def test_the_order_of_waits_in_a_timeline_does_not_depend_on_python_s_hash_seed():
    printed = {
        subprocess.run(
            [sys.executable, "-c", WAITS], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert printed == {"['server', 'client-0', 'client-1', 'client-2']\n"}
