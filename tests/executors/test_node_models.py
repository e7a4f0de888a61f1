"""Runs of several models, of clients or of edge servers: what becomes of the models, and the same bits
wherever they run."""

import pytest
import torch

from fedray import checks
from fedray.executors.client_tests import GlobalModel
from fedray.network.clock import time_round
from fedray.network.ledger import Ledger
from fedray.network.radio import Radio
from fedray.planning.plan import plan
from fedray.planning.rounds import rounds_of
from fedray.planning.workload import measure
from fedray.report import page, recorded
from fedray.report.recost import simulate_on_network
from fedray.scenario import ScenarioError
from tests.helpers import ONE_ACTOR, begun, broken_off, garments, job_of, rows, run, timeless, unevaluated

PUSHED = {"graph": "directed_ring", "mixing": "push_sum"}
TESTED = {"evaluation": {"clients": {}}}
UNIFORM = {"aggregation": {"kind": "fedavg", "weighting": "uniform"}}


def scenario(folder, topology=None, changes=None):
    changed = {"topology": {"kind": "gossip"} | (topology or {}), "training.rounds": 3} | (changes or {})
    return garments(folder, changed)


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ring")
    with unevaluated():
        return folder, run(scenario(folder, PUSHED, TESTED), folder / "run")


def stepped(file, rounds):
    """Each round's schedule, the nodes' numbers before and after each round, and the executor."""
    executor = begun(file)
    scenario = executor.job.scenario
    work = measure(scenario, executor.job.folder).of(scenario, executor.shared.samples)
    radio = Radio(scenario.network, scenario.population.clients, scenario.seed, executor.job.folder)
    planned = rounds_of(scenario, radio, work, executor.shared)
    ledger = Ledger()
    models = [numbers(executor)]
    schedules = []
    for t in range(1, rounds + 1):
        schedule = planned.schedule(t, ledger)
        events = planned.events(schedule, ledger)
        executor.events = events
        ledger = ledger.add(events, schedule)
        schedules.append(schedule.prune({e.id: e.outcome for e in events}))
        executor.reports = list(executor.run_round(schedules[-1]))
        models.append(numbers(executor))
    return schedules, models, executor


def numbers(executor):
    """The nodes' models [nodes, numbers] float64."""
    nodes = range(executor.job.scenario.topology.nodes(executor.job.scenario.population.clients))
    return torch.stack([executor.layout.view(executor.versions.node(n)).double() for n in nodes])


def local_end(executor, round_number, client, base):
    """Where a client's local update from a model ends."""
    end, _ = executor.clients.train_apart(round_number, client, base.float().numpy())
    return torch.from_numpy(end).double()


def test_a_run_says_how_far_models_are_apart_and_costs_what_was_planned(ring):
    folder, _ = ring
    metrics = rows(folder / "run" / "metrics.jsonl")
    assert all(row["consensus_distance"] > 0 for row in metrics)
    total = plan(checks.check(folder / "garments.yaml"))["total"]
    for name in ("sim_time_s", "energy_j", "bytes_uplink", "bytes_sidelink"):
        assert total[name] == metrics[-1][name]
    assert total["transfers"] == 3 * 5
    model_bytes = 900136
    assert total["bytes_sidelink"] == 15 * (model_bytes + 8)  # and the number by which it is divided
    assert total["bytes_uplink"] == total["bytes_downlink"] == 0


def test_each_model_becomes_the_weighted_mean_of_its_own_and_its_neighbours(tmp_path):
    _, models, executor = stepped(scenario(tmp_path, changes={"population": {"clients": 4}}), 2)
    for t, before in enumerate(models[:-1], 1):
        ends = [local_end(executor, t, client, before[client]) for client in range(4)]
        for i in range(4):
            expected = (ends[i - 1] + ends[i] + ends[(i + 1) % 4]) / 3
            assert torch.allclose(models[t][i], expected, atol=1e-6, rtol=0)
    mean = executor.layout.view(executor.buffer).double()
    assert torch.allclose(mean, models[-1].mean(0), atol=1e-7, rtol=0)


def test_two_clients_end_each_round_with_one_model(tmp_path):
    _, models, executor = stepped(scenario(tmp_path, changes={"population": {"clients": 2}}), 1)
    ends = [local_end(executor, 1, client, models[0][client]) for client in range(2)]
    for model in models[1]:
        assert torch.allclose(model, (ends[0] + ends[1]) / 2, atol=1e-7, rtol=0)


def test_who_does_not_take_part_keeps_its_model(tmp_path):
    changes = {"population": {"clients": 5, "per_round": 3}}
    schedules, models, _ = stepped(scenario(tmp_path, changes=changes), 1)
    for client in range(5):
        assert torch.equal(models[1][client], models[0][client]) == (client not in schedules[0].clients)


