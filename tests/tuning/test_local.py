"""Numbers that train and stay at home (FedPer, FedBN): what travels, and who has the others."""

import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

import fedray
from fedray.executors.local_training import batches
from fedray.learners.learners import load
from fedray.network.radio import Radio
from fedray.planning.plan import plan
from fedray.planning.round import schedule_round
from fedray.randomness import generator
from fedray.scenario import ScenarioError
from tests.helpers import begun, garments, job_of, rows, run, tiny

NUMBERS = 225034  # of the small classifier
HEAD = 128 * 10 + 10
FEDPER = {"tuning": {"kind": "full", "local": ["network.9.*"]}}
TWO = {"population": {"clients": 2, "per_round": 2}, "data.partition": {"kind": "iid"}}
RELAY = {"topology": {"kind": "relay"}}
RAY = {"runtime": {"executor": "ray", "actors": 2}}

LEARNER = '''"""A small network with batch normalisation, whose last layer may be a client's own."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import fedray
from fedray.learners.losses import cross_entropy
from fedray.learners.pictures import scaled
from fedray.learners.stages import Stage


@dataclass
class LabelledImages:
    images: Tensor
    labels: Tensor


class Normalised(fedray.Learner):
    def __init__(self, section, context):
        super().__init__(section, context)
        self.body, self.norm, self.head = nn.Linear(784, 6), nn.BatchNorm1d(6), nn.Linear(6, 10)
        self.parts = {"net": nn.ModuleDict({"body": self.body, "norm": self.norm, "head": self.head})}
        pieces = [
            Stage("body", ("images",), ("x",), self.body, (self.body,)),
            Stage("norm", ("x",), ("x",), self.norm, (self.norm,)),
            Stage("head", ("x",), ("x",), self.head, (self.head,)),
        ]
        loss = Stage("loss", ("x", "labels"), ("loss",), cross_entropy)
        self.stages = self.staged(pieces, loss)

    def draw(self, shard, indices, generator):
        i = torch.from_numpy(indices)
        return LabelledImages(scaled(shard.images[i]).flatten(1), shard.labels[i])


class OwnHead(Normalised):
    class Section(Normalised.Section):
        trains_home = True

    home = ("net.head.*",)


class OwnHeadUnsaid(Normalised):
    home = ("net.head.*",)


class NoMeans(Normalised):
    """Its running means stay where they are."""

    def travelling_buffers(self):
        return {}


class Counter(Normalised):
    """A number of its own travels: how many batches were seen."""

    def __init__(self, section, context):
        super().__init__(section, context)
        self.norm.register_buffer("seen", torch.zeros(1))
        # the body's output drifts with what this process did before, unless that is forgotten
        self.norm.register_buffer("forgotten", torch.zeros(1))

    def travelling_buffers(self):
        return {"net.norm.seen": self.norm.seen}

    def loss(self, batch):
        with torch.no_grad():
            self.norm.seen += 1
            self.norm.forgotten += 1
        return super().loss(batch) * self.norm.forgotten[0]
'''
BATCH_NORM = 6 * 2  # weights and biases of net.norm, and as many running means and variances
SMALL = 784 * 6 + 6 + BATCH_NORM + 6 * 10 + 10


def own(name, *local):
    tuning = {"kind": "full", "local": list(local)} if local else {"kind": "full"}
    return TWO | {"model": {"kind": f"personal:{name}"}, "tuning": tuning}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "personal.py").write_text(LEARNER)
    return tmp_path


def run_round(executor, t):
    scenario = executor.job.scenario
    schedule = schedule_round(scenario, Radio(scenario.network), t, executor.shared)
    assert all(report.failure is None for report in executor.run_round(schedule))
    return schedule


def homes(executor):
    return {client: state["home"] for client, state in executor.client_states.items()}


# --- FedPer: everybody's body, each one's head


