import dataclasses
import json
import os
import re
import shutil
import signal
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedray import shipped
from fedray.callbacks import RoundReport, RunStart
from fedray.engine import RunFailed
from fedray.executors import StepFailed
from fedray.executors.client_worker import ClientWorker
from fedray.executors.local_training import batches
from fedray.executors.serial import SerialExecutor
from fedray.network.radio import Radio
from fedray.planning.round import schedule_round
from fedray.scenario.relay_defence import Validation
from fedray.scenario.topology import Parallel, Relay
from fedray.terminal import Quiet
from fedray.transport.buffer import sha256
from tests.helpers import ARTISTS, UNSEEN, begin, garments, job_of, rows, run, tiny, unevaluated

TOPOLOGIES = {
    "side by side": Parallel(kind="parallel"),
    "in a ring": Parallel(kind="parallel", reduce="allreduce"),
    "in a row": Relay(kind="relay"),
    "in two rows": Relay(kind="relay", chains=2),
    "in a row, validated": Relay(kind="relay", defence=Validation(kind="validation")),
}
# on which the executors' models are tried where a schedule validates: close enough to reject some
STRICT = {"kind": "relay", "defence": {"kind": "validation", "max_loss_growth": 1e-3, "max_norm": 1.0}}
ABORT = {"runtime": {"executor": "serial", "failures": {"data": "abort"}}}
# what a step makes of the weights is not finite, or far too large
ENDLESS = {"training.optimizer.learning_rate": 1e30}


@pytest.fixture(scope="module")
def on_ray(cluster, tmp_path_factory):
    """An executor of three client actors; who wants fewer uses some of its hosts."""
    from fedray.executors.ray.executor import RayExecutor

    changes = {"runtime": {"executor": "ray", "actors": 3}, "topology": STRICT}
    changes["ledger"] = {}  # reports hold signed leaves, too
    _, job = job_of(garments(tmp_path_factory.mktemp("on-ray"), changes))
    with unevaluated():
        executor = RayExecutor(job)
    assert len(executor.hosts) == 3
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def alone(on_ray):
    """The same job in this process."""
    return SerialExecutor(on_ray.job)


def schedule(executor, topology, t: int = 1):
    scenario = executor.job.scenario.model_copy(update={"topology": topology})
    return schedule_round(scenario, Radio(scenario.network), t)


def rounds(executor, topology, n: int = 2):
    """Every turn's report, in whatever order they come; `executor` holds the last global buffer then."""
    begin(executor)
    reports = [r for t in range(1, n + 1) for r in executor.run_round(schedule(executor, topology, t))]
    return sorted(reports, key=lambda r: (r.round, r.client))


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=TOPOLOGIES)
@pytest.mark.parametrize("actors", [1, 2, 3])
def test_any_number_of_actors_gives_the_weights_of_one_process(
    actors, topology, cluster, on_ray, alone, monkeypatch
):
    monkeypatch.setattr(on_ray, "hosts", on_ray.hosts[:actors])
    assert len(on_ray.hosts) == actors
    reports = rounds(on_ray, topology)
    assert reports == rounds(alone, topology)
    assert [r.client for r in reports] == [*range(5), *range(5)]
    assert all(report.leaf for report in reports)
    assert any(report.rejected for report in reports) == (topology.relay_defence is not None)
    assert sha256(cluster.get(on_ray.buffer)) == sha256(alone.buffer) != sha256(alone.initial)
    assert sha256(on_ray.global_buffer()[0]) == sha256(alone.global_buffer()[0])


@pytest.mark.parametrize(
    "changed",
    [
        lambda plan: replace(plan, weights={client: 1 + client for client in range(5)}),
        lambda plan: plan.using({0: 3, 1: 5, 2: 7, 3: 2, 4: 1}),
    ],
    ids=["weights of its own", "some of their samples"],
)
def test_what_a_rounds_schedule_says_of_its_clients_counts_for_actors_too(changed, cluster, on_ray, alone):
    plan = schedule(on_ray, TOPOLOGIES["side by side"])
    reports = {}
    for executor in (on_ray, alone):
        begin(executor)
        reports[executor] = sorted(executor.run_round(changed(plan)), key=lambda r: r.client)
    assert reports[on_ray] == reports[alone]
    assert sha256(cluster.get(on_ray.buffer)) == sha256(alone.buffer)
    begin(alone)
    list(alone.run_round(plan))
    assert sha256(cluster.get(on_ray.buffer)) != sha256(alone.buffer)


