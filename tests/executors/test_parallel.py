"""Parallel rounds: hosts train many clients each, and the sum is the same however they share them."""

import dataclasses
import json
import os
import shutil
import signal
import threading

import numpy as np
import pytest
import torch

from fedray.engine import RunFailed
from fedray.executors.local_training import batches
from fedray.executors.serial import SerialExecutor
from fedray.learners.classifier import build
from fedray.network.radio import Radio
from fedray.planning.round import schedule_round
from fedray.randomness import generator
from fedray.topologies.parallel import parallel
from fedray.transport.buffer import sha256
from tests.helpers import begin, begun, garments, rows, run, timeless, unevaluated

MANY = {"population": {"clients": 12, "per_round": 7}, "training.rounds": 3, "data.partition.alpha": 0.3}
SGD = {"kind": "sgd", "learning_rate": 0.05}
EPOCH = {"rounds": 1, "local_epochs": 1, "batch_size": 64, "clip_norm": None, "optimizer": SGD}
STATEFUL = {
    "scaffold": {"kind": "scaffold"},
    "compressed": {
        "kind": "fedadam",
        "transforms": [
            {"kind": "clip", "norm": 2.0},
            {"kind": "top_k", "fraction": 0.02},
            {"kind": "quantize", "bits": 4},
        ],
    },
}