def test_what_stays_home_is_planned_to_cost_nothing_on_the_air_and_does_not(folder):
    loaded, _ = job_of(garments(folder, TWO | FEDPER))
    planned = plan(loaded)
    assert planned["trainable_parameters"] == NUMBERS
    assert planned["payload_bytes"] == planned["payload_bytes_uplink"] == 4 * (NUMBERS - HEAD)
    assert planned["client_state_bytes"] == 4 * HEAD
    assert any("not in the server's model" in note for note in planned["notes"])
    run(loaded.file, folder / "run")
    sends = [row for row in rows(folder / "run" / "timeline.jsonl") if row["event"] == "send"]
    assert {row["bytes"] for row in sends} == {4 * (NUMBERS - HEAD)}
    assert len(sends) == 2 * 2 * 2
    weights = load_file(folder / "run" / "checkpoints" / "round-0002" / "weights.safetensors")
    assert not [name for name in weights if name.startswith("network.9.")]


def fedper_by_hand(executor, rounds, relay=False, head_rate=None):
    """(body of the server, head of each client) by name after these rounds, with torch's own SGD."""
    scenario = executor.job.scenario
    learner = load(scenario, executor.job.folder, torch.device("cpu"), torch.float32)
    network = learner.parts["network"].requires_grad_(True)
    everything = {f"network.{name}": p for name, p in network.named_parameters()}
    body = {n: p.detach().clone() for n, p in everything.items() if not n.startswith("network.9.")}
    first = {n: p.detach().clone() for n, p in everything.items() if n.startswith("network.9.")}
    heads, counts = {}, {k: len(executor.clients.client_indices[k]) for k in range(2)}
    for t in range(1, rounds + 1):
        given = body
        changes = []
        clients = schedule_round(scenario, Radio(scenario.network), t).clients
        for client in clients:
            with torch.no_grad():
                for name, value in {**given, **heads.get(client, first)}.items():
                    everything[name].copy_(value)
            rate = scenario.training.optimizer.learning_rate
            own = [p for n, p in everything.items() if n in first]
            shared = [p for n, p in everything.items() if n in body]
            optimizer = torch.optim.SGD(
                [{"params": shared}, {"params": own, "lr": head_rate or rate}], lr=rate, momentum=0.9
            )
            rng = generator(scenario.seed, t, client, "batches")
            sizes = scenario.training.batches(counts[client])
            for indices in batches(sizes, counts[client], rng):
                optimizer.zero_grad()
                shard = executor.clients.shard(client)
                learner.loss(learner.draw(shard, indices, torch.Generator())).backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
            heads[client] = {n: everything[n].detach().clone() for n in first}
            ended = {n: everything[n].detach().clone() for n in body}
            changes.append((counts[client], {n: ended[n] - body[n] for n in body}))
            given = ended if relay else body
        if relay:
            body = given
        else:
            total = sum(n for n, _ in changes)
            body = {n: body[n] + sum(k * change[n] for k, change in changes) / total for n in body}
    return body, heads


@pytest.mark.parametrize("topology", [{}, RELAY], ids=["parallel", "relay"])
@pytest.mark.parametrize("head_rate", [None, 0.1], ids=["one rate", "a faster head"])
def test_three_rounds_are_those_of_fedper_written_by_hand(topology, head_rate, folder):
    sgd = {"kind": "sgd", "learning_rate": 0.05, "momentum": 0.9}
    changes = TWO | FEDPER | topology | {"training.optimizer": sgd, "training.local_steps": 2}
    if head_rate:
        group = {"patterns": ["network.9.*"], "optimizer": sgd | {"learning_rate": head_rate}}
        changes = changes | {"training.groups": [group]}
    executor = begun(garments(folder, changes))
    for t in (1, 2, 3):
        run_round(executor, t)
    body, heads = fedper_by_hand(executor, 3, relay=bool(topology), head_rate=head_rate)
    ours = executor.layout.tensors(executor.buffer)
    assert ours.keys() == body.keys()
    for name in body:
        torch.testing.assert_close(ours[name], body[name], rtol=0, atol=5e-6)
    for client, numbers in homes(executor).items():
        expected = torch.cat([t.flatten() for t in heads[client].values()])
        torch.testing.assert_close(torch.from_numpy(numbers), expected, rtol=0, atol=5e-6)