@pytest.mark.parametrize(
    "topology", [TOPOLOGIES["side by side"], TOPOLOGIES["in a row"]], ids=["side by side", "in a row"]
)
def test_a_round_that_loses_an_actor_is_done_again_with_the_same_bits_and_the_driver_holds_references_only(
    topology, cluster, on_ray, alone
):
    two, others = on_ray.hosts[:2], on_ray.hosts[2:]
    plan, notes = schedule(on_ray, topology), []
    on_ray.hosts, on_ray.note = two, notes.append
    # The one that has no part in the first report stands still in the middle of the round, and dies there.
    stuck = two[1] if isinstance(topology, Parallel) else two[(plan.clients[0] + 1) % 2]
    pid = cluster.get(stuck.actor.pid.remote())
    begin(on_ray)
    os.kill(pid, signal.SIGSTOP)
    turns = on_ray.run_round(plan)
    reports = [next(turns)]
    os.kill(pid, signal.SIGKILL)
    reports += turns
    assert len(on_ray.hosts) == 2
    assert pid not in cluster.get([host.actor.pid.remote() for host in on_ray.hosts])
    on_ray.hosts += others
    assert len(notes) == 1
    assert "round 1: ActorDiedError" in notes[0]
    assert isinstance(on_ray.buffer, cluster.ObjectRef)
    assert not any(isinstance(value, np.ndarray) for value in vars(on_ray).values())
    assert rounds(alone, topology, 1) == sorted(reports, key=lambda r: r.client)
    assert sha256(cluster.get(on_ray.buffer)) == sha256(alone.buffer)
    if isinstance(topology, Relay):
        assert [r.client for r in reports] == plan.clients


def test_no_evaluator_starts_where_nothing_is_evaluated(on_ray):
    assert on_ray.beside_hosts == [on_ray.server]


def test_a_rounds_metrics_are_in_rays_own_metrics_under_the_runs_name(cluster, on_ray):
    pytest.importorskip(
        "ray.dashboard.head",
        reason="Ray's metrics need ray[default]: uv sync, or pip install 'fedray[cluster]'",
    )
    from fedray.executors.ray.gauges import Gauges

    gauges = Gauges()
    gauges.on_start(RunStart(Path("runs/a-run"), on_ray.job.scenario, "Ray", 3, 0, []))
    gauges.on_round(RoundReport(3, 3, {"round": 3, "loss": 0.25, "eval_recognised": 0.5, "nothing": None}))
    place = f"http://127.0.0.1:{cluster.nodes()[0]['MetricsExportPort']}/metrics"
    until, seen = time.monotonic() + 30, {}
    while time.monotonic() < until and len(seen) < 3:
        time.sleep(0.2)
        text = urllib.request.urlopen(place, timeout=5).read().decode()
        seen = dict(re.findall(r'^ray_fedray_(\w+)\{.*run="a-run".*\} (\S+)$', text, re.M))
    assert {name: float(value) for name, value in seen.items()} == {
        "round": 3.0,
        "loss": 0.25,
        "eval_recognised": 0.5,
    }


