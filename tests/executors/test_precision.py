"""Numbers with less precision on the air: differences are rounded, weights are not."""

import numpy as np
import pytest
import torch

from fedray.checks import check
from fedray.executors.model import master
from fedray.executors.serial import SerialExecutor
from fedray.network.radio import Radio
from fedray.planning.plan import plan
from fedray.planning.round import schedule_round
from fedray.planning.shared import shared
from tests.helpers import UNSEEN, begin, garments, job_of, tiny

ROUNDS = 3
SLOW = {"kind": "sgd", "learning_rate": 1e-3}  # a round changes a weight by less than bf16's last place
IN_PARALLEL = {"training.optimizer": SLOW, "training.local_steps": 2}
SPLIT = {"topology": {"kind": "split", "cut": "conv1", "tail": "loss", "variant": "splitfed_v2"}}
RULES = {
    "fedavg": {},
    "fedadam": {"aggregation": {"kind": "fedadam", "server_learning_rate": 1e-4}},
    "scaffold": {"aggregation": {"kind": "scaffold"}},
    "clip": {"aggregation": {"kind": "fedavg", "transforms": [{"kind": "clip", "norm": 1.0}]}},
    "splitfed_v1": {"topology": SPLIT["topology"] | {"variant": "splitfed_v1"}},
    "splitfed_v2": SPLIT,
}
NOISE = {
    "model": {
        "kind": "diffusion",
        "channels": [32, 32],
        "attention": [],
        "layers": 1,
        "resolution": 8,
        "ema_decay": 0.9,
    },
    "training.batch_size": 2,
}


def trained(file, rounds=ROUNDS):
    """An executor after some rounds, and the global model before and after them [numel] fp32, as it is
    exported."""
    _, job = job_of(file)
    executor = SerialExecutor(job)
    begin(executor)
    known = shared(job.scenario, executor.clients.samples, executor.clients.client_indices)
    before = as_exported(executor)
    for t in range(1, rounds + 1):
        list(executor.run_round(schedule_round(job.scenario, Radio(job.scenario.network), t, known)))
    return executor, before, as_exported(executor)


def as_exported(executor):
    model = executor.evaluator._model
    model.receive(executor.buffer, executor.state)
    return model.flat.all.detach().clone()


def moved(file, rounds=ROUNDS):
    _, before, after = trained(file, rounds)
    return float((after - before).norm())


@pytest.mark.parametrize("payload", ["fp16", "bf16"])
@pytest.mark.parametrize("rule", RULES)
def test_weights_move_as_far_in_half_precision_on_the_air_as_in_fp32(rule, payload, tmp_path):
    changes = IN_PARALLEL | RULES[rule]
    whole = moved(garments(tmp_path, changes))
    half = moved(garments(tmp_path, changes | {"tuning.payload": payload}))
    assert whole > 0
    assert 0.9 * whole < half < 1.1 * whole


def test_nearly_as_many_weights_change_in_a_round_with_bf16_on_the_air_as_with_fp32(tmp_path):
    share = {}
    for payload in ("fp32", "bf16"):
        _, before, after = trained(garments(tmp_path, IN_PARALLEL | {"tuning.payload": payload}), rounds=1)
        share[payload] = float((before != after).float().mean())
    assert share["bf16"] > 0.9 * share["fp32"] > 0.5


def test_a_moving_average_follows_the_master_and_not_what_is_sent(tmp_path):
    changes = IN_PARALLEL | NOISE
    whole = moved(garments(tmp_path, changes))
    half = moved(garments(tmp_path, changes | {"tuning.payload": "bf16"}))
    assert 0.9 * whole < half < 1.1 * whole


def test_what_fedex_folds_into_the_base_adds_up_in_fp32(tmp_path):
    """After the first round the change of the base is larger than a round's share of it in bf16 can be."""
    changes = UNSEEN | {
        "topology": {"kind": "parallel"},
        "aggregation": {"kind": "fedex_lora"},
        "tuning": {"kind": "lora", "rank": 2},
        "population": {"clients": 5, "per_round": 2},
        "training.rounds": ROUNDS,
        "training.local_steps": 2,
    }
    change = {}
    for payload in ("fp32", "bf16"):
        tuning = changes["tuning"] | {"payload": payload}
        executor, _, _ = trained(tiny(tmp_path, changes | {"tuning": tuning}))
        layout = executor.layout
        change[payload] = master(layout, executor.buffer, executor.state)[layout.numel :]
    apart = (change["bf16"] - change["fp32"]).norm() / change["fp32"].norm()
    assert change["fp32"].norm() > 0
    assert apart < 0.05


def test_what_is_sent_is_the_master_rounded_once(tmp_path):
    executor, _, _ = trained(garments(tmp_path, IN_PARALLEL | {"tuning.payload": "bf16"}))
    layout = executor.layout
    numbers = master(layout, executor.buffer, executor.state)
    assert numbers.dtype == torch.float32
    assert torch.equal(layout.view(executor.buffer), numbers.to(torch.bfloat16))
    assert not torch.equal(layout.view(executor.buffer).float(), numbers)


def test_a_checkpoint_keeps_the_master(tmp_path):
    file = garments(tmp_path, IN_PARALLEL | {"tuning.payload": "bf16"})
    executor, _, _ = trained(file)
    saved = executor.checkpoint(tmp_path, None)
    _, job = job_of(file)
    again = SerialExecutor(job)
    begin(again)
    again.restore(tmp_path, saved)
    numbers = [master(e.layout, e.buffer, e.state).numpy() for e in (executor, again)]
    assert np.array_equal(*numbers)


RELAYS = {
    "one chain": {"kind": "relay"},
    "two chains": {"kind": "relay", "chains": 2},
    "vanilla": SPLIT["topology"] | {"variant": "vanilla"},
}


@pytest.mark.parametrize("rule", ["fedavg", "fedadam"])
@pytest.mark.parametrize("topology", RELAYS)
def test_a_model_that_comes_back_as_it_was_sent_leaves_the_master_as_it_was(topology, rule, tmp_path):
    """The rounding of what is sent is nobody's update: a server's Adam would make whole steps of it."""
    still = {"kind": "sgd", "learning_rate": 1e-9}
    changes = {
        "topology": RELAYS[topology],
        "aggregation": {"kind": rule},
        "training.optimizer": still,
        "tuning.payload": "bf16",
    }
    file = garments(tmp_path, changes | {"runtime": {"executor": "serial", "failures": {"data": "abort"}}})
    executor, before, after = trained(file)
    # the server's part is no payload
    places = executor.clients.model.client.places if topology == "vanilla" else slice(None)
    assert torch.equal(before[places], after[places])


@pytest.mark.parametrize("rule", ["fedavg", "fedadam"])
def test_a_relay_in_half_precision_hands_on_what_its_precision_allows(rule, tmp_path):
    """What a client changes by less than that is lost with its hop, and is said (see below)."""
    changes = IN_PARALLEL | {
        "topology": {"kind": "relay"},
        "aggregation": RULES[rule].get("aggregation", {"kind": "fedavg"}),
    }
    whole = moved(garments(tmp_path, changes))
    half = moved(garments(tmp_path, changes | {"tuning.payload": "bf16"}))
    assert 0 < half < 1.5 * whole


def test_a_plan_says_what_a_relay_in_half_precision_loses(tmp_path):
    notes = [
        plan(check(tiny(tmp_path, {"tuning.payload": payload})))["notes"] for payload in ("fp32", "bf16")
    ]
    assert notes[0] == []
    assert "a relay hands the model itself on, here in bf16" in notes[1][0]