def test_heads_differ_between_clients_and_one_that_is_not_selected_keeps_its_own(folder):
    some = {"population": {"clients": 4, "per_round": 2}, "data.partition": {"kind": "iid"}}
    executor = begun(garments(folder, some | FEDPER))
    before = {}
    for t in (1, 2, 3, 4):
        selected = run_round(executor, t).clients
        now = {client: numbers.copy() for client, numbers in homes(executor).items()}
        assert now.keys() == before.keys() | set(selected)
        for client in before:
            assert np.array_equal(now[client], before[client]) == (client not in selected)
        before = now
    assert len({numbers.tobytes() for numbers in before.values()}) == len(before) >= 3


def test_heads_survive_a_resume_with_the_bits_of_a_whole_run(folder):
    three = TWO | FEDPER | {"training.rounds": 3}
    whole = run(garments(folder, three, "whole.yaml"), folder / "whole")
    run(garments(folder, three | {"training.rounds": 2}, "two.yaml"), folder / "two")
    resumed = fedray.open(folder / "two").resume(rounds=3, progress=False)
    assert resumed.result["weights_sha256"] == whole["weights_sha256"]
    for client in (0, 1):
        file = f"checkpoints/round-0003/client-{client}.safetensors"
        assert np.array_equal(
            load_arrays(folder / "two" / file)["home"], load_arrays(folder / "whole" / file)["home"]
        )


def test_the_server_s_model_is_the_shared_body_with_the_head_that_nobody_trained(folder):
    file = garments(folder, TWO | FEDPER | {"training.optimizer.learning_rate": 0.2})
    run(file, folder / "run")
    exported = load_file(folder / "run" / "model" / "model.safetensors")
    _, job = job_of(file)
    initial = load(job.scenario, job.folder, torch.device("cpu"), torch.float32).parts["network"].state_dict()
    changed = {name for name in exported if not torch.equal(exported[name], initial[name])}
    assert changed == {name for name in initial if not name.startswith("9.")}


def test_on_two_actors_weights_heads_metrics_and_files_are_those_of_one_process(cluster, folder):
    five = {"population": {"clients": 5, "per_round": 5}}
    changes = own("Normalised", "net.norm.*", "net.head.*") | five
    changes |= {"topology": {"kind": "relay", "chains": 2}}
    one = run(garments(folder, changes, "one.yaml"), folder / "one")
    two = run(garments(folder, changes | RAY, "two.yaml"), folder / "two")
    assert one["weights_sha256"] == two["weights_sha256"]
    assert one["final"]["eval_loss"] == two["final"]["eval_loss"]
    for file in (
        "model/model.safetensors",
        *(f"checkpoints/round-0002/client-{k}.safetensors" for k in range(5)),
    ):
        assert (folder / "one" / file).read_bytes() == (folder / "two" / file).read_bytes(), file


def test_in_half_precision_on_the_air_what_stays_home_keeps_all_its_bits(folder):
    tuning = {"tuning": {"kind": "full", "local": ["network.9.*"], "payload": "bf16"}}
    file = garments(folder, TWO | tuning)
    assert plan(job_of(file)[0])["payload_bytes"] == 2 * (NUMBERS - HEAD)
    executor = begun(file)
    run_round(executor, 1)
    head = torch.from_numpy(homes(executor)[0])
    assert head.dtype == torch.float32
    assert (head != head.bfloat16().float()).float().mean() > 0.9


# --- FedBN: means and variances stay, too


