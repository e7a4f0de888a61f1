"""Whole runs over radio: the network decides who takes part, the same on every executor, and can be changed
afterwards."""

import dataclasses
import json

import numpy as np
import pytest

from fedray.executors.serial import SerialExecutor
from fedray.network.clock import time_round
from fedray.network.ledger import Ledger
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.planning.round import schedule_round
from fedray.scenario.base import Refused
from fedray.steps import Send
from tests.helpers import begin, garments, job_of, rows, run, timeless

AIR = {"bandwidth_hz": 5e6, "frequency_hz": 2e9}
RADIO = {
    "cell": {"placement": {"kind": "disc", "radius_m": 250.0}, "mobility": {"kind": "random_waypoint"}},
    "uplink": {"kind": "log_distance", **AIR, "outage_db": -5.0, "attempts": 2},
    "downlink": {"kind": "log_distance", **AIR, "transmit_dbm": 40.0, "allocation": "broadcast"},
    "sidelink": {"kind": "sidelink", "model": "d2d", "frequency_hz": 3.5e9, "bandwidth_hz": 20e6},
    "device": {
        "kind": "mix",
        "of": [
            {
                "share": 1.0,
                "device": {
                    "kind": "flops",
                    "peak_flops": 1e9,
                    "active_w": 5.0,
                    "idle_w": 1.0,
                    "availability": 0.9,
                    "dropout": 0.1,
                },
            },
            {"share": 1.0, "device": {"kind": "profile", "name": "jetson_orin_nano"}},
        ],
    },
    "server": {"kind": "profile", "name": "rtx_4090"},
    "deadline_s": 10.0,
}
CELLULAR = {"network": RADIO, "population": {"clients": 12, "per_round": 6}, "training.rounds": 4}
PLATOON = {
    "topology": {"kind": "relay", "order": "best_sidelink"},
    "population": {"clients": 6},
    "network": (
        {k: v for k, v in RADIO.items() if k != "deadline_s"}
        | {
            "cell": {"placement": {"kind": "line", "spacing_m": 30.0}},
            "sidelink": (
                RADIO["sidelink"]
                | {
                    "model": "highway",
                    "frequency_hz": 5.9e9,
                    "outage_db": 27.0,
                    "fading": "rayleigh",
                }
            ),
            "uplink": {"kind": "fixed", "rate_bps": 1e6},
            "downlink": {"kind": "fixed", "rate_bps": 1e6},
            "device": {"kind": "flops", "peak_flops": 1e12, "active_w": 5.0},
        }
    ),
}


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cellular")
    return folder, run(garments(folder, CELLULAR), folder / "run")


def test_a_run_over_radio_trains_those_that_the_clock_lets_in(serial):
    folder, result = serial
    events, metrics = rows(folder / "run" / "timeline.jsonl"), rows(folder / "run" / "metrics.jsonl")
    assert result["rounds"] == 4
    for row in metrics:
        mine = [e for e in events if e["round"] == row["round"]]
        assert row["clients"] == sum(e["direction"] == "uplink" and e["outcome"] == "done" for e in mine)
        assert row["clients"] + row["missed"] == sum(e["event"] == "train" for e in mine)
    assert sum(row["missed"] for row in metrics) > 0
    assert metrics[-1]["energy_j"] == pytest.approx(sum(e["energy_j"] for e in events))
    assert metrics[-1]["sim_time_s"] == events[-1]["t1_s"] or events[-1]["event"] == "wait"


def test_a_broken_run_goes_on_where_its_devices_were(serial, tmp_path, monkeypatch):
    folder, result = serial
    run_round, done = SerialExecutor.run_round, []

    def breaks(self, schedule):
        if schedule.round == 3 and not done:
            done.append(True)
            raise RuntimeError("power")
        return run_round(self, schedule)

    monkeypatch.setattr(SerialExecutor, "run_round", breaks)
    with pytest.raises(RuntimeError, match="power"):
        run(garments(tmp_path, CELLULAR), tmp_path / "run")
    again = run(tmp_path / "garments.yaml", tmp_path / "run", resume=True)
    assert done
    assert again["weights_sha256"] == result["weights_sha256"]
    assert rows(tmp_path / "run" / "timeline.jsonl") == rows(folder / "run" / "timeline.jsonl")


def test_plan_says_what_the_run_took(serial, fedray):
    folder, _ = serial
    code, out, _ = fedray("plan", folder / "garments.yaml", "--json")
    last = rows(folder / "run" / "metrics.jsonl")[-1]
    total = json.loads(out)["total"]
    assert code == 0
    assert {k: total[k] for k in ("sim_time_s", "energy_j", "bytes_uplink")} == {
        k: last[k] for k in ("sim_time_s", "energy_j", "bytes_uplink")
    }


