import dataclasses
import json
import os
import re
import signal
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from fedray.engine import RunFailed
from fedray.executors import StepFailed
from fedray.executors.serial import SerialExecutor
from fedray.executors.work import batches
from fedray.network.clock import Radio
from fedray.parameters import sha256
from fedray.rounds import schedule_round
from tests.helpers import UNSEEN, job_of, rows, run, tiny


@pytest.fixture(scope="module")
def five(cluster, tmp_path_factory):
    """An executor of five client actors; who wants fewer uses some of its hosts."""
    from fedray.executors.ray import RayExecutor

    _, job = job_of(tiny(tmp_path_factory.mktemp("five"), UNSEEN | {"runtime": {"executor": "ray", "actors": 5}}))
    executor = RayExecutor(job)
    assert len(executor.hosts) == 5
    yield executor
    executor.close()


def rounds(executor, n: int = 2):
    """Every turn's report; `executor` holds the last global buffer then."""
    scenario = executor.job.scenario
    executor.begin()
    return [r for t in range(1, n + 1) for r in executor.carry_out(schedule_round(scenario, Radio(scenario.network), t))]


@pytest.mark.parametrize("actors", [1, 2, 5])
def test_any_number_of_actors_gives_the_weights_of_one_process(actors, serial, cluster, five, monkeypatch):
    monkeypatch.setattr(five, "hosts", five.hosts[:actors])
    rounds(five)
    assert sha256(cluster.get(five.buffer)) == serial


def test_a_round_that_loses_an_actor_is_done_again_with_the_same_bits_and_the_driver_holds_references_only(serial, cluster, five):
    five.hosts, notes = five.hosts[:1], []
    five.note = notes.append
    before = cluster.get(five.hosts[0].actor.pid.remote())
    scenario = five.job.scenario
    five.begin()
    turns = five.carry_out(schedule_round(scenario, Radio(scenario.network), 1))
    reports = [next(turns)]  # the next client's turn, queued behind this one, has begun
    os.kill(before, signal.SIGKILL)
    reports += turns
    assert cluster.get(five.hosts[0].actor.pid.remote()) != before
    assert len(notes) == 1
    assert "round 1: ActorDiedError" in notes[0]
    assert isinstance(five.buffer, cluster.ObjectRef)
    assert not any(isinstance(value, np.ndarray) for value in vars(five).values())
    alone = SerialExecutor(five.job)
    assert rounds(alone, 1) == reports
    assert sha256(cluster.get(five.buffer)) == sha256(alone.buffer)
    assert [r.client for r in reports] == schedule_round(scenario, Radio(scenario.network), 1).clients


def test_a_rounds_metrics_are_in_rays_own_metrics_under_the_runs_name(cluster, five):
    pytest.importorskip("ray.dashboard.head", reason="Ray's metrics need ray[default]: uv sync, or pip install 'fedray[cluster]'")
    five.publish("a-run", {"round": 3, "loss": 0.25, "eval_recognised": 0.5, "nothing": None})
    place = f"http://127.0.0.1:{cluster.nodes()[0]['MetricsExportPort']}/metrics"
    until, seen = time.monotonic() + 30, {}
    while time.monotonic() < until and len(seen) < 3:
        time.sleep(0.2)
        text = urllib.request.urlopen(place, timeout=5).read().decode()
        seen = dict(re.findall(r'^ray_fedray_(\w+)\{.*run="a-run".*\} (\S+)$', text, re.M))
    assert {name: float(value) for name, value in seen.items()} == {"round": 3.0, "loss": 0.25, "eval_recognised": 0.5}


