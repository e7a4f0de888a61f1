"""Several clients in one forward pass (`runtime.gang`): which form one, and that each ends where it
ends alone."""

import dataclasses
import json
import math
import shutil

import pytest
import torch

from fedray import shipped
from fedray.network.radio import Radio
from fedray.planning.gangs import gangs
from fedray.planning.plan import plan
from fedray.planning.round import schedule_round
from fedray.scenario import ScenarioError
from fedray.transport.buffer import sha256
from tests.helpers import begun, garments, job_of, tiny, unevaluated

PARALLEL = {"topology": {"kind": "parallel"}, "evaluation": {}, "training.batch_size": 2}
BROKEN = 1  # the client whose latents are not finite


def gang_of(k, folder, changes=None):
    runtime = {"executor": "serial", "gang": k}
    return tiny(folder, PARALLEL | {"runtime": runtime} | (changes or {}), f"gang-{k}.yaml")


def trained(file, rounds):
    """A serial executor after so many rounds, and its reports."""
    executor = begun(file)
    scenario = executor.job.scenario
    radio = Radio(scenario.network)
    return executor, [
        r for t in range(1, rounds + 1) for r in executor.run_round(schedule_round(scenario, radio, t))
    ]


def numbers(executor):
    return executor.layout.view(executor.buffer)


@pytest.fixture(scope="module")
def threes(tmp_path_factory):
    """Five clients, three and two of them in a gang, after a round of two steps: the executor, and its
    reports."""
    folder = tmp_path_factory.mktemp("gangs")
    return trained(gang_of(3, folder, {"training.local_steps": 2}), 1)


def test_a_gang_ends_where_its_clients_end_one_after_another(threes, tmp_path):
    executor, reports = threes
    alone, expected = trained(gang_of(1, tmp_path, {"training.local_steps": 2}), 1)
    assert [(r.client, r.samples, r.steps) for r in reports] == [
        (r.client, r.samples, r.steps) for r in expected
    ]
    assert [r.loss for r in reports] == pytest.approx([r.loss for r in expected], rel=1e-5)
    change = numbers(alone) - alone.layout.view(alone.initial)
    error = numbers(executor) - numbers(alone)
    assert error.norm() < 3e-3 * change.norm()  # Adam's first steps are signs, also of gradients near 0
    assert error.abs().median() < 1e-6 * change.abs().median()


def test_in_a_gang_each_client_accumulates_batches_of_its_own(threes, tmp_path):
    steps = {"training.local_steps": 2, "training.batch_size": 1, "training.accumulate": 2}
    executor, reports = trained(gang_of(3, tmp_path, steps), 1)
    expected, told = threes
    assert [r.loss for r in reports] == pytest.approx([r.loss for r in told], rel=1e-5)
    change = numbers(expected) - expected.layout.view(expected.initial)
    assert (numbers(executor) - numbers(expected)).norm() < 3e-3 * change.norm()


def test_scaffold_in_a_gang_corrects_each_client_by_its_own_control_variate(tmp_path):
    changes = {
        "aggregation": {"kind": "scaffold"},
        "population": {"clients": 5, "per_round": 3},
        "training.optimizer": {"kind": "sgd", "learning_rate": 0.1},
    }
    (together, _), (alone, _) = (trained(gang_of(k, tmp_path, changes), 2) for k in (3, 1))
    assert torch.allclose(numbers(together), numbers(alone), rtol=1e-4, atol=1e-6)
    assert together.client_states.keys() == alone.client_states.keys()
    for client in alone.client_states:
        got = torch.from_numpy(together.client_states[client]["control"])
        expected = torch.from_numpy(alone.client_states[client]["control"])
        assert (got - expected).norm() < 1e-4 * expected.norm()


def test_a_client_that_fails_is_dropped_and_changes_nothing_of_the_others(threes, tmp_path, monkeypatch):
    file = gang_of(3, tmp_path, {"training.local_steps": 2})
    executor = begun(file)
    learner = executor.clients.learner
    draw = learner.draw
    of_broken = executor.clients.shard(BROKEN)

    def broken(shard, indices, generator):
        batch = draw(shard, indices, generator)
        return dataclasses.replace(batch, latents=batch.latents * math.nan) if shard is of_broken else batch

    monkeypatch.setattr(learner, "draw", broken)
    scenario = executor.job.scenario
    reports = list(executor.run_round(schedule_round(scenario, Radio(scenario.network), 1)))
    (failed,) = (r for r in reports if r.failure)
    assert failed.client == BROKEN
    assert "the loss of step 1 is nan" in failed.failure
    assert [r for r in reports if not r.failure] == [r for r in threes[1] if r.client != BROKEN]