def test_sionna_leaves_the_training_alone(tmp_path):
    other = {
        k: {**v, "kind": "3gpp", "model": "umi", "outage_db": None, "attempts": 1}
        for k, v in RADIO.items()
        if k in ("uplink", "downlink")
    }
    plain = {**RADIO, "deadline_s": None, "device": RADIO["device"]["of"][1]["device"]}
    shas = []
    for name, network in (
        ("fixed", None),
        ("sionna", plain | {k: {**v, "transmit_dbm": 60.0} for k, v in other.items()}),
    ):
        changes = {"population": {"clients": 5}} | (
            {"network": {k: v for k, v in network.items() if v is not None}} if network else {}
        )
        shas.append(run(garments(tmp_path, changes, f"{name}.yaml"), tmp_path / name)["weights_sha256"])
    assert shas[0] == shas[1]


@pytest.mark.parametrize("selection", ["round_robin", "proportional_fair", "fedcs"])
def test_every_selection_asks_as_many_as_it_should(tmp_path, selection):
    loaded, job = job_of(garments(tmp_path, CELLULAR | {"population.selection": selection}))
    scenario = loaded.scenario
    executor = SerialExecutor(job)
    begin(executor)
    radio, work = (
        Radio(scenario.network, 12, 0, job.folder),
        executor.workload().of(scenario, executor.shared.samples),
    )
    asked = [
        schedule_round(scenario, radio, t, executor.shared, work, Ledger(sim_time_s=5.0 * t)).clients
        for t in range(1, 13)
    ]
    assert all(1 <= len(clients) <= 6 and len(set(clients)) == len(clients) for clients in asked)
    if selection == "round_robin":
        assert min(sum(k in clients for clients in asked) for k in range(12)) >= 4
    if selection == "fedcs":
        for t, clients in enumerate(asked, 1):
            takes = radio.finish_times_s(RoundStart(t, 5.0 * t), work, np.arange(12))(len(clients))
            assert all(takes[k] <= 10.0 for k in clients) or len(clients) == 1


@pytest.mark.parametrize(("speed_mps", "least", "most"), [(0.01, 1.2, 4.0), (100.0, 1.0, 1.0)])
def test_proportional_fairness_asks_those_whose_uplinks_are_good_when_they_are_sent(
    tmp_path, speed_mps, least, most
):
    """Short uplinks (a coherence time of seconds) are over 1.2 times as fast as in the mean; long ones have
    their mean rate."""
    uplink = {
        "kind": "log_distance",
        **AIR,
        "bandwidth_hz": 40e6,
        "transmit_dbm": 0.0,
        "fading": "rayleigh",
        "speed_mps": speed_mps,
    }
    changes = {
        "network.cell": {"placement": {"kind": "disc", "radius_m": 250.0}}, "network.uplink": uplink,
        "population": {"clients": 12, "per_round": 3, "selection": "proportional_fair"},
    }  # fmt: skip
    loaded, job = job_of(garments(tmp_path, changes))
    executor = SerialExecutor(job)
    begin(executor)
    scenario, radio = loaded.scenario, Radio(loaded.scenario.network, 12, 0)
    work, link, ratio, asked = (
        executor.workload().of(scenario, executor.shared.samples),
        radio.links["uplink"],
        [],
        set(),
    )
    for t in range(1, 41):
        schedule = schedule_round(scenario, radio, t, executor.shared, work)
        asked |= set(schedule.clients)
        for e in time_round(schedule, work, radio, 0.0):
            if e.direction == "uplink":
                who = np.array([int(e.node[7:])])
                mean = link.rate_bps(*link.mean_snr(RoundStart(t, 0.0), who, np.array([-1])), 1 / 3)[0]
                ratio.append(8 * e.bytes / (e.t1_s - e.t0_s) / mean)
    assert least - 1e-9 <= np.mean(ratio) <= most + 1e-9
    assert asked == set(range(12))  # each has its good rounds


def test_a_relay_over_radio_tries_the_next_neighbour_where_a_hop_fails(tmp_path):
    loaded, job = job_of(garments(tmp_path, PLATOON))
    scenario = loaded.scenario
    radio, executor = Radio(scenario.network, 6, 0), SerialExecutor(job)
    begin(executor)
    work, failed = executor.workload().of(scenario, executor.shared.samples), 0
    for t in range(1, 30):
        schedule = schedule_round(scenario, radio, t, executor.shared, work)
        outcome = {e.id: e.outcome for e in time_round(schedule, work, radio, 0.0)}
        lost = [s for s in schedule if isinstance(s, Send) and outcome[s.id] == "lost"]
        assert {s.direction for s in lost} <= {"sidelink"}
        failed += len(lost)
        assert outcome["aggregate"] == "done"
        assert schedule.prune(outcome).clients == schedule.clients
        for one in lost:
            assert not radio.hop_arrives(RoundStart(t, 0.0), int(one.node[7:]), int(one.peer[7:]))
    assert failed > 10
    assert result_of(tmp_path)["status"] == "done"


