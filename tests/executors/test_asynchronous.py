"""Runs in which clients do not wait for each other: what the server makes of their updates, and the same bits
wherever they run."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedray import checks
from fedray.executors.serial import SerialExecutor
from fedray.executors.versions import Start, Versions
from fedray.network.ledger import Ledger
from fedray.network.radio import Radio
from fedray.planning.plan import plan
from fedray.planning.rounds import rounds_of
from fedray.planning.workload import measure
from fedray.report import page, recorded, staleness
from fedray.scenario import ScenarioError
from tests.helpers import ONE_ACTOR, begin, garments, job_of, rows, run, timeless, unevaluated

SLOW = {
    "kind": "mix",
    "of": [
        {"share": 1, "device": {"kind": "flops", "peak_flops": 1.0e8, "active_w": 5}},
        {"share": 1, "device": {"kind": "flops", "peak_flops": 4.0e7, "active_w": 5}},
        {"share": 1, "device": {"kind": "flops", "peak_flops": 9.0e6, "active_w": 5}},
    ],
}
BUFFERED = {"kind": "fedbuff", "concurrency": 4, "buffer": 2}
MIXED = {"kind": "fedasync", "concurrency": 3, "staleness": {"kind": "hinge", "a": 1.0, "b": 0.0}}
BASE = {"population": {"clients": 6}, "network.device": SLOW, "training.rounds": 6}


def scenario(folder, mode, changes=None):
    return garments(folder, BASE | {"topology": {"kind": "parallel", "mode": mode}} | (changes or {}))


@pytest.fixture(scope="module")
def buffered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("buffered")
    with unevaluated():
        return folder, run(scenario(folder, BUFFERED), folder / "run")


def test_a_run_says_how_stale_its_updates_are_and_costs_what_was_planned(buffered):
    folder, _ = buffered
    metrics = rows(folder / "run" / "metrics.jsonl")
    clients = rows(folder / "run" / "clients.jsonl")
    for row in metrics:
        ages = [c["staleness"] for c in clients if c["round"] == row["round"]]
        assert len(ages) == row["clients"] == 2
        assert row["staleness"] == np.mean(ages)
        assert row["staleness_max"] == max(ages)
    assert max(row["staleness_max"] for row in metrics) > 1
    total = plan(checks.check(folder / "garments.yaml"))["total"]
    for name in ("sim_time_s", "energy_j", "bytes_uplink"):
        assert total[name] == metrics[-1][name]
    assert total["transfers"] == 6 * 4
    times = [row["sim_time_s"] for row in metrics]
    assert times == sorted(times)


def test_the_report_shows_the_staleness_that_the_clock_had(buffered):
    folder, _ = buffered
    (recorded_run,) = recorded.read([folder / "run"])
    arrived = staleness.updates(recorded_run.events)
    clients = rows(folder / "run" / "clients.jsonl")
    assert sorted(update.staleness for update in arrived) == sorted(c["staleness"] for c in clients)
    shown = dict(staleness.table([recorded_run]))
    assert shown["updates taken"] == ["12"]
    assert shown["mean staleness"] == [f"{np.mean([c['staleness'] for c in clients]):.2f}"]
    relay = replace(recorded_run, scenario=recorded_run.scenario | {"topology": {"kind": "relay"}})
    assert dict(staleness.table([recorded_run, relay]))["updates taken"] == ["12", ""]
    page.write([folder / "run"], folder / "report.html")
    assert "Who waits for whom" in (folder / "report.html").read_text()


def test_the_slowest_quarter_is_of_clients_by_the_seconds_of_their_rounds():
    arrived = [staleness.Update(client, 1.0 + client, 0, True) for client in (0, 1, 2, 3, 0, 1, 3, 3)]
    assert staleness.slowest_quarter(arrived) == 3 / 8


def test_actors_give_the_bits_of_one_process(buffered, tmp_path, cluster):
    with unevaluated():
        result = run(scenario(tmp_path, BUFFERED, {"runtime": ONE_ACTOR}), tmp_path / "run")
    assert result["weights_sha256"] == buffered[1]["weights_sha256"]


def test_a_run_goes_on_with_the_clients_that_were_under_way(buffered, tmp_path):
    folder, result = buffered
    shutil.copytree(folder / "run", tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "round-0005"
    versions = json.loads((last / "state.json").read_text())["saved"]["files"]
    assert any(name.startswith("version-") for name in versions)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "round-0006")
    (tmp_path / "run" / "result.json").unlink()
    with unevaluated():
        again = run(folder / "garments.yaml", tmp_path / "run", resume=True)
    assert again["weights_sha256"] == result["weights_sha256"]
    assert timeless(rows(tmp_path / "run" / "metrics.jsonl")) == timeless(
        rows(folder / "run" / "metrics.jsonl")
    )


def stepped(file, rounds):
    """Each server step's schedule, the global numbers before and after it, and the executor."""
    loaded, job = job_of(file)
    executor = SerialExecutor(job)
    begin(executor)
    known = executor.shared
    work = measure(loaded.scenario, job.folder).of(loaded.scenario, known.samples)
    radio = Radio(loaded.scenario.network, 6, loaded.scenario.seed)
    planned = rounds_of(loaded.scenario, radio, work, known)
    versions = [numbers(executor)]
    schedules = []
    ledger = Ledger()
    for t in range(1, rounds + 1):
        schedule = planned.schedule(t, ledger)
        events = planned.events(schedule, ledger)
        ledger = ledger.add(events, schedule)
        schedule = schedule.prune({e.id: e.outcome for e in events})
        list(executor.run_round(schedule))
        schedules.append(schedule)
        versions.append(numbers(executor))
    return schedules, versions, executor