def test_gossip_with_everybody_is_federated_averaging(tmp_path):
    models = stepped(scenario(tmp_path, {"graph": "complete"}), 2)[1]
    other = stepped(scenario(tmp_path, {"kind": "parallel"}, UNIFORM), 2)[2]
    expected = other.layout.view(other.buffer).double()
    for model in models[-1]:
        assert torch.allclose(model, expected, atol=1e-6, rtol=0)


def test_actors_give_the_bits_of_one_process(ring, tmp_path, cluster):
    with unevaluated():
        result = run(scenario(tmp_path, PUSHED, TESTED | {"runtime": ONE_ACTOR}), tmp_path / "run")
    assert result["weights_sha256"] == ring[1]["weights_sha256"]
    assert [row["consensus_distance"] for row in rows(tmp_path / "run" / "metrics.jsonl")] == [
        row["consensus_distance"] for row in rows(ring[0] / "run" / "metrics.jsonl")
    ]

    tests = [rows(where / "run" / "client_tests.jsonl") for where in (tmp_path, ring[0])]
    assert tests[0] == tests[1] != []


def test_each_client_tests_its_own_model(tmp_path):
    _, _, executor = stepped(scenario(tmp_path, changes=TESTED | {"training.local_steps": 8}), 2)
    got = executor.test_clients(2).result()
    assert [row["client"] for row in got] == list(range(5))
    for row in got:
        own = GlobalModel(2, executor.versions.node(row["client"]), {})
        assert executor.clients.test_clients(own, [row["client"]], {}) == [row]
    mean = executor.clients.test_clients(GlobalModel(2, executor.buffer, {}), range(5), {})
    assert [row["loss"] for row in mean] != [row["loss"] for row in got]


def test_a_run_goes_on_with_every_clients_model(ring, tmp_path):
    folder, result = ring
    broken_off(folder / "run", tmp_path / "run", 3)
    with unevaluated():
        again = run(folder / "garments.yaml", tmp_path / "run", resume=True)
    assert again["weights_sha256"] == result["weights_sha256"]
    assert timeless(rows(tmp_path / "run" / "metrics.jsonl")) == timeless(
        rows(folder / "run" / "metrics.jsonl")
    )


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("topology.graph", {"topology.graph": "directed_ring"}),
        ("topology.graph", {"topology.graph": "random_geometric"}),
        ("network.deadline_s", {"network.deadline_s": 100.0}),
        ("aggregation.kind", {"aggregation": {"kind": "scaffold"}}),
        ("aggregation.kind", {"aggregation": {"kind": "median"}}),
        ("aggregation.transforms", {"aggregation": {"kind": "fedavg", "transforms": [{"kind": "quantize"}]}}),
        ("secure_aggregation", {"secure_aggregation": {"kind": "pairwise"}}),
        ("privacy", {"privacy": {"kind": "central", "clip": 1.0, "noise": 1.0}}),
        ("ledger", {"ledger": {}}),
        ("incentive", {"incentive": {"kind": "reverse_auction", "second_price": 1.0, "unit_value": 1.0}}),
        ("tuning.payload", {"tuning": {"kind": "full", "payload": "fp16"}}),
    ],
)  # fmt: skip
def test_what_needs_one_model_is_refused_beside_gossip(key, changes, tmp_path):
    with pytest.raises(ScenarioError) as e:
        job_of(scenario(tmp_path, changes=changes))
    assert any(f" {key}" in line or f": {key}" in line for line in str(e.value).splitlines()), str(e.value)


def test_a_rule_whose_server_keeps_moments_is_refused(tmp_path):
    with pytest.raises(ScenarioError, match="keeps nothing between rounds"):
        plan(checks.check(scenario(tmp_path, changes={"aggregation": {"kind": "fedadam"}})))


BACKHAUL = {"kind": "fixed", "rate_bps": 1.0e9, "latency_s": 0.02}
EDGES = {"kind": "hierarchical", "edges": 2, "edge_rounds": 2}


def hierarchy(folder, topology=None, changes=None):
    return scenario(folder, EDGES | (topology or {}), {"network.backhaul": BACKHAUL} | (changes or {}))