def test_with_fedbn_neither_scales_nor_running_means_travel_and_each_client_keeps_its_own(folder):
    file = garments(folder, own("Normalised", "net.norm.*"))
    planned = plan(job_of(file)[0])
    assert planned["payload_bytes"] == 4 * (SMALL - BATCH_NORM)
    assert planned["client_state_bytes"] == 4 * 2 * BATCH_NORM
    assert planned["trainable_parameters"] == SMALL
    executor = begun(file)
    for t in (1, 2):
        run_round(executor, t)
    assert not [name for name in executor.layout.names if ".norm." in name]
    one, other = homes(executor).values()
    assert one.shape == other.shape == (2 * BATCH_NORM,)
    names = executor.clients.model.flat.home_layout.names
    sizes = np.cumsum(executor.clients.model.flat.home_layout.sizes)[:-1]
    parts = dict(zip(names, zip(np.split(one, sizes), np.split(other, sizes), strict=True), strict=True))
    assert set(parts) == {f"net.norm.{n}" for n in ("running_mean", "running_var", "weight", "bias")}
    assert all(not np.array_equal(*pair) for pair in parts.values())


def test_a_client_s_running_means_are_those_of_its_own_batches_alone(folder):
    file = garments(folder, own("Normalised", "net.*"))  # refused: all of it
    with pytest.raises(ScenarioError, match=r"tuning\.local: got all that trains, expected patterns"):
        plan(job_of(file)[0])
    still = {"training.optimizer.learning_rate": 1e-12, "training.local_steps": 3}
    executor = begun(garments(folder, own("Normalised", "net.norm.*") | still, "still.yaml"))
    run_round(executor, 1)
    scenario = executor.job.scenario
    for client, numbers in homes(executor).items():
        learner = load(scenario, executor.job.folder, torch.device("cpu"), torch.float32)
        learner.parts["net"].train()
        samples = len(executor.clients.client_indices[client])
        rng = generator(scenario.seed, 1, client, "batches")
        for indices in batches(scenario.training.batches(samples), samples, rng):
            learner.loss(learner.draw(executor.clients.shard(client), indices, torch.Generator()))
        expected = torch.cat([learner.norm.running_mean, learner.norm.running_var])
        torch.testing.assert_close(torch.from_numpy(numbers[:BATCH_NORM]), expected, rtol=1e-5, atol=1e-6)


def test_running_means_alone_may_stay_home_while_scales_are_shared(folder):
    file = garments(folder, own("Normalised", "*.running_*"))
    planned = plan(job_of(file)[0])
    assert planned["payload_bytes"] == 4 * SMALL
    assert planned["client_state_bytes"] == 4 * BATCH_NORM
    executor = begun(file)
    run_round(executor, 1)
    one, other = homes(executor).values()
    assert not np.array_equal(one, other)


# --- a learner's own word


def test_a_learner_that_keeps_its_head_at_home_is_as_if_the_scenario_said_so(folder):
    results = [
        run(garments(folder, changes, f"{i}.yaml"), folder / str(i))["weights_sha256"]
        for i, changes in enumerate([own("OwnHead"), own("Normalised", "net.head.*"), own("Normalised")])
    ]
    assert results[0] == results[1] != results[2]


def test_a_learner_whose_section_does_not_say_that_clients_keep_something_is_refused(folder):
    with pytest.raises(
        ScenarioError, match=r"model\.kind: got .*net\.head\.weight stays .* trains_home = True"
    ):
        plan(job_of(garments(folder, own("OwnHeadUnsaid")))[0])


def test_a_learner_says_itself_which_buffers_travel(folder):
    payloads = {
        name: plan(job_of(garments(folder, own(name), f"{name}.yaml"))[0])["payload_bytes"]
        for name in ("Normalised", "NoMeans", "Counter")
    }
    assert payloads == {
        "Normalised": 4 * (SMALL + BATCH_NORM), "NoMeans": 4 * SMALL, "Counter": 4 * (SMALL + 1)
    }  # fmt: skip


def test_buffers_that_travel_are_averaged_and_others_are_forgotten_between_clients(folder):
    three_steps = {"training.local_steps": 3}
    executor = begun(garments(folder, own("Counter") | three_steps))
    for t in (1, 2):
        run_round(executor, t)
    assert executor.layout.tensors(executor.buffer)["net.norm.seen"].tolist() == [6.0]
    # each local update began with a `forgotten` of zero, whoever trained before in this process
    assert executor.clients.model.learner.norm.forgotten.tolist() == [3.0]
    executor.export(folder / "model")
    exported = load_file(folder / "model" / "model.safetensors")
    assert (exported["norm.seen"].tolist(), exported["norm.forgotten"].tolist()) == ([6.0], [0.0])