def run_round(executor, t):
    return list(
        executor.run_round(schedule_round(executor.job.scenario, Radio(executor.job.scenario.network), t))
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A SCAFFOLD run in one process: its scenario, its executor after three rounds, and every report."""
    folder = tmp_path_factory.mktemp("alone")
    executor = begun(garments(folder, MANY | {"aggregation": STATEFUL["scaffold"]}))
    return folder, executor, [r for t in (1, 2, 3) for r in run_round(executor, t)]


@pytest.fixture(scope="module")
def two(cluster, alone):
    """Two hosts for the same scenario."""
    from fedray.executors.ray.executor import RayExecutor

    with unevaluated():
        executor = RayExecutor(dataclasses.replace(alone[1].job, scenario=on_ray(alone[1].job.scenario)))
    yield executor
    executor.close()


def on_ray(scenario):
    return scenario.model_copy(
        update={"runtime": scenario.runtime.model_copy(update={"executor": "ray", "actors": 2})}
    )


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_a_host_that_is_asked_part_by_part_gives_the_same_bits_and_is_heard_of_part_by_part(
    parts, cluster, alone, two
):
    from fedray.executors.ray.wiring import submit

    two.begin(alone[1].shared)
    reports, calls = [], []
    for t in (1, 2, 3):
        two.parts = parts  # however long the round before it took
        schedule = schedule_round(two.job.scenario, Radio(two.job.scenario.network), t)
        calls.append(len(submit(two, schedule).reports))
        reports += list(two.run_round(schedule))
    assert calls == [min(7, 2 * parts)] * 3  # seven clients on two hosts
    assert sha256(cluster.get(two.buffer)) == sha256(alone[1].buffer)
    assert sorted(reports, key=lambda r: (r.round, r.client)) == alone[2]


@pytest.mark.parametrize(("actors", "reduce"), [(1, "server"), (2, "server"), (2, "allreduce")])
def test_any_number_of_hosts_and_either_reduction_give_the_bits_of_one_process(
    actors, reduce, cluster, alone, two, tmp_path, monkeypatch
):
    scenario = two.job.scenario
    topology = scenario.topology.model_copy(update={"reduce": reduce})
    monkeypatch.setattr(two, "hosts", two.hosts[:actors])
    monkeypatch.setattr(
        two, "job", dataclasses.replace(two.job, scenario=scenario.model_copy(update={"topology": topology}))
    )
    two.begin(alone[1].shared)
    reports = [r for t in (1, 2, 3) for r in run_round(two, t)]
    assert sha256(cluster.get(two.buffer)) == sha256(alone[1].buffer)
    assert sorted(reports, key=lambda r: (r.round, r.client)) == alone[2]
    folders = [tmp_path / name for name in ("ray", "serial")]
    for folder, executor in zip(folders, (two, alone[1]), strict=True):
        folder.mkdir()
        executor.changed = set(executor.client_states)
        assert executor.checkpoint(folder, None).clients
    names = sorted(p.name for p in folders[0].iterdir())
    assert names == sorted(p.name for p in folders[1].iterdir())
    assert all((folders[0] / n).read_bytes() == (folders[1] / n).read_bytes() for n in names)


def test_a_host_that_dies_while_its_peer_waits_in_an_allreduce_is_a_lost_actor(
    cluster, alone, two, monkeypatch
):
    scenario = two.job.scenario
    topology = scenario.topology.model_copy(update={"reduce": "allreduce"})
    monkeypatch.setattr(
        two, "job", dataclasses.replace(two.job, scenario=scenario.model_copy(update={"topology": topology}))
    )
    monkeypatch.setattr(two, "group", None)
    notes = []
    monkeypatch.setattr(two, "note", notes.append)
    two.begin(alone[1].shared)
    before = [r for t in (1, 2) for r in run_round(two, t)]  # a group that has reduced
    pid = cluster.get(two.hosts[1].actor.pid.remote())
    os.kill(pid, signal.SIGSTOP)
    # by then the other has done its part and waits
    threading.Timer(2.0, os.kill, (pid, signal.SIGKILL)).start()
    reports = before + [r for t in range(3, 4) for r in run_round(two, t)]
    assert len(notes) == 1
    assert "it is done again" in notes[0]
    assert sha256(cluster.get(two.buffer)) == sha256(alone[1].buffer)
    assert sorted(reports, key=lambda r: (r.round, r.client)) == alone[2]


def test_a_round_is_the_mean_of_plain_training_weighted_by_samples(tmp_path):
    """Against torch alone: the same network from the same weights, an SGD of torch's own, the same
    batches."""
    executor = begun(garments(tmp_path, {"training": EPOCH}))
    layout, scenario, work = executor.layout, executor.job.scenario, executor.clients
    start = layout.flat(executor.buffer)
    images, labels = torch.from_numpy(work.samples.array.copy()), torch.from_numpy(work.samples.labels)
    mean, whole = torch.zeros_like(start), 0
    for client in range(5):
        network = build(scenario.model, 1, 28, 10)
        torch.nn.utils.vector_to_parameters(start.clone(), network.parameters())
        optimizer = torch.optim.SGD(network.parameters(), lr=scenario.training.optimizer.learning_rate)
        mine = torch.from_numpy(work.client_indices[client].astype(np.int64))
        for chosen in batches(
            scenario.training.batches(len(mine)), len(mine), generator(0, 1, client, "batches")
        ):
            i = mine[torch.from_numpy(chosen)]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images[i].float() / 127.5 - 1), labels[i]).backward()
            optimizer.step()
        mean += len(mine) * torch.nn.utils.parameters_to_vector(network.parameters()).detach()
        whole += len(mine)
    run_round(executor, 1)
    got = layout.flat(executor.buffer)
    assert (got - start).abs().max() > 1e-3
    assert (got - mean / whole).abs().max() < 1e-5


def test_uniform_weighting_counts_every_client_once(tmp_path):
    by_samples, uniform = (
        begun(garments(tmp_path, {"aggregation": {"kind": "fedavg", "weighting": w}}))
        for w in ("samples", "uniform")
    )
    start, updates = uniform.layout.flat(uniform.buffer), []
    for client in range(5):
        total, _, _ = uniform.clients.train_all(uniform.buffer, {}, 1, 1, [client], [None])
        updates.append(total.total.clone())
    run_round(uniform, 1)
    run_round(by_samples, 1)
    expected = start.double() + sum(updates) / 5
    assert (uniform.layout.flat(uniform.buffer) - expected).abs().max() < 1e-6
    assert sha256(uniform.buffer) != sha256(by_samples.buffer)


def test_fedprox_without_mu_is_fedavg_and_with_much_stays_near_the_global_model(tmp_path):
    moved = []
    for aggregation in ({"kind": "fedavg"}, {"kind": "fedprox", "mu": 0.0}, {"kind": "fedprox", "mu": 10.0}):
        executor = begun(garments(tmp_path, {"aggregation": aggregation, "training.local_steps": 8}))
        start = executor.layout.flat(executor.buffer)
        run_round(executor, 1)
        moved.append(executor.layout.flat(executor.buffer) - start)
    assert torch.equal(moved[0], moved[1])
    assert moved[2].norm() < 0.8 * moved[0].norm()


def test_what_is_sent_up_is_what_the_plan_and_the_timeline_say(tmp_path):
    from fedray.checks import check
    from fedray.planning.plan import plan
    from fedray.transport.compression import codecs
    from fedray.transport.hooks import encode

    file = garments(tmp_path, MANY | {"aggregation": STATEFUL["compressed"]})
    planned, scenario = plan(check(file)), check(file).scenario
    run(file, tmp_path / "run")
    sends = [e for e in rows(tmp_path / "run" / "timeline.jsonl") if e["event"] == "send"]
    assert {e["bytes"] for e in sends if e["direction"] == "uplink"} == {planned["payload_bytes_uplink"]}
    assert {e["bytes"] for e in sends if e["direction"] == "downlink"} == {planned["payload_bytes"]}
    update = torch.randn(planned["trainable_parameters"])
    made = encode(codecs(scenario.aggregation.transforms), update, torch.float32, 1)
    assert len(made) == planned["payload_bytes_uplink"] < planned["payload_bytes"] / 20
    assert planned["client_state_bytes"] == 4 * planned["trainable_parameters"]


@pytest.mark.parametrize("rule", STATEFUL)
def test_a_run_broken_after_a_checkpoint_ends_with_the_bits_of_an_unbroken_one_all_states_included(
    rule, tmp_path
):
    file = garments(tmp_path, MANY | {"aggregation": STATEFUL[rule]})
    whole = run(file, tmp_path / "whole")
    run(file, tmp_path / "broken")
    (tmp_path / "broken" / "result.json").unlink()
    for later in ("round-0003",):
        shutil.rmtree(tmp_path / "broken" / "checkpoints" / later)
    again = run(file, tmp_path / "broken", resume=True)
    assert again["weights_sha256"] == whole["weights_sha256"]
    assert timeless(rows(tmp_path / "broken" / "metrics.jsonl")) == timeless(
        rows(tmp_path / "whole" / "metrics.jsonl")
    )
    names = {p.name for p in (tmp_path / "whole" / "checkpoints" / "round-0003").iterdir()}
    assert {p.name for p in (tmp_path / "broken" / "checkpoints" / "round-0003").iterdir()} == names


def test_only_clients_that_took_part_have_a_state_and_a_damaged_one_is_refused_by_name(tmp_path):
    file = garments(tmp_path, MANY | {"aggregation": {"kind": "scaffold"}, "training.rounds": 2})
    run(file, tmp_path / "run")
    took_part = {e["node"] for e in rows(tmp_path / "run" / "timeline.jsonl") if e["event"] == "train"}
    newest = tmp_path / "run" / "checkpoints" / "round-0002"
    assert {p.stem for p in newest.glob("client-*")} == took_part
    state = next(newest.glob("client-*"))
    damaged = bytearray(state.read_bytes())
    damaged[-1] ^= 1
    state.unlink()  # it may be linked to the checkpoint before
    state.write_bytes(damaged)
    executor = begun(file)
    saved = json.loads((newest / "state.json").read_text())["saved"]
    from fedray.runs.state import Saved

    with pytest.raises(ValueError, match=state.name):
        executor.restore(newest, Saved(**saved))


def test_clients_without_samples_are_never_asked(tmp_path):
    changes = {
        "population": {"clients": 60, "per_round": 20},
        "data.partition": {"kind": "dirichlet", "alpha": 0.01, "allow_empty": True},
    }
    file = garments(tmp_path, changes)
    executor = begun(file)
    empty = {
        f"client-{c}" for c in executor.clients.client_indices if not len(executor.clients.client_indices[c])
    }
    assert empty
    run(file, tmp_path / "run")
    assert not empty & {e["node"] for e in rows(tmp_path / "run" / "timeline.jsonl")}


def test_scaffolds_server_control_is_the_mean_over_the_clients_that_can_train(tmp_path):
    """c is the mean of all c_i (Karimireddy et al. 2020): after a round of every client that holds something,
    of what they have."""
    partition = {"kind": "dirichlet", "alpha": 0.01, "allow_empty": True}
    changes = {
        "population": {"clients": 30, "per_round": 30},
        "data.partition": partition,
        "aggregation": {"kind": "scaffold"},
    }
    executor = begun(garments(tmp_path, changes | {"training.rounds": 1}))
    holding = [c for c, part in executor.clients.client_indices.items() if len(part)]
    assert len(holding) < 30
    known = executor.shared
    list(
        executor.run_round(
            schedule_round(executor.job.scenario, Radio(executor.job.scenario.network), 1, known)
        )
    )
    layout = executor.layout
    control = layout.view(executor.buffer)[layout.numel :].numpy()
    mean = np.mean([executor.client_states[c]["control"].astype(np.float64) for c in holding], axis=0)
    np.testing.assert_allclose(control[: len(mean)], mean, rtol=1e-4, atol=1e-7)
    assert np.abs(mean).max() > 1e-3


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_the_loss_of_a_round_is_weighted_as_the_objective_is(weighting, tmp_path):
    """Of clients of 1 to hundreds of samples, each one epoch: sum n_k F_k / sum n_k, or their plain mean."""
    changes = {
        "data.partition": {"kind": "quantity", "alpha": 0.5},
        "aggregation": {"kind": "fedavg", "weighting": weighting},
    }
    training = {
        "rounds": 1,
        "local_epochs": 1,
        "batch_size": 64,
        "optimizer": {"kind": "sgd", "learning_rate": 1e-12},
    }
    file = garments(tmp_path, changes | {"training": training})
    run(file, tmp_path / "run")
    executor = begun(file)
    learner, losses, sizes = executor.clients.model.learner, [], []
    for client, part in executor.clients.client_indices.items():  # under weights that do not move
        shard = executor.clients.shard(client)
        batch = learner.draw(shard, np.arange(len(part)), torch.Generator())
        losses.append(float(learner.loss(batch).detach()))
        sizes.append(len(part))
    assert max(sizes) > 3 * min(sizes)
    expected = np.average(losses, weights=sizes if weighting == "samples" else None)
    assert rows(tmp_path / "run" / "metrics.jsonl")[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_client_whose_loss_is_not_finite_is_left_out_counted_and_shown_and_a_round_of_them_ends_the_run(
    tmp_path, capsys
):
    changes = {"training.local_steps": 3, "training.optimizer.learning_rate": 1e30}
    with pytest.raises(
        RunFailed,
        match=r"no client of round 1 trained; the first: client 0, while training: the loss of step 2 is",
    ):
        run(garments(tmp_path, changes), tmp_path / "all")

    executor = begun(garments(tmp_path, {}))
    others = [1, 2, 4]
    update = executor.clients.run

    def poisoned(round_number, client, *rest):
        done = update(round_number, client, *rest)
        if client not in others:
            executor.clients.model.flat.all[5] = float("nan")
        return done

    executor.clients.run = poisoned
    total, reports, _ = executor.clients.train_all(executor.buffer, {}, 2500, 1, range(5), [None] * 5)
    assert [r.client for r in reports if r.failure] == [0, 3]
    assert "not finite" in reports[0].failure or "nan" in reports[0].failure
    assert total.added == 3
    assert torch.isfinite(total.total).all()


def test_batch_statistics_travel_with_the_weights_and_are_averaged(tmp_path):
    changes = {
        "model": {"kind": "classifier", "network": "resnet18", "resolution": 32},
        "population": {"clients": 2},
        "training.rounds": 1,
        "aggregation": {"kind": "fedadam"},
    }
    executor = begun(garments(tmp_path, changes))
    layout = executor.layout
    assert (
        layout.numel - layout.trained
        == sum(s for n, s in zip(layout.names, layout.sizes, strict=True) if ".running_" in n)
        > 0
    )
    before = layout.tensors(executor.buffer)
    totals = [executor.clients.train_all(executor.buffer, {}, 1, 1, [c], [None])[0].total for c in range(2)]
    held = [len(executor.clients.client_indices[c]) for c in range(2)]
    run_round(executor, 1)
    after = layout.flat(executor.buffer)[layout.trained :]
    start = torch.cat([t.flatten() for n, t in before.items() if ".running_" in n])
    mean = sum(t[layout.trained :] for t in totals) / sum(held)
    assert mean.abs().max() > 1e-4
    assert (after - (start + mean)).abs().max() < 1e-5


def test_those_that_the_clock_lets_in_give_the_same_bits_on_two_hosts(alone, two, cluster):
    asked = parallel(1, [0, 2, 5, 7, 9], False)
    kept = asked.prune(
        {s.id: "late" if s.id == "up-2" else "skipped" if s.id.endswith("-9") else "done" for s in asked}
    )
    assert kept.clients == [0, 5, 7]
    serial = SerialExecutor(alone[1].job)
    for executor in (serial, two):
        begin(executor)
        assert {r.client for r in executor.run_round(kept)} == {0, 5, 7}
    assert sha256(cluster.get(two.buffer)) == sha256(serial.buffer)