def result_of(folder):
    return run(folder / "garments.yaml", folder / "run")


def test_a_relay_with_nobody_in_range_says_who_and_how_far(tmp_path):
    far = PLATOON | {
        "network": PLATOON["network"] | {"cell": {"placement": {"kind": "line", "spacing_m": 90_000.0}}}
    }
    loaded, _ = job_of(garments(tmp_path, far))
    with pytest.raises(
        Refused, match=r"nobody in range of client \d in round 1: the nearest, client \d, is 90000 m away"
    ):
        schedule_round(loaded.scenario, Radio(loaded.scenario.network, 6, 0), 1)


def test_chains_of_neighbours_stay_in_their_part_of_the_cell(tmp_path):
    network = PLATOON["network"] | {
        "cell": {
            "placement": {"kind": "places", "at": [[10.0, 0], [900, 0], [20, 0], [910, 0], [15, 9], [905, 9]]}
        }
    }
    loaded, _ = job_of(
        garments(
            tmp_path,
            PLATOON | {"network": network, "topology": {"kind": "relay", "chains": 2, "groups": "nearest"}},
        )
    )
    schedule = schedule_round(loaded.scenario, Radio(loaded.scenario.network, 6, 0), 1)
    hops = [
        {int(s.node[7:]) % 2, int(s.peer[7:]) % 2}
        for s in schedule
        if isinstance(s, Send) and s.direction == "sidelink"
    ]
    assert len(hops) == 4
    assert all(len(parity) == 1 for parity in hops)


def test_a_deadline_that_nobody_can_meet_is_refused_with_the_fastest_finish(tmp_path, fedray):
    code, _, err = fedray("plan", garments(tmp_path, CELLULAR | {"network": RADIO | {"deadline_s": 1e-3}}))
    assert code == 2
    assert "network.deadline_s: got 0.001, expected at least 1.8" in err
    assert "when the fastest client finishes" in err


def test_a_model_that_does_not_fit_a_device_is_refused(tmp_path, fedray):
    device = {"kind": "flops", "peak_flops": 1e12, "active_w": 1.0, "memory_bytes": 1e6}
    code, _, err = fedray("plan", garments(tmp_path, {"network.device": device}))
    assert code == 2
    assert "network.device.memory_bytes: got 1e+06 for a larger model, expected at least 6.3" in err


def test_a_run_is_costed_again_on_another_network_and_keeps_its_decisions(serial, fedray, tmp_path):
    folder, _ = serial
    other = tmp_path / "fast.yaml"
    link = "{kind: fixed, rate_bps: 1.0e9, transmit_w: 1.0}"
    other.write_text(
        f"uplink: {link}\ndownlink: {link}\nsidelink: {link}\ndevice: {{kind: flops, peak_flops: 1.0e12,"
        " active_w: 10}\nserver: {kind: flops, peak_flops: 1.0e13, active_w: 10}\n"
    )
    code, out, err = fedray("report", folder / "run", "--network", other, "--out", tmp_path / "page.html")
    assert (code, err) == (0, "")
    page = (tmp_path / "page.html").read_text()
    assert "run on fast" in page
    assert "without training again" in page
    from fedray.report import recorded
    from fedray.report.recost import simulate_on_network

    (before,) = recorded.read([folder / "run"])
    after = simulate_on_network(before, other)
    assert timeless(after.rows)[-1]["bytes_uplink"] == before.rows[-1]["bytes_uplink"]
    assert after.rows[-1]["sim_time_s"] < before.rows[-1]["sim_time_s"]
    kept = {(e["round"], e["id"]): e["outcome"] for e in before.events if e["event"] != "wait"}
    assert {(e["round"], e["id"]): e["outcome"] for e in after.events} == kept
    assert out.strip().endswith("page.html")