def test_an_actor_lost_more_often_than_allowed_ends_the_run_with_client_round_and_stage(
    cluster, on_ray, monkeypatch
):
    scenario, lost = on_ray.job.scenario, on_ray.hosts.pop()
    monkeypatch.setattr(on_ray, "hosts", [lost])
    strict = scenario.runtime.model_copy(
        update={"failures": scenario.runtime.failures.model_copy(update={"retries": 0})}
    )
    monkeypatch.setattr(
        on_ray,
        "job",
        dataclasses.replace(on_ray.job, scenario=scenario.model_copy(update={"runtime": strict})),
    )
    os.kill(cluster.get(lost.actor.pid.remote()), signal.SIGKILL)
    for topology in TOPOLOGIES.values():
        begin(on_ray)
        plan = schedule(on_ray, topology)
        with pytest.raises(StepFailed) as caught:
            list(on_ray.run_round(plan))
        facts = caught.value.facts
        assert (facts["error"], facts["round"], facts["stage"]) == ("ActorDiedError", 1, "training")
        assert facts["client"] == plan.clients[0]
        assert str(caught.value).startswith(
            f"client {plan.clients[0]} in round 1, while training: ActorDiedError: "
        )


def test_what_an_actor_refuses_is_a_line_of_the_scenario(cluster, weights_alone, tmp_path, fedray):
    tuning = {"kind": "partial", "patterns": ["nothing.*"]}
    file = garments(tmp_path, {"tuning": tuning, "runtime": {"executor": "ray", "actors": 1}})
    code, _, err = fedray("run", file, "--out", tmp_path / "run", "--quiet")
    assert code == 2
    # a busy machine may say that it waits for its actors before
    expected = rf"{re.escape(str(file))}:\d+: tuning\.patterns: got 'nothing\.\*', expected "
    assert any(re.match(expected, line) for line in err.splitlines())
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_model_that_does_not_load_is_a_line_of_the_scenario(tmp_path, fedray):
    base = _copy_of("tiny-sd", tmp_path)
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    file = tiny(tmp_path, UNSEEN | {"model.base": str(base)})
    code, _, err = fedray("run", file, "--out", tmp_path / "run", "--quiet")
    assert code == 2
    assert err.startswith(f"{file}:")
    assert "model.base" in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_site_without_a_node_is_a_line_of_the_scenario(cluster, tmp_path, fedray):
    sites = {"moon": {"folders": ["a", "b", "c", "d", "e"]}}
    file = tiny(tmp_path, UNSEEN | {"data.sites": sites, "runtime": {"executor": "ray"}})
    code, _, err = fedray("run", file, "--out", tmp_path / "run", "--quiet")
    assert code == 2
    expected = (
        "data.sites.moon: got no node of the cluster with the label site=moon, expected one (ray start ..."
        " --labels site=moon)"
    )
    assert re.fullmatch(rf"{re.escape(str(file))}:\d+: {re.escape(expected)}\n", err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "topology", [{"kind": "parallel"}, {"kind": "relay", "chains": 5}], ids=["parallel", "chains of one"]
)
def test_turns_side_by_side_are_their_mean_by_samples(topology, tmp_path):
    _, job = job_of(garments(tmp_path, {"topology": topology}))
    executor = SerialExecutor(job)
    begin(executor)
    base = executor.layout.flat(executor.buffer).double()
    alone, weights = [], []
    for client in range(5):
        buffer, report, _ = executor.clients.train(1, client, executor.buffer)
        alone.append(report.samples * executor.layout.flat(buffer).double())
        weights.append(report.samples)
    list(executor.run_round(schedule(executor, job.scenario.topology)))
    got = executor.layout.flat(executor.buffer).double()
    assert len(set(weights)) > 1
    assert sum(weights) == 2500
    assert (got - base).abs().max() > 1e-4
    assert (got - sum(alone) / sum(weights)).abs().max() < 1e-7


def test_one_chain_ends_with_its_last_clients_weights(tmp_path):
    _, job = job_of(garments(tmp_path, {"topology": {"kind": "relay"}, "tuning.payload": "fp16"}))
    executor = SerialExecutor(job)
    begin(executor)
    buffer = executor.buffer
    plan = schedule(executor, job.scenario.topology)
    for client in plan.clients:
        buffer = executor.clients.train(1, client, buffer)[0].copy()
    list(executor.run_round(plan))
    assert sha256(executor.buffer) == sha256(buffer)