def numbers(executor):
    return executor.layout.view(executor.buffer).double().clone()


def local_end(executor, schedule, client, base):
    """Where a client's local update from a model ends."""
    end, _ = executor.clients.train_apart(schedule.round, client, base.float().numpy())
    return torch.from_numpy(end).double()


def test_fedasync_mixes_each_clients_model_into_the_newest(tmp_path):
    schedules, versions, executor = stepped(scenario(tmp_path, MIXED), 6)
    ages = []
    for t, schedule in enumerate(schedules, 1):
        (client,) = schedule.clients
        age = schedule.staleness[client]
        end = local_end(executor, schedule, client, versions[t - 1 - age])
        part = 0.6 / (age + 1)
        expected = (1 - part) * versions[t - 1] + part * end
        assert torch.allclose(versions[t], expected, atol=1e-6, rtol=0)
        ages.append(age)
    assert max(ages) > 1


def test_fedbuff_adds_the_mean_of_what_clients_changed_in_their_own_models(tmp_path):
    changes = {"aggregation": {"kind": "fedavg", "weighting": "uniform"}}
    schedules, versions, executor = stepped(scenario(tmp_path, BUFFERED, changes), 6)
    for t, schedule in enumerate(schedules, 1):
        expected = versions[t - 1].clone()
        for client in schedule.clients:
            age = schedule.staleness[client]
            base = versions[t - 1 - age]
            expected += (local_end(executor, schedule, client, base) - base) * (1 + age) ** -0.5 / 2
        assert torch.allclose(versions[t], expected, atol=1e-6, rtol=0)


TIERS = {"kind": "tiers", "tiers": 3, "per_tier": 1}


def test_fedat_averages_models_of_tiers_by_the_steps_of_the_tiers_at_the_other_end(tmp_path):
    changes = {"aggregation": {"kind": "fedavg", "weighting": "uniform"}}
    schedules, versions, executor = stepped(scenario(tmp_path, TIERS, changes), 8)
    models = [versions[0]] * 3
    steps = [0, 0, 0]
    for t, schedule in enumerate(schedules, 1):
        number = schedule.tier.number
        ends = []
        for client in schedule.clients:
            base = versions[t - 1 - schedule.staleness[client]]
            ends.append(local_end(executor, schedule, client, base))
        models[number] = torch.stack(ends).mean(0)
        steps[number] += 1
        assert schedule.tier.steps == tuple(steps)
        expected = sum(steps[2 - m] / t * models[m] for m in range(3))
        assert torch.allclose(versions[t], expected, atol=1e-6, rtol=0)
    assert steps[0] > steps[2] > 0


def test_tifl_asks_one_tier_at_a_time_and_averages_its_clients_alone(tmp_path):
    changes = {"aggregation": {"kind": "fedavg", "weighting": "uniform"}}
    file = scenario(tmp_path, TIERS | {"rule": "tifl", "per_tier": 2}, changes)
    schedules, versions, executor = stepped(file, 8)
    for t, schedule in enumerate(schedules, 1):
        assert set(schedule.staleness.values()) == {0}
        ends = [local_end(executor, schedule, client, versions[t - 1]) for client in schedule.clients]
        assert torch.allclose(versions[t], torch.stack(ends).mean(0), atol=1e-6, rtol=0)
    assert len({schedule.tier.number for schedule in schedules}) == 3
    devices = Radio(executor.job.scenario.network, 6, 0).devices
    speeds = {s.tier.number: [devices[c].flops_per_s for c in s.clients] for s in schedules}
    assert min(speeds[0]) >= max(speeds[1])
    assert min(speeds[1]) >= max(speeds[2])


