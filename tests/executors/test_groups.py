"""Parameter groups over the flat buffer: the steps of torch's own optimizer with param groups."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from fedray.engine import RunFailed
from fedray.executors.local_training import batches
from fedray.executors.optimizer import FlatOptimizer, grouped
from fedray.executors.serial import SerialExecutor
from fedray.network.radio import Radio
from fedray.planning.plan import plan
from fedray.planning.round import schedule_round
from fedray.randomness import generator
from fedray.scenario import ScenarioError
from fedray.scenario.optimizer import AdamW, Sgd
from fedray.scenario.training import ParameterGroup
from tests.helpers import begin, garments, job_of, run

MOMENTUM = {"kind": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01}
# with a large eps: micro-batches round gradients otherwise, which Adam magnifies where they are near zero
ADAMW = {"kind": "adamw", "learning_rate": 1e-3, "weight_decay": 0.1, "eps": 1e-5}
HEAD = ["network.9.*"]
BIASES = ["*.bias"]
OPTIMIZERS = {
    "sgd with momentum, and faster biases": (MOMENTUM, [(BIASES, MOMENTUM | {"learning_rate": 0.2})]),
    "adamw, and a slow head without decay": (
        ADAMW,
        [(HEAD, ADAMW | {"learning_rate": 1e-4, "weight_decay": 0.0})],
    ),
    "sgd with momentum, adamw for the head, plain sgd for other biases": (
        MOMENTUM,
        [(HEAD, ADAMW), (BIASES, {"kind": "sgd", "learning_rate": 0.01})],
    ),
}
SPLIT = {"kind": "split", "cut": "conv2", "tail": "loss"}
STEPS = 4


def training(optimizer, groups, **more):
    return {
        "training": {
            "rounds": 1,
            "local_steps": STEPS,
            "batch_size": 8,
            "clip_norm": None,
            "optimizer": optimizer,
            "groups": [{"patterns": patterns, "optimizer": section} for patterns, section in groups],
            **more,
        },
        "data.partition": {"kind": "iid"},
        "population": {"clients": 1, "per_round": 1},
    }


def torchs(section, parameters):
    """torch's own optimizer for a section."""
    options = {k: v for k, v in section.items() if k not in ("kind", "learning_rate")}
    return {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[section["kind"]](
        parameters, lr=section["learning_rate"], **options
    )


def by_hand(executor, optimizer, groups, learner, clip=None):
    """The numbers by name after the same steps, with torch's optimizers over param groups."""
    from fnmatch import fnmatchcase

    scenario = executor.job.scenario
    network = learner.parts["network"]
    members = [[] for _ in range(len(groups) + 1)]
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(True)
        fitting = [
            i for i, (ps, _) in enumerate(groups, 1) if any(fnmatchcase(f"network.{name}", p) for p in ps)
        ]
        members[fitting[0] if fitting else 0].append(parameter)
    sections = [optimizer, *(section for _, section in groups)]
    made = [torchs(section, some) for section, some in zip(sections, members, strict=True)]
    work = executor.clients
    samples = len(work.client_indices[0])
    network.train()
    rng = generator(scenario.seed, 1, 0, "batches")
    for indices in batches(scenario.training.batches(samples), samples, rng):
        network.zero_grad()
        learner.loss(learner.draw(work.shard(0), indices, torch.Generator())).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        for each in made:
            each.step()
    return {f"network.{name}": p.detach() for name, p in network.named_parameters()}


def a_round(file):
    _, job = job_of(file)
    executor = SerialExecutor(job)
    begin(executor)
    work = None
    if job.scenario.topology.splits_model:
        work = executor.workload().of(job.scenario, executor.shared.samples)
    schedule = schedule_round(job.scenario, Radio(job.scenario.network), 1, executor.shared, work)
    assert [report.failure for report in executor.run_round(schedule)] == [None]
    return executor


def fresh_learner(job):
    from fedray.learners.learners import load

    return load(job.scenario, job.folder, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("topology", "clip"),
    [
        ({"kind": "parallel"}, None),
        ({"kind": "parallel"}, 0.3),
        ({"kind": "relay"}, None),
        (SPLIT, None),
        (SPLIT | {"variant": "splitfed_v1", "micro_batches": 3}, None),
        ({"kind": "split", "cut": "conv1", "may_send": ["labels"], "micro_batches": 2}, None),
    ],
    ids=["parallel", "clipped", "relay", "U-shape", "U-shape in micro-batches", "loss at the server"],
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_local_update_takes_the_steps_of_torchs_param_groups(name, topology, clip, tmp_path):
    optimizer, groups = OPTIMIZERS[name]
    file = garments(tmp_path, training(optimizer, groups, clip_norm=clip) | {"topology": topology})
    executor = a_round(file)
    ours = executor.layout.tensors(executor.buffer)
    theirs = by_hand(executor, optimizer, groups, fresh_learner(executor.job), clip)
    assert list(ours) == list(theirs)
    for tensor in theirs:
        torch.testing.assert_close(ours[tensor], theirs[tensor], rtol=0, atol=1e-6)


def test_groups_make_a_difference_where_they_name_weights_and_nowhere_else(tmp_path):
    slow = [(HEAD, MOMENTUM | {"learning_rate": 1e-5, "weight_decay": 0.0})]
    plain, other = (
        a_round(garments(tmp_path, training(MOMENTUM, groups, local_steps=1), f"{len(groups)}.yaml"))
        for groups in ([], slow)
    )
    one, two = (executor.layout.tensors(executor.buffer) for executor in (plain, other))
    changed = {name for name in one if not torch.equal(one[name], two[name])}
    assert changed == {"network.9.weight", "network.9.bias"}  # after one step


def test_flat_steps_over_groups_have_the_bits_of_torchs_own():
    names, sizes = ["a", "b", "c", "d"], [5, 7, 300, 11]
    sections = Sgd(kind="sgd", learning_rate=0.1, momentum=0.9), AdamW(kind="adamw", learning_rate=0.01)
    group = ParameterGroup(patterns=["b", "d"], optimizer=sections[1])
    weights, gradient = torch.randn(323), torch.zeros(323)
    flat = FlatOptimizer(sections[0], weights, gradient, grouped(sections[0], [group], names, sizes))
    theirs = [nn.Parameter(part.clone()) for part in weights.split(sizes)]
    a, b, c, d = theirs
    optimizers = torch.optim.SGD([a, c], lr=0.1, momentum=0.9), torch.optim.AdamW([b, d], lr=0.01)
    for _ in range(5):
        gradient.copy_(torch.randn(323))
        for parameter, part in zip(theirs, gradient.split(sizes), strict=True):
            parameter.grad = part.clone()
        flat.step()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(weights, torch.cat([p.detach() for p in theirs]))


def test_of_two_groups_that_name_a_weight_the_first_counts():
    one, two = (
        ParameterGroup(patterns=p, optimizer=Sgd(kind="sgd", learning_rate=1)) for p in (["a*"], ["*"])
    )
    rest = Sgd(kind="sgd", learning_rate=2)
    assert grouped(rest, [one, two], ["ab", "b", "ac"], [2, 3, 4]) == [
        (one.optimizer, [slice(0, 2), slice(5, 9)]),
        (two.optimizer, [slice(2, 5)]),
    ]


@pytest.mark.parametrize("topology", [{"kind": "parallel"}, SPLIT], ids=["parallel", "split"])
def test_a_pattern_that_names_nothing_that_trains_is_refused_with_a_name_that_does(topology, tmp_path):
    run(garments(tmp_path, training(MOMENTUM, []) | {"topology": topology}), tmp_path / "run")  # was counted
    file = garments(
        tmp_path, training(MOMENTUM, [(["netwrok.*"], ADAMW)]) | {"topology": topology}, "bad.yaml"
    )
    line = r"bad\.yaml:\d+: training\.groups\.0\.patterns: got 'netwrok\.\*', expected .*'network\.0\.weight'"
    with pytest.raises(ScenarioError, match=line):
        plan(job_of(file)[0])
    frozen = {"tuning": {"kind": "partial", "patterns": ["network.9.*"]}}
    named = garments(tmp_path, training(MOMENTUM, [(["network.0.*"], ADAMW)]) | frozen, "frozen.yaml")
    with pytest.raises(ScenarioError, match=r"got 'network\.0\.\*', expected .*'network\.9\.weight'"):
        plan(job_of(named)[0])


def test_with_scaffold_groups_are_refused_with_why(tmp_path):
    plain = {"kind": "sgd", "learning_rate": 0.05}
    file = garments(tmp_path, training(plain, [(BIASES, plain)]) | {"aggregation": {"kind": "scaffold"}})
    with pytest.raises(ScenarioError, match=r"training\.optimizer: got groups for scaffold, expected sgd"):
        job_of(file)


def test_an_optimizer_of_a_group_is_cited_too(tmp_path):
    file = garments(tmp_path, training(MOMENTUM, [(HEAD, ADAMW)]))
    assert "loshchilov2019decoupled" in set(job_of(file)[0].scenario.cited())


def test_a_rate_that_is_too_large_for_one_group_is_the_clients_failure(tmp_path):
    file = garments(tmp_path, training(MOMENTUM, [(HEAD, MOMENTUM | {"learning_rate": 1e30})]))
    with pytest.raises(RunFailed, match=r"client 0, while training: .* is not finite"):
        run(file, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "error.json").read_text())
    assert (facts["client"], facts["round"]) == (0, 1)


LEARNER = '''"""A learner with two optimizers of its own, as a GAN has."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import fedray
from fedray.learners.pictures import scaled
from fedray.scenario.optimizer import Sgd
from fedray.scenario.training import ParameterGroup


@dataclass
class Images:
    images: Tensor


class TwoRates(fedray.Learner):
    groups = [ParameterGroup(patterns=["net.fast.*"], optimizer=Sgd(kind="sgd", learning_rate=0.5))]

    def __init__(self, section, context):
        super().__init__(section, context)
        self.net = nn.ModuleDict({"fast": nn.Linear(784, 1), "slow": nn.Linear(784, 1)})
        self.parts = {"net": self.net}

    def draw(self, shard, indices, generator):
        return Images(scaled(shard.images[torch.from_numpy(indices)]).flatten(1))

    def loss(self, batch):
        return (self.net["fast"](batch.images) + self.net["slow"](batch.images)).mean()
'''


def test_a_learner_s_own_groups_stand_behind_the_scenario_s(tmp_path):
    (tmp_path / "two_rates.py").write_text(LEARNER)
    own = {"model": {"kind": "two_rates:TwoRates"}, "evaluation": {}}
    sgd = {"kind": "sgd", "learning_rate": 0.1}
    moved = []
    for i, groups in enumerate(([], [(["*.fast.bias"], sgd | {"learning_rate": 0.25})])):
        executor = a_round(garments(tmp_path, training(sgd, groups, local_steps=1) | own, f"{i}.yaml"))
        before = executor.layout.tensors(executor.initial)
        after = executor.layout.tensors(executor.buffer)
        moved.append({n: (before[n] - after[n]).double().numpy() for n in after if n.endswith("bias")})
    # the loss falls by one for each of a bias
    assert np.allclose(moved[0]["net.fast.bias"], 0.5)
    assert np.allclose(moved[0]["net.slow.bias"], 0.1)
    assert np.allclose(moved[1]["net.fast.bias"], 0.25)
