"""Attackers in rounds: who they are, where they stand, and what becomes of what they send."""

import pytest
import torch

from fedray.adversary.attackers import Attackers
from fedray.aggregation.accumulators import ExactSum, Gathered
from fedray.aggregation.rules import rule
from fedray.executors import chains
from fedray.network.radio import Radio
from fedray.planning.round import schedule_round
from fedray.randomness import SERVER
from fedray.scenario import ScenarioError
from fedray.transport.buffer import Layout
from fedray.transport.compression import hook_chain
from fedray.transport.hooks import HookContext
from tests.helpers import TWO_ACTORS, garments, job_of, rows, run

FLIP = {"kind": "sign_flip", "scale": 5.0}
BACKDOOR = {"kind": "backdoor", "target": "bag"}


def scenario(tmp_path, changes):
    return job_of(garments(tmp_path, changes))[1].scenario


def test_a_share_of_the_clients_is_drawn_from_the_seed(tmp_path):
    many = {"population": {"clients": 40, "per_round": 5}, "adversary": {"share": 0.2, "attack": FLIP}}
    first = scenario(tmp_path, many).attackers
    assert len(first) == 8
    assert first == scenario(tmp_path, many).attackers
    assert first != scenario(tmp_path, many | {"seed": 1}).attackers


def test_attackers_are_honest_before_their_first_round(tmp_path):
    late = scenario(tmp_path, {"adversary": {"clients": [1], "from_round": 2, "attack": FLIP}})
    assert [late.attackers_in(r) for r in (1, 2)] == [frozenset(), {1}]


@pytest.mark.parametrize(("place", "at"), [("first", 0), ("last", -1)])
def test_an_attacker_stands_where_its_place_says(place, at, tmp_path):
    relay = {
        "topology": {"kind": "relay"},
        "adversary": {"clients": [2], "place": place, "attack": FLIP},
    }
    _, job = job_of(garments(tmp_path, relay))
    radio = Radio(job.scenario.network, job.scenario.population.clients, job.scenario.seed)
    for round_number in (1, 2, 3):
        (chain,) = chains(schedule_round(job.scenario, radio, round_number))
        assert chain[at] == 2
        assert sorted(chain) == list(range(5))


@pytest.mark.parametrize(("attack", "own"), [(FLIP, True), ({"kind": "misreport", "factor": 2.0}, False)])
def test_an_attacker_on_bids_alone_sends_as_honest_clients_do(attack, own, tmp_path):
    known = scenario(
        tmp_path,
        {
            "adversary": {"clients": [1], "attack": attack},
            "incentive": {"kind": "auction"},
            "aggregation": {"kind": "fedavg", "transforms": [{"kind": "clip", "norm": 1.0}]},
        },
    )
    hooks = hook_chain(known)
    context = HookContext(known.seed, 1, 1)
    assert (Attackers(known).sender(hooks, context) is not hooks) == own


def test_colluders_replace_their_updates_and_leave_the_others(tmp_path):
    changes = {"adversary": {"clients": [1, 4], "attack": {"kind": "ipm", "epsilon": 1.0}}}
    known = scenario(tmp_path, changes)
    attackers = Attackers(known)
    layout = Layout.of({"w": torch.zeros(2)}, "fp32")
    mean = rule(known.aggregation, layout)
    arrived = attackers.empty(mean, 4)
    assert isinstance(arrived, Gathered)
    for client, value in ((4, 9.0), (0, 1.0), (1, 7.0), (2, 3.0)):
        arrived.add(torch.full((2,), value), 1, client)
    result = attackers.colluded(mean, arrived, 1, HookContext(0, 1, SERVER))
    assert isinstance(result, ExactSum)
    # honest 1 and 3, whose mean is 2: (1 + 3 - 2 - 2) / 4
    assert torch.equal(result.result(1, slice(0, 2)), torch.zeros(1, 2, dtype=torch.float64))
    assert result.added == 4


