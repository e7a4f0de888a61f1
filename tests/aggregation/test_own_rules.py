"""A rule of a user's own: what it keeps of a client, and topologies that have no place for it."""

import json

import pytest
from safetensors.numpy import load_file

import fedray
from fedray.engine import RunFailed
from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from tests.helpers import garments, job_of, run

RULES = '''"""Rules as a user writes them."""

import torch
import torch.nn.functional as F

import fedray


class Patient(fedray.Rule):
    """A client's n-th local update holds on to where it began n times as much."""

    class Section(fedray.Rule.Section):
        keeps_client_state = True

    def on_client_start(self, start, extra, state):
        n = float(state["n"][0]) if "n" in state else 0.0
        return lambda gradient, weights: gradient.add_(weights - start, alpha=n)

    def on_client_end(self, start, end, steps, learning_rate, state):
        return None, {"n": state.get("n", torch.zeros(1)) + 1}


class Unsaid(Patient):
    class Section(fedray.Rule.Section):
        pass


class SendsMore(fedray.Rule):
    def __init__(self, section, layout):
        super().__init__(section, layout)
        self.sent = self.summed = layout.numel + 1

    def on_client_end(self, start, end, steps, learning_rate, state):
        return torch.ones(1), {}

    def combine(self, result):
        return result[:, :-1]


class Halves(fedray.Rule):
    def contribution(self, received, sent):
        return sent / 2
'''
TWO = {"population": {"clients": 2, "per_round": 2}, "training.local_steps": 2}
RELAY = {"topology": {"kind": "relay"}}
SPLIT = {"topology": {"kind": "split", "cut": "conv1", "tail": "loss"}}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own_rules.py").write_text(RULES)
    return tmp_path


def rule(name):
    return TWO | {"aggregation": {"kind": f"own_rules:{name}"}}


def test_what_a_rule_keeps_of_a_client_lasts_over_rounds_and_a_resume(folder):
    three = rule("Patient") | {"training.rounds": 3}
    whole = run(garments(folder, three, "whole.yaml"), folder / "whole")
    run(garments(folder, three | {"training.rounds": 2}, "two.yaml"), folder / "two")
    resumed = fedray.open(folder / "two").resume(rounds=3, progress=False)
    plain = run(garments(folder, TWO | {"training.rounds": 3}, "plain.yaml"), folder / "plain")
    assert resumed.result["weights_sha256"] == whole["weights_sha256"] != plain["weights_sha256"]
    kept = load_file(folder / "two" / "checkpoints" / "round-0003" / "client-1.safetensors")
    assert {name: value.tolist() for name, value in kept.items()} == {"n": [3.0]}


def test_a_rule_that_keeps_a_state_without_saying_so_ends_the_run_with_what_to_write(folder):
    with pytest.raises(RunFailed, match=r"own_rules:Unsaid: keeps n, expected keeps_client_state = True"):
        run(garments(folder, rule("Unsaid")), folder / "run")
    facts = json.loads((folder / "run" / "error.json").read_text())
    assert (facts["round"], facts["client"], facts["stage"]) == (1, 0, "training")


@pytest.mark.parametrize(
    ("name", "topology", "line"),
    [
        (
            "Patient",
            SPLIT,
            r"which has on_client_start, expected .* in a split no client has the whole model",
        ),
        ("SendsMore", SPLIT, "which has on_client_end, expected topology"),
        ("SendsMore", RELAY, "which makes its own of what a client sends, expected topology.kind parallel"),
        ("Halves", SPLIT, "which makes its own of what a client sends, expected topology.kind parallel"),
        ("Halves", RELAY, "which makes its own of what a client sends, expected topology.kind parallel"),
    ],
)
def test_what_a_rule_does_that_a_topology_would_pass_over_is_refused(name, topology, line, folder):
    assert plan(job_of(garments(folder, rule(name), "parallel.yaml"))[0])["rounds"] == 2
    with pytest.raises(ScenarioError, match=rf":\d+: aggregation\.kind: got own_rules:{name}, {line}"):
        plan(job_of(garments(folder, rule(name) | topology, "other.yaml"))[0])