@pytest.mark.parametrize("topology", ["parallel", "relay"])
def test_a_loss_that_is_not_finite_aborts_with_client_round_and_stage_where_failures_abort(
    topology, tmp_path
):
    file = garments(tmp_path, ENDLESS | ABORT | {"topology": {"kind": topology}, "training.local_steps": 2})
    with pytest.raises(
        RunFailed,
        match=(
            r"client \d in round 1, while training: the loss of step 2 is (nan|inf), expected a finite number"
        ),
    ):
        run(file, tmp_path / "run")
    error = json.loads((tmp_path / "run" / "error.json").read_text())
    assert error["round"] == 1
    assert error["stage"] == "training"
    assert error["client"] == first_client(file)
    assert "step 2" in error["message"]


def first_client(file: Path) -> int:
    _, job = job_of(file)
    return schedule_round(job.scenario, Radio(job.scenario.network), 1).clients[0]


@pytest.mark.parametrize("topology", ["parallel", "relay"])
def test_a_client_whose_weights_are_not_finite_at_its_turns_end_is_the_one_that_fails(topology, tmp_path):
    """The loss of its only step is finite; what that step made of the weights is not."""
    file = garments(tmp_path, ENDLESS | ABORT | {"topology": {"kind": topology}})
    with pytest.raises(RunFailed):
        run(file, tmp_path / "run")
    error = json.loads((tmp_path / "run" / "error.json").read_text())
    assert error.get("client") == first_client(file), error


@pytest.mark.parametrize("topology", ["parallel", "relay"])
def test_clients_that_all_fail_leave_the_global_model_as_it_was(topology, tmp_path):
    _, job = job_of(garments(tmp_path, ENDLESS | {"topology": {"kind": topology}, "training.local_steps": 2}))
    executor = SerialExecutor(job)
    begin(executor)
    before = executor.buffer.copy()
    reports = list(executor.run_round(schedule(executor, job.scenario.topology)))
    assert all(r.failure and r.stage == "training" for r in reports)
    assert len(reports) == 5
    assert np.array_equal(executor.buffer, before)


class Damaging(Quiet):
    """Damages an image of each of some clients once a run has looked at all."""

    def __init__(self, data: Path, clients: list[int]) -> None:
        super().__init__()
        folders = sorted(p for p in data.iterdir() if p.is_dir())
        self.files = [next(folders[client].glob("*.png")) for client in clients]

    def on_start(self, start: RunStart) -> None:
        for file in self.files:
            file.write_bytes(b"no image")


@pytest.mark.parametrize("topology", ["parallel", "relay"])
def test_clients_that_fail_are_dropped_counted_and_stop_nobody_else(topology, tmp_path):
    data = _copy_of("ink", tmp_path)
    file = garments(tmp_path, ARTISTS | {"data.path": str(data), "topology": {"kind": topology}})
    run(file, tmp_path / "run", callback=Damaging(data, [1, 3]))
    metrics = rows(tmp_path / "run" / "metrics.jsonl")
    assert [(m["clients"], m["failed"], m["samples"]) for m in metrics] == [(3, 2, 12), (3, 2, 12)]
    assert all(0 < m["loss"] < 5 for m in metrics)
    assert not (tmp_path / "run" / "error.json").exists()


def test_more_failures_than_the_budget_end_the_run(tmp_path):
    data = _copy_of("ink", tmp_path)
    changes = ARTISTS | {"data.path": str(data), "runtime": {"executor": "serial", "failures": {"budget": 5}}}
    with pytest.raises(
        RunFailed, match=r"client 4 in round 2.*\(failure 6, beyond runtime\.failures\.budget of 5\)"
    ):
        run(garments(tmp_path, changes), tmp_path / "run", callback=Damaging(data, [0, 3, 4]))
    assert len(rows(tmp_path / "run" / "metrics.jsonl")) == 1