@pytest.mark.parametrize("actors", [1, 2])
def test_any_number_of_actors_gives_the_bits_of_one_process(actors, cluster, ray_hosts, threes, monkeypatch):
    monkeypatch.setattr(ray_hosts, "hosts", ray_hosts.hosts[:actors])
    ray_hosts.begin(threes[0].shared)
    scenario = ray_hosts.job.scenario
    reports = list(ray_hosts.run_round(schedule_round(scenario, Radio(scenario.network), 1)))
    assert sha256(cluster.get(ray_hosts.buffer)) == sha256(threes[0].buffer)
    by_client = {r.client: r for r in threes[1]}
    assert {r.client: r for r in reports} == by_client


@pytest.fixture(scope="module")
def ray_hosts(cluster, threes):
    from fedray.executors.ray.executor import RayExecutor

    scenario = threes[0].job.scenario
    runtime = scenario.runtime.model_copy(update={"executor": "ray", "actors": 2})
    on_ray = scenario.model_copy(update={"runtime": runtime})
    with unevaluated():
        executor = RayExecutor(dataclasses.replace(threes[0].job, scenario=on_ray))
    yield executor
    executor.close()


def test_gangs_are_of_equal_batches_in_the_rounds_order_and_a_share_of_them_gives_them_again(tmp_path):
    changes = {"training.local_steps": None, "training.local_epochs": 1}
    scenario = job_of(gang_of(2, tmp_path, changes))[0].scenario
    samples = {7: 8, 3: 5, 4: 8, 0: 8, 9: 5, 2: 8, 1: 8}
    formed = gangs(scenario, list(samples), samples.__getitem__)
    assert formed == [[7, 4], [3, 9], [0, 2], [1]]
    share = [*formed[2], *formed[1], *formed[3]]
    assert gangs(scenario, share, samples.__getitem__) == [[0, 2], [3, 9], [1]]


def test_clients_of_two_sites_never_form_a_gang(tmp_path):
    sites = {"a": {"clients": [0, 2]}, "b": {"clients": [1, 3, 4]}}
    scenario = job_of(gang_of(4, tmp_path))[0].scenario
    data = type("Data", (), {"clients_at_sites": lambda self: {s: c["clients"] for s, c in sites.items()}})()
    assert gangs(scenario.model_copy(update={"data": data}), range(5), lambda client: 8) == [
        [0, 2],
        [1, 3, 4],
    ]


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"tuning": {"kind": "full"}}, "got 4 with tuning full, expected 1, or tuning.kind lora"),
        ({"tuning.ranks": [2, 4]}, "got 4 with tuning.ranks, expected 1, or one rank"),
        ({"topology": {"kind": "relay"}}, "got 4 with topology relay, expected 1, or topology.kind parallel"),
        ({"tuning.dropout": 0.1}, "tuning.dropout: got 0.1, expected 0 with runtime.gang"),
    ],
)
def test_what_cannot_train_in_a_gang_is_refused_before_anything_trains(changes, refused, tmp_path):
    with pytest.raises(ScenarioError, match=refused):
        job_of(gang_of(4, tmp_path, changes))


def test_a_text_encoder_that_drops_numbers_is_refused_before_anything_trains(tmp_path):
    base = tmp_path / "base"
    shutil.copytree(shipped.HERE / "tiny-sd", base)
    config = base / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"attention_dropout": 0.1}))
    loaded, _ = job_of(gang_of(2, tmp_path, {"model.base": str(base)}))
    with pytest.raises(ScenarioError, match=r"runtime\.gang: got 2 with text_encoder\..*, which drops 0\.1"):
        plan(loaded)


def test_a_model_without_samples_side_by_side_is_refused(tmp_path):
    runtime = {"executor": "serial", "gang": 4}
    with pytest.raises(ScenarioError, match="got 4 with model classifier, expected 1"):
        job_of(garments(tmp_path, {"runtime": runtime}))