def test_costed_again_on_its_own_network_a_run_takes_what_it_took(tmp_path):
    from fedray.report import recorded
    from fedray.report.recost import simulate_on_network

    changes = {"topology": {"kind": "parallel", "reduce": "allreduce"}, "population": {"clients": 5}}
    file = garments(tmp_path, changes)
    run(file, tmp_path / "run")
    (before,) = recorded.read([tmp_path / "run"])
    after = simulate_on_network(before, file)
    assert [dataclasses.asdict(before)["rows"][-1][k] for k in ("sim_time_s", "energy_j")] == pytest.approx(
        [after.rows[-1][k] for k in ("sim_time_s", "energy_j")]
    )
    assert [e["t1_s"] for e in after.events] == pytest.approx([e["t1_s"] for e in before.events])


def test_a_split_run_s_timeline_from_before_it_named_clients_and_batches_reads_the_same(tmp_path):
    from fedray.report import recorded
    from fedray.report.recost import simulate_on_network

    file = garments(tmp_path, {"topology": {"kind": "split", "cut": "conv1", "may_send": ["labels"]}})
    run(file, tmp_path / "run")
    (now,) = recorded.read([tmp_path / "run"])
    timeline = tmp_path / "run" / "timeline.jsonl"
    new_keys = ("client", "batch", "part")
    old = [{k: v for k, v in row.items() if k not in new_keys} for row in rows(timeline)]
    timeline.write_text("".join(json.dumps(row) + "\n" for row in old))
    (before,) = recorded.read([tmp_path / "run"])
    passes = [
        [e for e in one.events if e["event"] in ("front", "server_forward_backward", "back")]
        for one in (now, before)
    ]
    assert passes[0] == passes[1]
    assert recorded.by_node(before) == recorded.by_node(now)
    assert simulate_on_network(before, file).events == simulate_on_network(now, file).events
    assert recorded.by_node(now)[1]["turns"] == len(now.rows)  # each client takes part in every round


def test_a_split_run_over_a_fading_radio_takes_as_long_again_on_its_own_network(tmp_path):
    from fedray.report import recorded
    from fedray.report.recost import simulate_on_network

    uplink = {
        "kind": "log_distance",
        **AIR,
        "speed_mps": 0.01,
        "fading": "rayleigh",
        "outage_db": -5.0,
        "attempts": 3,
    }
    split = {"kind": "split", "cut": "conv1", "may_send": ["labels"]}
    changes = {
        "topology": split,
        "network.uplink": uplink,
        "network.cell": {"placement": {"kind": "disc", "radius_m": 100.0}},
    }
    file = garments(tmp_path, changes)
    run(file, tmp_path / "run")
    (before,) = recorded.read([tmp_path / "run"])
    after = simulate_on_network(before, file)
    assert [e["t1_s"] for e in after.events] == pytest.approx([e["t1_s"] for e in before.events])
    assert [e["outcome"] for e in after.events] == [e["outcome"] for e in before.events]


def test_a_bad_network_file_is_refused_with_its_line(serial, fedray, tmp_path):
    folder, _ = serial
    (tmp_path / "bad.yaml").write_text("network:\n  uplink: {kind: fixed, rate_bps: 0}\n")
    code, _, err = fedray("report", folder / "run", "--network", tmp_path / "bad.yaml")
    assert code == 2
    assert "bad.yaml:2: network.uplink.rate_bps: got 0, expected a number above 0" in err


def test_a_network_that_does_not_carry_what_the_run_sent_is_refused(serial, fedray, tmp_path):
    folder, _ = serial
    far = "kind: log_distance, bandwidth_hz: 1.0e6, loss_db: 400.0"
    (tmp_path / "far.yaml").write_text(
        f"cell: {{placement: {{kind: disc, radius_m: 100.0}}}}\nuplink: {{{far}}}\ndownlink:"
        f" {{{far}}}\nsidelink: {{{far}}}\ndevice: {{kind: flops, peak_flops: 1.0e12, active_w: 10}}\nserver:"
        " {kind: flops, peak_flops: 1.0e13, active_w: 10}\n"
    )
    code, _, err = fedray("report", folder / "run", "--network", tmp_path / "far.yaml")
    assert code == 2
    assert "far.yaml:3: network.downlink: got a network in which server does not reach client-" in err


@pytest.mark.parametrize(
    ("deadline", "told"),
    [
        (
            {
                "network.uplink": {
                    **AIR,
                    "kind": "log_distance",
                    "shadowing_db": 0.0,
                    "fading": "none",
                    "allocation": "min_max",
                }
            },
            "1.",
        ),
        ({"topology": {"kind": "split", "cut": "conv1", "may_send": ["labels"]}}, "0."),
    ],
    ids=["min_max", "split"],
)
def test_a_deadline_is_held_against_the_round_as_it_would_be(tmp_path, fedray, deadline, told):
    changes = {"network.cell": {"placement": {"kind": "disc", "radius_m": 100.0}}} | deadline
    code, _, err = fedray("plan", garments(tmp_path, changes | {"network.deadline_s": 1e-3}))
    assert code == 2
    least = float(err.split("at least ")[1].split(",")[0])
    assert fedray("plan", garments(tmp_path, changes | {"network.deadline_s": 1.01 * least}))[0] == 0
    assert fedray("plan", garments(tmp_path, changes | {"network.deadline_s": 0.99 * least}))[0] == 2


