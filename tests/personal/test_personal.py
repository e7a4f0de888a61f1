"""Models of clients' own: Ditto, FedRep, IFCA, and a user's kind, against closed forms of models of one
or two numbers."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from fedray.data import holdings_for_tests
from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from tests.helpers import garments, job_of, rows, run
from tests.personal.toys import LEVEL, RATE, SUM, WHOLE, executed, level, play, targets, toy, weights

TESTS = {"evaluation": {"every": 1, "clients": {}}}
LONG = {"training": WHOLE | {"local_epochs": 20}}


def ditto(mu, **options):
    return {"personal": {"kind": "ditto", "mu": mu, **options}}


def own(executor, client):
    return float(executor.client_states[client]["personal: model"][0])


# --- Ditto


@pytest.mark.parametrize("mu", [0.0, 0.5, 3.0])
def test_ditto_comes_to_the_optimum_of_quadratic_losses(mu, tmp_path):
    """min_v (v - t)^2 / 2 + mu (v - w)^2 / 2 is (t + mu w) / (1 + mu), and w is the mean of the targets."""
    executor = executed(toy(tmp_path, LONG | ditto(mu)), 3)
    wanted = targets(executor)
    mean = sum(share * wanted[client] for client, share in weights(executor).items())
    assert level(executor) == pytest.approx(mean, abs=2e-3)
    for client, target in wanted.items():
        assert own(executor, client) == pytest.approx((target + mu * mean) / (1 + mu), abs=2e-3)


def test_ditto_s_steps_are_those_of_its_algorithm_by_hand(tmp_path):
    mu = 0.5
    executor = executed(toy(tmp_path, ditto(mu, local_epochs=3)), 0)
    w = level(executor)
    wanted = targets(executor)
    share = weights(executor)
    v = dict.fromkeys(wanted, w)
    for t in (1, 2, 3):
        play(executor, t)
        ends = {}
        for client, target in wanted.items():
            x = w
            for _ in range(2):
                x -= RATE * (x - target)
            ends[client] = x
            for _ in range(3):
                v[client] -= RATE * ((v[client] - target) + mu * (v[client] - w))
        w = sum(share[client] * x for client, x in ends.items())
        assert level(executor) == pytest.approx(w, abs=1e-5)
        assert [own(executor, client) for client in v] == pytest.approx(list(v.values()), abs=1e-5)


def test_ditto_changes_no_bit_of_the_global_model(tmp_path):
    momentum = {"kind": "sgd", "learning_rate": 0.05, "momentum": 0.9}
    small = {"training.optimizer": momentum, "training.local_steps": 2}
    one, other = (
        executed(garments(tmp_path, small | changes, f"{i}.yaml"), 2)
        for i, changes in enumerate(({}, ditto(0.5)))
    )
    assert np.array_equal(one.buffer, other.buffer)
    assert not one.client_states
    assert len(other.client_states) == 5


def test_what_ditto_costs_is_planned(tmp_path):
    without = plan(job_of(toy(tmp_path, {}, "without.yaml"))[0])
    planned = plan(job_of(toy(tmp_path, ditto(0.5, local_epochs=6), "with.yaml"))[0])
    assert planned["client_state_bytes"] == 4
    assert planned["total"]["transfers"] == without["total"]["transfers"]
    for key in ("bytes_uplink", "bytes_downlink"):
        assert planned["total"][key] == without["total"][key]
    # six passes beside two: four times the work of clients, whose time is that of the network else
    whole = plan(job_of(toy(tmp_path, {"training": WHOLE | {"local_epochs": 8}}, "eight.yaml"))[0])
    assert planned["total"]["sim_time_s"] == pytest.approx(whole["total"]["sim_time_s"])
    assert planned["total"]["sim_time_s"] > without["total"]["sim_time_s"]


# --- FedRep


def test_fedrep_trains_the_head_under_the_old_body_and_then_the_body_under_the_new_head(tmp_path):
    momentum = {"kind": "sgd", "learning_rate": RATE, "momentum": 0.9, "weight_decay": 0.1}
    changes = SUM | {"personal": {"kind": "fedrep", "head_epochs": 3}}
    changes = changes | {"training": WHOLE | {"optimizer": momentum}}
    executor = executed(toy(tmp_path, changes), 0)
    wanted = targets(executor)
    share = weights(executor)
    body = 0.0
    heads = dict.fromkeys(wanted, 0.0)
    for t in (1, 2):
        play(executor, t)
        ends = {}
        for client, target in wanted.items():
            v = 0.0
            for _ in range(3):  # the body stays, whatever its momentum or its decay would do
                v = 0.9 * v + (heads[client] + body - target) + 0.1 * heads[client]
                heads[client] -= RATE * v
            b = body
            v = 0.0
            for _ in range(2):
                v = 0.9 * v + (heads[client] + b - target) + 0.1 * b
                b -= RATE * v
            ends[client] = b
        body = sum(share[client] * b for client, b in ends.items())
        assert level(executor) == pytest.approx(body, abs=1e-5)
        kept = [float(executor.client_states[client]["home"][0]) for client in heads]
        assert kept == pytest.approx(list(heads.values()), abs=1e-5)


def test_fedrep_leaves_no_gradient_at_the_part_that_does_not_train(tmp_path, monkeypatch):
    from fedray.executors.own_model import OwnSteps

    seen = []
    take = OwnSteps._gradient

    def watched(self, batch, part):
        loss = take(self, batch, part)
        head = self.training.model.flat.home_layout.trained
        gradient = self.training.optimizer.gradient
        seen.append((part, bool(gradient[:head].any()), bool(gradient[head:].any())))
        return loss

    monkeypatch.setattr(OwnSteps, "_gradient", watched)
    small = {
        "tuning": {"kind": "full", "local": ["network.9.*"]},
        "personal": {"kind": "fedrep", "head_epochs": 1},
        "population": {"clients": 50, "per_round": 1},
    }
    executed(garments(tmp_path, small | {"data.partition": {"kind": "iid"}, "training.batch_size": 50}), 1)
    assert seen == [("home", True, False), ("travelling", False, True)]


def test_the_head_s_steps_cost_no_backward_pass_through_the_body(tmp_path):
    local = {"tuning": {"kind": "full", "local": ["network.9.*"]}}
    loaded, job = job_of(garments(tmp_path, local | {"personal": {"kind": "fedrep"}}))
    from fedray.planning.workload import measure

    counted = measure(loaded.scenario, job.folder)
    assert counted.flops_per_sample / 3.5 < counted.own_flops_per_sample < counted.flops_per_sample / 2


# --- IFCA

EASY = LEVEL | {  # ten clients of a garment each: five on either side of zero
    "population": {"clients": 10, "per_round": 10},
    "data.partition": {"kind": "shards", "per_client": 1},
    "aggregation": {"kind": "ifca", "clusters": 2},
}


def models(executor):
    return executor.layout.view(executor.buffer).tolist()


def test_ifca_recovers_two_obvious_clusters_and_averages_each_by_itself(tmp_path):
    executor = executed(toy(tmp_path, EASY | LONG), 0)
    assert min(models(executor)) < 0 < max(models(executor))  # as its seed has drawn them
    for t in (1, 2):
        play(executor, t)
    assert sorted(models(executor)) == pytest.approx([-2.5, 2.5], abs=1e-3)


def test_a_round_of_ifca_is_that_of_its_algorithm_by_hand(tmp_path):
    uneven = {"data.partition": {"kind": "dirichlet", "alpha": 0.3}, "population": {"clients": 6}}
    executor = executed(toy(tmp_path, EASY | uneven), 0)
    before = models(executor)
    wanted = targets(executor)
    share = weights(executor)
    play(executor, 1)
    members = {0: [], 1: []}
    for client, target in wanted.items():
        members[int(abs(before[1] - target) < abs(before[0] - target))].append(client)
    for cluster, clients in members.items():
        expected = before[cluster]
        if clients:
            total = sum(share[client] for client in clients)
            ends = {c: wanted[c] + (before[cluster] - wanted[c]) * (1 - RATE) ** 2 for c in clients}
            expected = sum(share[c] / total * ends[c] for c in clients)
        assert models(executor)[cluster] == pytest.approx(expected, abs=1e-5)
    assert all(members.values())


def test_between_models_of_equal_loss_clients_draw_and_a_model_that_nobody_chooses_stays(tmp_path):
    import torch

    from fedray.aggregation.ifca import Ifca
    from fedray.randomness import generator
    from fedray.scenario.aggregation import Ifca as Section
    from fedray.transport.buffer import Layout

    rule = Ifca(Section(kind="ifca", clusters=3), Layout(("w",), ((2,),), "fp32", 2))
    drawn = {rule.choose([1.0, 1.0, 2.0], generator(0, 1, client, "cluster")) for client in range(20)}
    assert drawn == {0, 1}
    assert rule.choose([3.0, 2.5, 2.0], generator(0, 1, 0, "cluster")) == 2
    old = torch.arange(6, dtype=torch.float64)
    summed = rule.contribution(old.float(), torch.tensor([1.0, 3.0])).double()
    assert rule.step(old, summed / 4, {}, 1.0, 0)[0].tolist() == [0, 1, 2, 3, 5, 8]


def test_all_clusters_models_go_down_and_one_update_up(tmp_path):
    planned = plan(job_of(garments(tmp_path, {"aggregation": {"kind": "ifca", "clusters": 3}}))[0])
    assert planned["payload_bytes_downlink"] == 3 * planned["payload_bytes"]
    assert planned["payload_bytes_uplink"] == planned["payload_bytes"] + 4
    assert any("first of the clusters' models" in note for note in planned["notes"])


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    """A whole run of IFCA, which is evaluated after each round; its folder."""
    folder = tmp_path_factory.mktemp("ifca")
    run(toy(folder, EASY | TESTS), folder / "run")
    return folder / "run"


def test_a_client_is_tested_with_the_model_that_it_would_choose(clustered):
    first = load_file(clustered / "model" / "model.safetensors")["w"].item()
    second = load_file(clustered / "model" / "cluster-2" / "model.safetensors")["w"].item()
    last = [row for row in rows(clustered / "client_tests.jsonl") if row["round"] == 2]
    assert len(last) == 10
    levels = [min((w - t) ** 2 / 2 for w in (first, second)) for t in np.arange(10) - 4.5]
    assert sorted(row["loss"] for row in last) == pytest.approx(sorted(levels), abs=1e-5)


# --- a user's own kind


def test_a_kind_of_one_s_own_keeps_its_model_and_is_tested_with_it(tmp_path):
    kind = {"personal": {"kind": "toys:Halfway"}}
    file = toy(tmp_path, kind | TESTS)
    result = run(file, tmp_path / "run")
    _, job = job_of(file)
    samples, held = holdings_for_tests(job.scenario, job.folder)
    tested = [row for row in rows(tmp_path / "run" / "client_tests.jsonl") if row["round"] == 2]
    assert result["final"]["eval_clients"] == len(tested) == 4
    for row in tested:
        state = tmp_path / "run" / "checkpoints" / "round-0002" / f"client-{row['client']}.safetensors"
        own_level = load_file(state)["personal: own"].item()
        wanted = samples.labels[held[row["client"]]] - 4.5
        assert row["loss"] == pytest.approx(np.mean((own_level - wanted) ** 2) / 2, rel=1e-5)


def test_a_kind_that_keeps_what_its_section_does_not_say_is_named(tmp_path):
    from fedray.executors import StepFailed

    with pytest.raises(StepFailed, match=r"toys:Forgetful: keeps own, expected keeps_state = True"):
        executed(toy(tmp_path, {"personal": {"kind": "toys:Forgetful"}}), 1)


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"personal": {"kind": "fedrep"}}, r"personal\.kind: got fedrep, with nothing that stays at home"),
        (
            ditto(1.0) | {"topology": {"kind": "split", "cut": "conv1", "may_send": ["labels"]}},
            r"personal\.kind: got ditto in a split, expected topology\.kind parallel or relay",
        ),
        ({"personal": {"kind": "dito", "mu": 1}}, r"personal\.kind: .*ditto"),
        (ditto(-1.0), r"personal\.mu: got -1"),
        (
            {"aggregation": {"kind": "ifca", "clusters": 2}, "ledger": {}},
            r"ledger: got one beside ifca, expected none",
        ),
        ({"aggregation": {"kind": "ifca", "clusters": 1}}, r"aggregation\.clusters: got 1"),
    ],
    ids=json.dumps,
)
def test_what_cannot_work_is_refused_with_its_line(changes, line, tmp_path):
    with pytest.raises(ScenarioError, match=r":\d+: " + line):
        job_of(garments(tmp_path, changes))


def test_ifca_in_a_relay_is_refused(tmp_path):
    relay = {"aggregation": {"kind": "ifca", "clusters": 2}, "topology": {"kind": "relay"}}
    with pytest.raises(ScenarioError, match=r"aggregation\.kind: got ifca, which makes its own"):
        plan(job_of(garments(tmp_path, relay))[0])