def test_an_actor_lost_more_often_than_allowed_ends_the_run_with_client_round_and_stage(cluster, five, monkeypatch):
    scenario = five.job.scenario
    strict = scenario.runtime.model_copy(update={"failures": scenario.runtime.failures.model_copy(update={"retries": 0})})
    monkeypatch.setattr(five, "job", dataclasses.replace(five.job, scenario=scenario.model_copy(update={"runtime": strict})))
    five.begin()
    os.kill(cluster.get(five.hosts[0].actor.pid.remote()), signal.SIGKILL)
    schedule = schedule_round(scenario, Radio(scenario.network), 1)
    with pytest.raises(StepFailed) as caught:
        list(five.carry_out(schedule))
    facts = caught.value.facts
    assert (facts["error"], facts["round"], facts["stage"]) == ("ActorDiedError", 1, "training")
    assert facts["client"] == schedule.clients[0]
    assert str(caught.value).startswith(f"client {schedule.clients[0]} in round 1, while training: ActorDiedError: ")


def test_a_model_that_does_not_load_in_an_actor_is_a_line_of_the_scenario(cluster, tmp_path, fedray):
    base = _copy_of_tiny_sd(tmp_path / "broken")
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    file = tiny(tmp_path, UNSEEN | {"model.base": str(base), "runtime": {"executor": "ray", "actors": 1}})
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
    expected = "data.sites.moon: got no node of the cluster with the label site=moon, expected one (ray start ... --labels site=moon)"
    assert re.fullmatch(rf"{re.escape(str(file))}:\d+: {re.escape(expected)}\n", err)
    assert not (tmp_path / "run").exists()


def test_chains_of_one_client_are_the_mean_of_independent_turns(tmp_path):
    loaded, job = job_of(tiny(tmp_path, UNSEEN | {"topology.chains": 5}))
    executor = SerialExecutor(job)
    executor.begin()
    base = executor.layout.flat(executor.buffer).double()
    alone = []
    for client in range(5):
        buffer, _ = executor.clients.train(1, client, executor.buffer)
        alone.append(executor.layout.flat(buffer).double())
    list(executor.carry_out(schedule_round(loaded.scenario, Radio(loaded.scenario.network), 1)))
    got = executor.layout.flat(executor.buffer).double()
    expected = sum(alone) / 5  # every client holds 4 samples
    assert (got - base).abs().max() > 1e-6
    assert (got - expected).abs().max() < 1e-7


def test_one_chain_ends_with_its_last_clients_weights(tmp_path):
    loaded, job = job_of(tiny(tmp_path, UNSEEN | {"tuning.payload": "fp16"}))
    executor = SerialExecutor(job)
    executor.begin()
    buffer = executor.buffer
    schedule = schedule_round(loaded.scenario, Radio(loaded.scenario.network), 1)
    for client in schedule.clients:
        buffer = executor.clients.train(1, client, buffer)[0].copy()
    list(executor.carry_out(schedule))
    assert sha256(executor.buffer) == sha256(buffer)


def test_a_loss_that_is_not_finite_aborts_with_client_round_and_stage(tmp_path):
    file = tiny(tmp_path, UNSEEN | {"training.local_steps": 2, "training.optimizer.learning_rate": 1e30})
    with pytest.raises(RunFailed, match=r"client \d in round 1, while training: the loss of step 2 is (nan|inf), expected a finite number"):
        run(file, tmp_path / "run")
    error = json.loads((tmp_path / "run" / "error.json").read_text())
    assert error["round"] == 1
    assert error["stage"] == "training"
    assert error["client"] in range(5)
    assert error["client"] == rows_of_first_round(file)[0]
    assert "step 2" in error["message"]


def rows_of_first_round(file: Path) -> list[int]:
    loaded, _ = job_of(file)
    return schedule_round(loaded.scenario, Radio(loaded.scenario.network), 1).clients


def test_a_client_whose_weights_are_not_finite_at_its_turns_end_is_the_one_that_fails(tmp_path):
    """The loss of its only step is finite; what that step made of the weights is not."""
    file = tiny(tmp_path, UNSEEN | {"training.optimizer.learning_rate": 1e30})
    with pytest.raises(RunFailed):
        run(file, tmp_path / "run")
    error = json.loads((tmp_path / "run" / "error.json").read_text())
    assert error.get("client") == rows_of_first_round(file)[0], error