@pytest.fixture(scope="module")
def edges(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edges")
    with unevaluated():
        return folder, run(hierarchy(folder), folder / "run")


def test_edges_average_their_own_clients_and_the_server_every_other_round(tmp_path):
    _, models, executor = stepped(hierarchy(tmp_path), 3)
    samples = executor.shared.samples
    members = [[0, 1, 2], [3, 4]]
    for t, before in enumerate(models[:-1], 1):
        expected = []
        for edge, clients in enumerate(members):
            total = sum(samples[c] for c in clients)
            ends = [samples[c] / total * local_end(executor, t, c, before[edge]) for c in clients]
            expected.append(torch.stack(ends).sum(0))
        held = [sum(samples[c] for c in clients) for clients in members]
        mean = (held[0] * expected[0] + held[1] * expected[1]) / sum(held)
        for edge in range(2):
            after = mean if t == 2 else expected[edge]
            assert torch.allclose(models[t][edge], after, atol=1e-6, rtol=0)
    evaluated = executor.layout.view(executor.buffer).double()
    assert torch.allclose(evaluated, mean, atol=1e-6, rtol=0)


def test_a_server_that_averages_in_every_round_makes_it_federated_averaging(tmp_path):
    executor = stepped(hierarchy(tmp_path, {"edge_rounds": 1}), 2)[2]
    other = stepped(scenario(tmp_path, {"kind": "parallel"}), 2)[2]
    expected, got = (e.layout.view(e.buffer).double() for e in (other, executor))
    assert torch.allclose(got, expected, atol=1e-6, rtol=0)
    assert not torch.equal(expected, other.layout.view(other.initial).double())


def test_a_hierarchy_costs_what_was_planned_and_its_backhaul_is_used_when_the_server_averages(edges):
    folder, _ = edges
    metrics = rows(folder / "run" / "metrics.jsonl")
    total = plan(checks.check(folder / "garments.yaml"))["total"]
    for name in ("sim_time_s", "energy_j", "bytes_uplink", "bytes_downlink", "bytes_backhaul"):
        assert total[name] == metrics[-1][name]
    events = rows(folder / "run" / "timeline.jsonl")
    backhaul = [(e["round"], e["node"], e["peer"]) for e in events if e["direction"] == "backhaul"]
    assert backhaul == [
        (2, "edge-0", "server"), (2, "edge-1", "server"), (3, "server", "edge-0"), (3, "server", "edge-1")
    ]  # fmt: skip
    model_bytes = metrics[0]["bytes_uplink"] / 5
    assert total["bytes_backhaul"] == 4 * model_bytes
    (sent,) = [e for e in events if e["id"] == "up-edge-0"]
    assert sent["t1_s"] - sent["t0_s"] == pytest.approx(0.02 + 8 * model_bytes / 1e9)
    ups = {e["peer"] for e in events if e["direction"] == "uplink"}
    assert ups == {"edge-0", "edge-1"}
    page.write([folder / "run"], folder / "report.html")
    assert "backhaul" in (folder / "report.html").read_text()


def test_a_hierarchy_goes_on_to_the_same_bits(edges, tmp_path):
    folder, result = edges
    broken_off(folder / "run", tmp_path / "run", 3)
    with unevaluated():
        again = run(folder / "garments.yaml", tmp_path / "run", resume=True)
    assert again["weights_sha256"] == result["weights_sha256"]


def test_an_edge_server_without_clients_or_a_way_up_is_refused(tmp_path):
    with pytest.raises(ScenarioError, match=r"topology.edges: got 6, expected at most"):
        job_of(hierarchy(tmp_path, {"edges": 6}))
    with pytest.raises(ScenarioError, match=r"network.backhaul: got nothing"):
        job_of(scenario(tmp_path, EDGES))


APART = {
    "topology.graph": "random_geometric",
    "network.cell": {
        "placement": {"kind": "places", "at": [[0, 35], [50, 35], [100, 35], [40000, 35], [40050, 35]]}
    },
}


def test_devices_out_of_range_of_each_other_are_refused_by_the_parts_they_form(tmp_path):
    sidelink = {"kind": "sidelink", "model": "d2d", "frequency_hz": 3.5e9, "bandwidth_hz": 20.0e6}
    file = scenario(tmp_path, changes=APART | {"network.sidelink": sidelink})
    with pytest.raises(ScenarioError, match=r"in 2 parts: \{0, 1, 2\} and \{3, 4\}"):
        plan(checks.check(file))


def test_a_recorded_run_of_several_models_costs_the_same_again_on_its_own_network(ring, edges):
    for folder, _ in (ring, edges):
        (recorded_run,) = recorded.read([folder / "run"])
        again = simulate_on_network(recorded_run, folder / "garments.yaml")
        for row, other in zip(recorded_run.rows, again.rows, strict=True):
            assert other["sim_time_s"] == pytest.approx(row["sim_time_s"], rel=1e-12)
            assert other["energy_j"] == pytest.approx(row["energy_j"], rel=1e-12)


def test_no_server_waits_in_gossip_and_edge_servers_do(tmp_path):
    idle = {"network.server": {"kind": "flops", "peak_flops": 1.0e12, "active_w": 50, "idle_w": 20}}
    waits = {}
    for file in (scenario(tmp_path / "a", changes=idle), hierarchy(tmp_path / "b", changes=idle)):
        (schedule,), _, executor = stepped(file, 1)
        loaded = executor.job.scenario
        work = measure(loaded, executor.job.folder).of(loaded, executor.shared.samples)
        events = time_round(schedule, work, Radio(loaded.network, 5, 0), 0.0)
        waits[loaded.topology.kind] = {e.node for e in events if e.event == "wait"}
    assert waits == {"gossip": set(), "hierarchical": {"edge-0", "edge-1"}}