# --- in a split: a tail that stays home

UNCLIPPED = {  # a split's sides could clip their own part alone
    "rounds": 2,
    "local_steps": 2,
    "batch_size": 8,
    "clip_norm": None,
    "optimizer": {"kind": "sgd", "learning_rate": 0.05},
}


@pytest.mark.parametrize("local", [["net.head.*"], ["net.body.*", "net.head.*"]], ids=str)
def test_a_split_s_client_keeps_at_home_what_the_unsplit_model_s_keeps(local, folder):
    changes = own("Normalised", *local) | {"population": {"clients": 1}, "training": UNCLIPPED}
    split = {"topology": {"kind": "split", "cut": "body", "tail": "head"}}
    cut, whole = (begun(garments(folder, changes | more, f"{i}.yaml")) for i, more in enumerate((split, {})))
    for t in (1, 2):
        for executor in (cut, whole):
            run_round(executor, t)
    ours, theirs = (e.layout.tensors(e.buffer) for e in (cut, whole))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-6)
    np.testing.assert_allclose(homes(cut)[0], homes(whole)[0], rtol=0, atol=1e-6)


# --- what is refused


@pytest.mark.parametrize("of", ["tuning", "learner"])
def test_in_a_split_what_the_server_trains_cannot_stay_home(of, folder):
    changes = own("Normalised", "net.head.*") if of == "tuning" else own("OwnHead")
    split = {"topology": {"kind": "split", "cut": "body", "tail": "loss"}}
    line = r":\d+: tuning\.local: got net\.head\.weight, which the server trains with this cut \(body"
    with pytest.raises(ScenarioError, match=line):
        plan(job_of(garments(folder, changes | split))[0])
    unsaid = own("OwnHeadUnsaid") | split
    with pytest.raises(ScenarioError, match=r"model\.kind: got .* stays at home, expected a Section with"):
        plan(job_of(garments(folder, unsaid, "unsaid.yaml"))[0])


def test_in_a_split_in_which_clients_hand_their_part_on_nothing_stays_home(folder):
    split = {"topology": {"kind": "split", "cut": "body", "tail": "head", "variant": "vanilla"}}
    vanilla = split | {"runtime": {"executor": "serial", "failures": {"data": "abort"}}}
    with pytest.raises(ScenarioError, match=r":\d+: tuning\.local: got some for vanilla, expected none"):
        job_of(garments(folder, own("Normalised", "net.head.*") | vanilla))


def test_a_pattern_that_names_nothing_is_refused_with_a_name_there_is(folder):
    file = garments(folder, TWO | {"tuning": {"kind": "full", "local": ["newtork.9.*"]}})
    line = r":\d+: tuning\.local: got 'newtork\.9\.\*', expected a pattern .*'network\.0\.weight'"
    with pytest.raises(ScenarioError, match=re.escape(str(file)) + line):
        plan(job_of(file)[0])


def test_of_adapters_one_half_may_stay_home_where_the_rule_does_not_multiply_them(tmp_path):
    parallel = {"topology": {"kind": "parallel"}, "tuning.targets": "attention"}
    local = parallel | {"tuning.local": ["*.lora_B.*"]}
    both, half = (
        plan(job_of(tiny(tmp_path, changes, f"{i}.yaml"))[0]) for i, changes in enumerate((parallel, local))
    )
    assert half["payload_bytes"] + half["client_state_bytes"] == both["payload_bytes"]
    assert 0 < half["payload_bytes"] < both["payload_bytes"]
    for more, line in (
        ({"aggregation": {"kind": "fedex_lora"}}, r"tuning\.local: got some for fedex_lora, expected none"),
        ({"tuning.ranks": [1, 2]}, r"tuning\.local: got some beside tuning\.ranks, expected none"),
    ):
        with pytest.raises(ScenarioError, match=line):
            job_of(tiny(tmp_path, local | more, "refused.yaml"))
