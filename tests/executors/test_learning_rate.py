"""Learning-rate schedules at work: a step's rate follows from the round and the step alone, wherever it is
taken."""

import json

import numpy as np
import pytest
import torch

from fedray.executors.local_training import batches
from fedray.executors.optimizer import FlatOptimizer
from fedray.network.radio import Radio
from fedray.planning.round import schedule_round
from fedray.randomness import generator
from tests.executors.test_groups import a_round, fresh_learner, torchs
from tests.helpers import begun, garments, job_of, rows, run, tiny, unevaluated

SGD = {"kind": "sgd", "learning_rate": 0.1}
ADAMW = {"kind": "adamw", "learning_rate": 1e-3, "weight_decay": 0.1, "eps": 1e-5}
OVER_STEPS = {"kind": "cosine", "over": "steps", "final": 1e-4, "warmup": 2}
DOWN = {"kind": "cosine", "final": 0.01, "rounds": 6}


def one_client(topology, **more):
    training = {"rounds": 1, "local_steps": 6, "batch_size": 8, "clip_norm": None, "optimizer": ADAMW}
    return {
        "topology": topology,
        "training": training | {"schedule": OVER_STEPS} | more,
        "data.partition": {"kind": "iid"},
        "population": {"clients": 1, "per_round": 1},
    }


def by_hand(executor):
    """The numbers by name after a local update with torch's AdamW and transformers' schedule."""
    from transformers.optimization import get_scheduler

    learner = fresh_learner(executor.job)
    scenario = executor.job.scenario
    network = learner.parts["network"].requires_grad_(True).train()
    optimizer = torchs(ADAMW, list(network.parameters()))
    options = {"min_lr": OVER_STEPS["final"]}
    scheduler = get_scheduler("cosine_with_min_lr", optimizer, 2, 6, scheduler_specific_kwargs=options)
    work = executor.clients
    samples = len(work.client_indices[0])
    rng = generator(scenario.seed, 1, 0, "batches")
    for indices in batches(scenario.training.batches(samples), samples, rng):
        network.zero_grad()
        learner.loss(learner.draw(work.shard(0), indices, torch.Generator())).backward()
        optimizer.step()
        scheduler.step()
    return {f"network.{name}": p.detach() for name, p in network.named_parameters()}


@pytest.mark.parametrize(
    "topology",
    [
        {"kind": "parallel"},
        {"kind": "relay"},
        {"kind": "split", "cut": "conv2", "tail": "loss"},
        {
            "kind": "split",
            "cut": "conv2",
            "variant": "splitfed_v1",
            "micro_batches": 3,
            "may_send": ["labels"],
        },
    ],
    ids=["parallel", "relay", "split", "splitfed v1"],
)
def test_a_schedule_within_a_local_update_is_transformers_own(topology, tmp_path):
    executor = a_round(garments(tmp_path, one_client(topology)))
    expected = by_hand(executor)
    ours = executor.layout.tensors(executor.buffer)
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-6)


@pytest.fixture
def factors(monkeypatch):
    """By what every step's rate is multiplied, in the order of the steps."""
    seen = []
    step = FlatOptimizer.step

    def recorded(self, factor=1.0):
        seen.append(factor)
        step(self, factor)

    monkeypatch.setattr(FlatOptimizer, "step", recorded)
    return seen


def train(executor, rounds):
    scenario = executor.job.scenario
    for number in rounds:
        schedule = schedule_round(scenario, Radio(scenario.network), number, executor.shared)
        assert not [r.failure for r in executor.run_round(schedule) if r.failure]


def test_scaffold_takes_the_rounds_rate_as_if_the_optimizer_had_it(tmp_path):
    training = {"rounds": 3, "local_steps": 2, "batch_size": 8}
    changes = {"aggregation": {"kind": "scaffold"}, "population": {"clients": 2}}
    scheduled = begun(
        garments(tmp_path, changes | {"training": training | {"optimizer": SGD, "schedule": DOWN}})
    )
    train(scheduled, (1, 2, 3))
    section = scheduled.job.scenario.training
    by_rates = None
    for number in (1, 2, 3):
        optimizer = SGD | {"learning_rate": 0.1 * section.rate_factor(number, 0, 2)}
        executor = begun(garments(tmp_path, changes | {"training": training | {"optimizer": optimizer}}))
        if by_rates is not None:
            executor.buffer, executor.state = by_rates.buffer, by_rates.state
            executor.client_states = by_rates.client_states
        train(executor, [number])
        by_rates = executor
    assert torch.allclose(*(e.layout.view(e.buffer) for e in (scheduled, by_rates)), rtol=1e-5, atol=1e-8)
    for client, state in by_rates.client_states.items():
        assert np.allclose(scheduled.client_states[client]["control"], state["control"], rtol=1e-3, atol=1e-6)