def test_dropped_clients_leave_the_global_model_as_it_was(tmp_path):
    changes = {"training.local_steps": 2, "training.optimizer.learning_rate": 1e30}
    changes["runtime"] = {"executor": "serial", "failures": {"data": "drop", "budget": 10}}
    _loaded, job = job_of(tiny(tmp_path, UNSEEN | changes))
    executor = SerialExecutor(job)
    executor.begin()
    before = sha256(executor.buffer)
    assert run(tmp_path / "tiny.yaml", tmp_path / "run")["weights_sha256"] == before
    metrics = rows(tmp_path / "run" / "metrics.jsonl")
    assert [m["clients"] for m in metrics] == [0, 0]
    assert [m["loss"] for m in metrics] == [None, None]
    assert not (tmp_path / "run" / "error.json").exists()


def test_more_failures_than_the_budget_end_the_run(tmp_path):
    changes = {"training.local_steps": 2, "training.optimizer.learning_rate": 1e30}
    changes["training.rounds"] = 2
    changes["runtime"] = {"executor": "serial", "failures": {"data": "drop", "budget": 5}}
    with pytest.raises(RunFailed, match=r"in round 2.*\(failure 6, beyond runtime\.failures\.budget of 5\)"):
        run(tiny(tmp_path, UNSEEN | changes), tmp_path / "run")
    assert len(rows(tmp_path / "run" / "metrics.jsonl")) == 1


def test_a_dropped_client_hands_on_what_it_was_given_and_does_not_count(tmp_path):
    """An image is damaged once the run has looked at it: its client fails, the others' relay goes on as if without it."""
    data = _copy_of_ink(tmp_path / "ink")
    changes = {"data.path": str(data), "runtime": {"executor": "serial", "failures": {"data": "drop"}}}
    loaded, job = job_of(tiny(tmp_path, UNSEEN | changes))
    schedule = schedule_round(loaded.scenario, Radio(loaded.scenario.network), 1)
    failing = schedule.clients[2]
    executor = SerialExecutor(job)
    executor.begin()
    damaged = executor.clients.samples.files[executor.clients.held[failing][0]]

    buffer = executor.buffer
    for client in schedule.clients:
        if client != failing:
            buffer = executor.clients.train(1, client, buffer)[0].copy()

    damaged.write_bytes(damaged.read_bytes()[:100])
    reports = list(executor.carry_out(schedule))
    (failed,) = [r for r in reports if r.failure]
    assert failed.client == failing
    assert failed.stage == "preparing its data"
    assert str(damaged) in failed.failure
    assert executor.layout.flat(executor.buffer).allclose(executor.layout.flat(buffer), atol=1e-6)


def test_a_failed_chain_does_not_weigh_in_the_mean(tmp_path):
    data = _copy_of_ink(tmp_path / "ink")
    changes = {"data.path": str(data), "topology.chains": 5, "runtime": {"executor": "serial", "failures": {"data": "drop"}}}
    loaded, job = job_of(tiny(tmp_path, UNSEEN | changes))
    executor = SerialExecutor(job)
    executor.begin()
    damaged = executor.clients.samples.files[executor.clients.held[3][0]]
    damaged.write_bytes(b"no image")
    alone = [executor.layout.flat(executor.clients.train(1, c, executor.buffer)[0]).double() for c in (0, 1, 2, 4)]
    list(executor.carry_out(schedule_round(loaded.scenario, Radio(loaded.scenario.network), 1)))
    assert (executor.layout.flat(executor.buffer).double() - sum(alone) / 4).abs().max() < 1e-7


def test_a_turn_goes_round_its_samples_before_it_takes_one_again():
    rng = np.random.default_rng(0)
    taken = batches([3, 3, 3], 4, rng)
    assert [len(b) for b in taken] == [3, 3, 3]
    stream = np.concatenate(taken).tolist()
    assert sorted(stream[:4]) == sorted(stream[4:8]) == [0, 1, 2, 3]


def _copy_of_ink(folder: Path) -> Path:
    import shutil

    from fedray import shipped

    return Path(shutil.copytree(shipped.HERE / "ink", folder))


def _copy_of_tiny_sd(folder: Path) -> Path:
    import shutil

    from fedray import shipped

    return Path(shutil.copytree(shipped.HERE / "tiny-sd", folder))