def test_a_round_without_anybody_is_no_failure(tmp_path):
    for name, topology in (
        ("server", {"kind": "parallel"}),
        ("ring", {"kind": "parallel", "reduce": "allreduce"}),
    ):
        device = {"kind": "flops", "peak_flops": 1e12, "active_w": 1.0, "availability": 0.2}
        changes = {
            "topology": topology,
            "population": {"clients": 2},
            "network.device": device,
            "training.rounds": 6,
        }
        assert run(garments(tmp_path, changes, f"{name}.yaml"), tmp_path / name)["status"] == "done"


def test_those_a_relay_does_not_reach_have_missed_the_round(tmp_path):
    places = [[0.0, 10.0], [0.0, 20.0], [9000.0, 10.0], [9000.0, 20.0]]
    network = PLATOON["network"] | {"cell": {"placement": {"kind": "places", "at": places}}}
    run(garments(tmp_path, PLATOON | {"network": network, "population": {"clients": 4}}), tmp_path / "run")
    assert [(row["clients"], row["missed"]) for row in rows(tmp_path / "run" / "metrics.jsonl")] == [
        (2, 2)
    ] * 2


def test_a_relay_that_would_break_in_a_later_round_is_refused_before_the_first(tmp_path, fedray):
    places = [[20.0, 0.0], [40.0, 0.0], [60.0, 0.0], [80.0, 0.0], [9000.0, 0.0]]
    network = PLATOON["network"] | {"cell": {"placement": {"kind": "places", "at": places}}}
    changes = PLATOON | {
        "network": network,
        "population": {"clients": 5, "per_round": 2},
        "training.rounds": 8,
    }
    code, _, err = fedray("run", garments(tmp_path, changes), "--out", tmp_path / "run")
    assert code == 2
    assert "nobody in range of client 4 in round" in err
    assert not (tmp_path / "run").exists()


def test_a_ring_trains_all_its_clients_to_the_weights_that_a_server_s_sum_has(tmp_path):
    found = {}
    for reduce in ("server", "allreduce"):
        changes = {"topology": {"kind": "parallel", "reduce": reduce}}
        found[reduce] = run(garments(tmp_path, changes, f"{reduce}.yaml"), tmp_path / reduce)
        assert {row["clients"] for row in rows(tmp_path / reduce / "metrics.jsonl")} == {5}
    assert found["server"]["weights_sha256"] == found["allreduce"]["weights_sha256"]


def test_a_run_with_a_deadline_takes_as_long_again_on_its_own_network(tmp_path):
    from fedray.report import recorded
    from fedray.report.recost import simulate_on_network

    slow = {
        "kind": "flops",
        "peak_flops": 3e7,
        "active_w": 5.0,
        "idle_w": 1.0,
        "availability": 0.6,
        "dropout": 0.2,
    }
    fast = slow | {"peak_flops": 1e12}
    mix = {"kind": "mix", "of": [{"share": 1.0, "device": slow}, {"share": 1.0, "device": fast}]}
    file = garments(tmp_path, {"network.device": mix, "network.deadline_s": 3.0, "training.rounds": 6})
    run(file, tmp_path / "run")
    (before,) = recorded.read([tmp_path / "run"])
    assert any(e["outcome"] == "late" for e in before.events)
    after = simulate_on_network(before, file)
    for key in ("sim_time_s", "energy_j"):
        assert [row[key] for row in after.rows] == pytest.approx([row[key] for row in before.rows])


def test_a_deadline_that_fedcs_meets_with_a_few_is_not_refused(tmp_path, fedray):
    uplink = {**AIR, "kind": "log_distance", "shadowing_db": 0.0, "fading": "none"}
    network = {"network.cell": {"placement": {"kind": "disc", "radius_m": 300.0}}, "network.uplink": uplink}
    changes = network | {"population": {"clients": 12, "selection": "fedcs"}, "network.deadline_s": 1.5}
    assert fedray("plan", garments(tmp_path, changes))[0] == 0
    code, _, err = fedray(
        "plan",
        garments(tmp_path, changes | {"population": {"clients": 12}, "network.uplink.bandwidth_hz": 1e6}),
    )
    assert code == 2, err