def test_only_versions_that_somebody_uses_are_kept(tmp_path):
    schedules, _, executor = stepped(scenario(tmp_path, BUFFERED), 6)
    assert executor.versions.buffers.keys() == schedules[-1].versions_in_use
    assert len(executor.versions.buffers) <= BUFFERED["concurrency"]


def test_as_many_updates_as_there_are_clients_give_the_bits_of_synchronous_rounds(tmp_path):
    everybody = {"kind": "fedbuff", "concurrency": 6, "buffer": 6, "staleness": {"kind": "constant"}}
    with unevaluated():
        apart = run(scenario(tmp_path, everybody, {"training.rounds": 2}), tmp_path / "apart")
        together = garments(tmp_path, BASE | {"training.rounds": 2}, "together.yaml")
        assert run(together, tmp_path / "together")["weights_sha256"] == apart["weights_sha256"]


def test_a_version_is_found_by_its_age():
    versions = Versions()

    class Round:
        round = 3
        versions_in_use = frozenset({1, 2})

    versions.buffers = {0: "a", 1: "b"}
    versions.keep(Round, "c")
    assert versions.buffers == {1: "b", 2: "c"}
    Round.round = 4
    assert versions.base(Round, Start(2), "newest") == "b"
    assert versions.base(Round, Start(0), "newest") == "newest"


def test_a_run_of_tiers_goes_on_to_the_same_bits(tmp_path):
    with unevaluated():
        whole = run(scenario(tmp_path, TIERS), tmp_path / "run")
        shutil.rmtree(tmp_path / "run" / "checkpoints" / "round-0006")
        (tmp_path / "run" / "result.json").unlink()
        again = run(tmp_path / "garments.yaml", tmp_path / "run", resume=True)
    assert again["weights_sha256"] == whole["weights_sha256"]


REFUSED = {
    "topology.mode.concurrency: got 7, expected at most population.clients, 6": {"concurrency": 7},
    "topology.mode.buffer: got 5, expected at most concurrency, 4": {"buffer": 5},
}


@pytest.mark.parametrize("expected", REFUSED)
def test_more_at_once_than_there_are_is_refused(expected, tmp_path):
    with pytest.raises(ScenarioError, match=expected):
        job_of(scenario(tmp_path, BUFFERED | REFUSED[expected]))


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("population.per_round", {"population.per_round": 3}),
        ("network.deadline_s", {"network.deadline_s": 100.0}),
        ("aggregation.kind", {"aggregation": {"kind": "scaffold"}}),
        ("secure_aggregation", {"secure_aggregation": {"kind": "pairwise"}}),
        ("privacy", {"privacy": {"kind": "central", "clip": 1.0, "noise": 1.0}}),
        ("ledger", {"ledger": {}}),
        ("incentive", {"incentive": {"kind": "reverse_auction", "second_price": 1.0, "unit_value": 1.0}}),
    ],
)  # fmt: skip
def test_what_needs_clients_that_begin_together_is_refused_beside_a_mode(key, changes, tmp_path):
    with pytest.raises(ScenarioError) as e:
        job_of(scenario(tmp_path, BUFFERED, changes))
    assert any(f" {key}" in line or f": {key}" in line for line in str(e.value).splitlines()), str(e.value)


@pytest.mark.parametrize(
    ("more", "got"),
    [
        ({"allocation": "min_max"}, "min_max beside a mode, expected equal, or blocks of an uplink"),
        (
            {"allocation": "blocks", "bandwidth_hz": 400.0e3},
            "blocks, of which there are 2, expected at least one",
        ),
        ({"allocation": "blocks"}, None),
    ],
)
def test_shares_of_a_band_that_need_to_know_who_sends_are_refused_beside_a_mode(more, got, tmp_path):
    network = {
        "network.uplink": {"kind": "log_distance", "bandwidth_hz": 20.0e6} | more,
        "network.cell": {"placement": {"kind": "disc", "radius_m": 100}},
    }
    file = scenario(tmp_path, BUFFERED, network)
    if got is None:
        assert plan(checks.check(file))["total"]["sim_time_s"] > 0
        return
    with pytest.raises(ScenarioError, match=f"network.uplink.allocation: got {got}"):
        job_of(file)