def test_a_dropped_client_hands_on_what_it_was_given_and_does_not_count(tmp_path):
    """An image is damaged once the run has looked at it: its client fails, the others' relay goes on as if
    without it."""
    data = _copy_of("ink", tmp_path)
    _, job = job_of(tiny(tmp_path, UNSEEN | {"data.path": str(data)}))
    executor = SerialExecutor(job)
    plan = schedule(executor, job.scenario.topology)
    failing = plan.clients[2]
    begin(executor)
    damaged = executor.clients.samples.files[executor.clients.client_indices[failing][0]]

    buffer = executor.buffer
    for client in plan.clients:
        if client != failing:
            buffer = executor.clients.train(1, client, buffer)[0].copy()

    damaged.write_bytes(damaged.read_bytes()[:100])
    reports = list(executor.run_round(plan))
    (failed,) = [r for r in reports if r.failure]
    assert failed.client == failing
    assert failed.stage == "preparing its data"
    assert str(damaged) in failed.failure
    assert executor.layout.flat(executor.buffer).allclose(executor.layout.flat(buffer), atol=1e-6)


@pytest.mark.parametrize(
    "topology", [{"kind": "parallel"}, {"kind": "relay", "chains": 5}], ids=["parallel", "chains of one"]
)
def test_a_client_that_fails_does_not_weigh_in_the_mean(topology, tmp_path):
    data = _copy_of("ink", tmp_path)
    _, job = job_of(garments(tmp_path, ARTISTS | {"data.path": str(data), "topology": topology}))
    executor = SerialExecutor(job)
    begin(executor)
    damaged = executor.clients.samples.files[executor.clients.client_indices[3][0]]
    damaged.write_bytes(b"no image")
    alone = [
        executor.layout.flat(executor.clients.train(1, c, executor.buffer)[0]).double() for c in (0, 1, 2, 4)
    ]
    list(executor.run_round(schedule(executor, job.scenario.topology)))
    assert (executor.layout.flat(executor.buffer).double() - sum(alone) / 4).abs().max() < 1e-7


def test_a_turn_goes_round_its_samples_before_it_takes_one_again():
    rng = np.random.default_rng(0)
    taken = batches([3, 3, 3], 4, rng)
    assert [len(b) for b in taken] == [3, 3, 3]
    stream = np.concatenate(taken).tolist()
    assert sorted(stream[:4]) == sorted(stream[4:8]) == [0, 1, 2, 3]


def _copy_of(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(shipped.HERE / name, folder / name))


def test_frozen_batch_normalisation_learns_no_means_on_any_host(tmp_path):
    """What does not travel must not change: or each host, and a resumed run, would have means of its own."""
    changes = {
        "model": {"kind": "classifier", "network": "resnet18"},
        "tuning": {"kind": "partial", "patterns": ["network.fc.*"]},
        "training": {
            "rounds": 2,
            "local_epochs": 1,
            "batch_size": 8,
            "optimizer": {"kind": "sgd", "learning_rate": 0.01},
        },
        "data.partition": {"kind": "iid", "samples": 17},
        "population": {"clients": 2},
        "runtime": {"executor": "serial"},
    }
    file = garments(tmp_path, changes)
    whole = run(file, tmp_path / "run")
    means = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(
        bool((t == (0 if "mean" in name else 1)).all())
        for name, t in means.items()
        if ".running_" in f".{name}"
    )
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "round-0002")
    (tmp_path / "run" / "result.json").unlink()
    assert run(file, tmp_path / "run", resume=True)["weights_sha256"] == whole["weights_sha256"]


def test_what_is_normalised_and_learnt_travels_with_its_means(tmp_path):
    changes = {
        "model": {"kind": "classifier", "network": "resnet18"},
        "tuning": {"kind": "partial", "patterns": ["network.bn1.*"]},
        "runtime": {"executor": "serial"},
    }
    _, job = job_of(garments(tmp_path, changes))
    _, layout, _ = ClientWorker(job, torch.device("cpu")).initial()
    assert layout.names == (
        "network.bn1.weight",
        "network.bn1.bias",
        "network.bn1.running_mean",
        "network.bn1.running_var",
    )
    assert layout.trained == 128