def test_an_attacker_outweighs_others_by_the_samples_that_it_claims(tmp_path):
    claims = {"adversary": {"clients": [1], "claimed_samples": 10.0, "attack": FLIP}}
    known = scenario(tmp_path, claims)
    assert [known.weight(c, 20) for c in (0, 1)] == [20, 200]
    honest = run(garments(tmp_path, {}), tmp_path / "honest")
    claims["adversary"]["attack"] = {"kind": "scale", "factor": 1.0}
    lied = run(garments(tmp_path, claims), tmp_path / "lied")
    assert honest["weights_sha256"] != lied["weights_sha256"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    return run(garments(folder, {}), folder / "run")


def test_a_scaled_update_of_factor_one_is_an_honest_one(clean, tmp_path):
    same = {"adversary": {"clients": [1], "attack": {"kind": "scale", "factor": 1.0}}}
    assert run(garments(tmp_path, same), tmp_path / "run")["weights_sha256"] == clean["weights_sha256"]


def test_an_attack_that_begins_behind_the_last_round_is_measured_and_changes_nothing(clean, tmp_path):
    never = {"adversary": {"clients": [1], "from_round": 3, "attack": BACKDOOR}}
    result = run(garments(tmp_path, never), tmp_path / "run")
    assert result["weights_sha256"] == clean["weights_sha256"]
    assert 0 <= result["final"]["eval_attack_success"] <= 1


def test_a_backdoor_is_measured_by_what_it_was_made_for(tmp_path):
    changes = {"adversary": {"share": 0.4, "attack": [BACKDOOR, {"kind": "model_replacement"}]}}
    result = run(garments(tmp_path, changes), tmp_path / "run")
    assert 0 <= result["final"]["eval_attack_success"] <= 1
    assert result["final"]["eval_accuracy"] < 1


def test_a_free_rider_trains_nothing_and_costs_no_work(tmp_path):
    changes = {"adversary": {"clients": [1], "attack": {"kind": "free_rider"}}}
    run(garments(tmp_path, changes), tmp_path / "run")
    flops = {
        step["node"]: step["flops"]
        for step in rows(tmp_path / "run" / "timeline.jsonl")
        if step["event"] == "train" and step["round"] == 1
    }
    idle = [node for node, work in flops.items() if work == 0]
    assert len(idle) == 1
    assert len(flops) == 5


def test_attackers_on_ray_give_the_bits_of_one_process(cluster, weights_alone, tmp_path):
    changes = {"adversary": {"share": 0.4, "attack": [BACKDOOR, {"kind": "alie", "z": 1.0}]}}
    alone = run(garments(tmp_path, changes), tmp_path / "serial")
    together = run(garments(tmp_path, changes | {"runtime": TWO_ACTORS}), tmp_path / "ray")
    assert together["weights_sha256"] == alone["weights_sha256"]


def test_attackers_of_a_split_and_a_relay_change_what_is_learnt(tmp_path):
    relay = {"topology": {"kind": "relay"}}
    split = {"topology": {"kind": "split", "variant": "splitfed_v1", "cut": "conv2", "tail": "loss"}}
    for name, topology in (("relay", relay), ("split", split)):
        honest = run(garments(tmp_path, topology), tmp_path / f"{name} honest")
        for attack in (FLIP, BACKDOOR):
            attacked = topology | {"adversary": {"clients": [1], "attack": attack}}
            result = run(garments(tmp_path, attacked), tmp_path / f"{name} {attack['kind']}")
            assert result["weights_sha256"] != honest["weights_sha256"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"clients": [9]}, "numbers from 0 to 4"),
        ({"share": 0.2}, "one of them"),
        ({"clients": None}, "one of them"),
        ({"place": "last"}, "only a relay has an order"),
        ({"attack": {"kind": "trigger_word", "word": "zorb", "target": "bag"}}, "text_to_image"),
        ({"attack": [{"kind": "alie"}, {"kind": "ipm"}]}, "one of alie and ipm"),
        ({"attack": {"kind": "backdoor", "target": "bag", "share": 0}}, "adversary.attack"),
        ({"attack": {"kind": "free_rider"}, "from_round": 2}, "1, or another attack"),
    ],
)
def test_an_adversary_that_cannot_be_is_refused(changes, expected, tmp_path):
    adversary = {"clients": [1], "attack": FLIP} | changes
    if adversary["clients"] is None:
        del adversary["clients"]
    with pytest.raises(ScenarioError, match=expected):
        job_of(garments(tmp_path, {"adversary": adversary}))


def test_colluders_are_refused_where_no_server_has_all_updates(tmp_path):
    relay = {"topology": {"kind": "relay"}, "adversary": {"clients": [1], "attack": {"kind": "ipm"}}}
    with pytest.raises(ScenarioError, match="which is made from all updates of a round"):
        job_of(garments(tmp_path, relay))


def test_a_target_that_no_label_has_is_refused_before_anything_trains(tmp_path):
    changes = {"adversary": {"clients": [1], "attack": {"kind": "backdoor", "target": "hat"}}}
    with pytest.raises(Exception, match="one of the data's labels"):
        run(garments(tmp_path, changes), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not rows(tmp_path / "run" / "metrics.jsonl")
