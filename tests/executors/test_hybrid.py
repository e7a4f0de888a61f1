"""Clusters that agree among themselves, below a server."""

import numpy as np
import pytest
import torch

from fedray import checks
from fedray.failures import failed_round
from fedray.planning.plan import plan
from fedray.report import recorded
from fedray.report.recost import simulate_on_network
from fedray.scenario import ScenarioError
from tests.executors.test_node_models import local_end, scenario, stepped
from tests.helpers import TWO_ACTORS, broken_off, job_of, rows, run, unevaluated

HYBRID = {"kind": "hybrid", "clusters": 2}


def hybrid(folder, topology=None, changes=None):
    return scenario(folder, HYBRID | (topology or {}), changes)


def model(executor):
    return executor.layout.view(executor.buffer).double()


def test_clusters_that_agree_in_full_make_it_federated_averaging(tmp_path):
    executor = stepped(hybrid(tmp_path / "a"), 2)[2]
    other = stepped(scenario(tmp_path / "b", {"kind": "parallel"}), 2)[2]
    assert torch.allclose(model(executor), model(other), atol=1e-6, rtol=0)
    assert not torch.equal(model(other), other.layout.view(other.initial).double())


def test_what_a_client_sends_up_is_the_mean_that_its_neighbours_weights_give(tmp_path):
    topology = {"clusters": 1, "graph": "ring", "consensus_rounds": 2}
    (schedule,), _, executor = stepped(hybrid(tmp_path, topology), 1)
    samples = np.array(executor.shared.samples, float)
    w = (np.eye(5) + np.roll(np.eye(5), 1, 0) + np.roll(np.eye(5), -1, 0)) / 3
    (sender,) = (step.sender for step in schedule if getattr(step, "direction", None) == "uplink")
    weighs = (w @ w)[sender] * samples
    begun_with = executor.layout.view(executor.initial).double()
    ends = torch.stack([local_end(executor, 1, client, begun_with) for client in range(5)])
    expected = torch.from_numpy(weighs / weighs.sum()) @ ends
    mixed = torch.from_numpy(w @ w @ np.diag(samples) / (w @ w @ samples)[:, None]) @ ends
    apart = (mixed - torch.from_numpy(samples / samples.sum()) @ ends).square().sum(1).numpy()
    distance = np.sqrt((w @ w @ samples) @ apart / samples.sum())
    assert executor.reports[-1].metrics["consensus_distance"] == pytest.approx(distance, rel=1e-4)
    assert torch.allclose(model(executor), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(model(executor), torch.from_numpy(samples / samples.sum()) @ ends, atol=1e-5)


def test_what_a_client_that_drops_out_would_have_had_of_a_mean_stays_with_its_neighbours(tmp_path):
    device = {"kind": "flops", "peak_flops": 1.0e12, "active_w": 10, "dropout": 0.4}
    (schedule,), _, executor = stepped(hybrid(tmp_path, changes={"seed": 1, "network.device": device}), 1)
    assert schedule.models.clusters == {3: (0, 1, 3), 4: (2, 4)}
    assert sorted(schedule.clients) == [1, 2, 3, 4]
    assert [e.id for e in executor.events if e.outcome == "failed"] == ["mix-0-0"]
    assert list(failed_round(1, executor.events)) == []  # the server has its model
    m = dict(enumerate(executor.shared.samples))
    begun_with = executor.layout.view(executor.initial).double()
    end = {client: local_end(executor, 1, client, begun_with) for client in schedule.clients}
    weighs = {3: 2 / 3 * m[3], 1: 1 / 3 * m[1]}
    first = sum(weight * end[client] for client, weight in weighs.items()) / sum(weighs.values())
    second = (m[2] * end[2] + m[4] * end[4]) / (m[2] + m[4])
    shares = m[1] + m[3], m[2] + m[4]
    expected = (shares[0] * first + shares[1] * second) / sum(shares)
    assert torch.allclose(model(executor), expected, atol=1e-6, rtol=0)


def test_clusters_that_relay_are_a_relay_of_as_many_chains(tmp_path):
    (schedule,), _, executor = stepped(hybrid(tmp_path / "a", {"within": "relay"}), 1)
    (other,), _, chained = stepped(scenario(tmp_path / "b", {"kind": "relay", "chains": 2}), 1)
    assert schedule == other
    assert torch.equal(model(executor), model(chained))


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clusters")
    with unevaluated():
        return folder, run(hybrid(folder, RING), folder / "run")


RING = {"clusters": 2, "graph": "ring", "consensus_rounds": 2}


def test_a_cluster_costs_its_sidelinks_and_one_uplink(clusters):
    folder, _ = clusters
    metrics = rows(folder / "run" / "metrics.jsonl")
    total = plan(checks.check(folder / "garments.yaml"))["total"]
    for name in ("sim_time_s", "energy_j", "bytes_uplink", "bytes_downlink", "bytes_sidelink"):
        assert total[name] == metrics[-1][name]
    model_bytes = total["bytes_downlink"] / 15  # five clients in three rounds
    assert total["bytes_uplink"] == 6 * model_bytes
    # three that each have two neighbours, and two that have one, twice a round, with a number
    assert total["bytes_sidelink"] == 3 * 2 * (6 + 2) * (model_bytes + 8)
    assert all(row["consensus_distance"] >= 0 for row in metrics)
    (recorded_run,) = recorded.read([folder / "run"])
    again = simulate_on_network(recorded_run, folder / "garments.yaml")
    for name in ("sim_time_s", "energy_j"):
        assert again.rows[-1][name] == pytest.approx(metrics[-1][name], rel=1e-12)


def test_actors_and_a_run_that_goes_on_give_the_bits_of_one_process(clusters, tmp_path, cluster):
    folder, result = clusters
    with unevaluated():
        by_actors = run(hybrid(tmp_path, RING, {"runtime": TWO_ACTORS}), tmp_path / "run")
    assert by_actors["weights_sha256"] == result["weights_sha256"]
    measured = [
        [row["consensus_distance"] for row in rows(where / "run" / "metrics.jsonl")]
        for where in (folder, tmp_path)
    ]
    assert measured[0] == measured[1]
    broken_off(folder / "run", tmp_path / "again", 3)
    with unevaluated():
        again = run(folder / "garments.yaml", tmp_path / "again", resume=True)
    assert again["weights_sha256"] == result["weights_sha256"]


@pytest.mark.parametrize(
    ("key", "topology", "changes"),
    [
        ("topology.clusters", {"clusters": 6}, {}),
        ("topology.groups", {"groups": "nearest"}, {}),
        ("topology.graph", {"graph": "random_geometric"}, {}),
        ("topology.graph", {"graph": "ring", "within": "relay"}, {}),
        ("topology.consensus_rounds", {"consensus_rounds": 2, "within": "relay"}, {}),
        ("privacy", {}, {"privacy": {"kind": "central", "clip": 1.0, "noise": 1.0}}),
        ("aggregation.kind", {}, {"aggregation": {"kind": "median"}}),
        ("network.deadline_s", {}, {"network.deadline_s": 100.0}),
    ],
)  # fmt: skip
def test_what_clusters_cannot_be_is_refused(key, topology, changes, tmp_path):
    with pytest.raises(ScenarioError) as e:
        job_of(hybrid(tmp_path, topology, changes))
    assert any(f" {key}" in line or f": {key}" in line for line in str(e.value).splitlines()), str(e.value)