def test_of_an_asynchronous_mode_each_client_has_the_rate_of_the_model_that_it_began_with(factors, tmp_path):
    slow = [
        {"share": 1, "device": {"kind": "flops", "peak_flops": f, "active_w": 5}} for f in (1e8, 4e7, 9e6)
    ]
    changes = {
        "topology": {"kind": "parallel", "mode": {"kind": "fedbuff", "concurrency": 4, "buffer": 2}},
        "population": {"clients": 6},
        "network.device": {"kind": "mix", "of": slow},
        "training.rounds": 6,
        "training.schedule": DOWN,
    }
    with unevaluated():
        run(garments(tmp_path, changes), tmp_path / "run")
    section = job_of(tmp_path / "garments.yaml")[1].scenario.training
    clients = rows(tmp_path / "run" / "clients.jsonl")
    expected = [section.rate_factor(row["round"] - row["staleness"], 0, 1) for row in clients]
    assert sorted(factors) == sorted(expected)
    assert len({row["round"] for row in clients if row["staleness"]}) > 2
    recorded = [row["learning_rate"] for row in rows(tmp_path / "run" / "metrics.jsonl")]
    assert recorded == [0.05 * section.rate_factor(number, 0, 1) for number in range(1, 7)]


KINDS = {
    "side by side in a gang": {
        "topology": {"kind": "parallel"},
        "evaluation": {},
        "training.batch_size": 2,
        "runtime": {"executor": "serial", "gang": 2},
    },
    "with noise on each sample": {
        "privacy": {"kind": "sample", "clip_norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-5},
        "population": {"clients": 50, "per_round": 1},
        "training.local_steps": None,
        "training.local_epochs": 1,
    },
    "with a head of one's own": {
        "personal": {"kind": "fedrep"},
        "tuning": {"kind": "full", "local": ["network.9.*"]},
    },
    "in bf16 with weights of their own optimizer": {
        "training.precision": "bf16",
        "training.groups": [{"patterns": ["*.bias"], "optimizer": ADAMW}],
    },
}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_every_way_of_training_has_the_rounds_rate(changes, factors, tmp_path):
    base = {"training.schedule": {"kind": "cosine", "rounds": 6}}
    if "topology" in changes:  # gangs are of adapters
        file = tiny(tmp_path, base | changes)
    else:
        file = garments(
            tmp_path, base | {"population": {"clients": 2}, "data.partition": {"kind": "iid"}} | changes
        )
    executor = begun(file)
    train(executor, [3])
    section = executor.job.scenario.training
    assert len(factors) >= 2
    assert set(factors) == {section.rate_factor(3, 0, 1)}
    assert section.rate_factor(3, 0, 1) < 0.9


def test_a_longer_run_has_the_rates_of_one_that_was_as_long_from_the_beginning(tmp_path, fedray):
    changes = {"population": {"clients": 2}, "training.schedule": {"kind": "linear", "rounds": 3}}
    with unevaluated():
        file = garments(tmp_path, changes)
        for folder, rounds in (("whole", 3), ("longer", 2)):
            options = ("--out", folder, "--set", f"training.rounds={rounds}", "--quiet")
            assert fedray("run", file, *options)[0] == 0
        assert fedray("run", "--resume", "longer", "--rounds", 3, "--quiet")[0] == 0
        results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "longer")]
        assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
        file = garments(tmp_path, changes | {"training.schedule": {"kind": "linear"}})
        assert fedray("run", file, "--out", "fixed", "--quiet")[0] == 0
        code, _, shown = fedray("run", "--resume", "fixed", "--rounds", 3, "--quiet")
    assert (code, "training.schedule: got linear with --rounds" in shown) == (2, True)
