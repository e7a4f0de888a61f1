"""What a relay's receivers do with models that are worse than the last accepted one."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from fedray.executors import chains, last_validators
from fedray.executors.relay_defence import Hop, Validation
from fedray.planning.workload import measure
from fedray.scenario import ScenarioError
from fedray.scenario.relay_defence import Validation as Section
from fedray.steps import Send, Train, Validate
from fedray.topologies.relay import fixed_order, relay
from tests.helpers import garments, job_of, rows, run

DEFENDED = {"topology": {"kind": "relay", "defence": {"kind": "validation"}}}


def received(change, before, after, norms=(), **options):
    """What validation goes on with, of a model whose measures are these."""
    accepted = torch.tensor([3.0, 4.0])
    hop = Hop(accepted, change, norms, lambda x: before if torch.equal(x, accepted) else after)
    return Validation(Section(kind="validation", **options)).receive(hop)


@pytest.mark.parametrize(
    ("after", "accepts"),
    [
        ({"loss": 1.25, "accuracy": 0.41}, True),
        ({"loss": 1.26, "accuracy": 0.9}, False),
        ({"loss": 0.1, "accuracy": 0.39}, False),
        ({"loss": 1.2}, True),
        ({"loss": math.nan, "accuracy": 0.9}, False),
    ],
)
def test_a_model_is_rejected_whose_loss_or_accuracy_is_too_much_worse(after, accepts):
    before = {"loss": 1.0} | ({"accuracy": 0.5} if "accuracy" in after else {})
    assert (received(torch.ones(2), before, after) is not None) == accepts


def test_a_long_change_is_clipped_to_a_multiple_of_the_medians_norm():
    same = {"loss": 1.0}
    clipped = received(torch.tensor([30.0, 40.0]), same, same, norms=(1.0, 9.0, 2.0))
    assert torch.allclose(clipped, torch.tensor([1.8, 2.4]))  # of norm 1.5 times 2
    short = torch.tensor([0.3, 0.4])
    assert received(short, same, same, norms=(1.0, 9.0, 2.0)) is short


def test_two_buffers_go_over_each_hop_and_another_client_validates_the_last_model():
    order = lambda clients, rng: fixed_order([2, 0, 1])  # noqa: E731
    schedule = relay(1, [[0, 1, 2]], order, np.random.default_rng(0), validates=True)
    sends = [(s.sender, s.receiver, s.share) for s in schedule if isinstance(s, Send)]
    assert sends == [(-1, 2, 1.0), (2, 0, 2.0), (0, 1, 2.0), (1, 2, 2.0), (2, -1, 1.0)]
    assert [s.client for s in schedule if isinstance(s, Validate)] == [0, 1, 2]
    for hop, validate in pairwise(schedule):
        if isinstance(validate, Validate):
            assert validate.after == (hop.id,)
    trained = {s.client: s.after for s in schedule if isinstance(s, Train)}
    assert trained == {2: ("down-2",), 0: ("validate-2-0",), 1: ("validate-0-1",)}
    assert chains(schedule) == [[2, 0, 1]]
    assert last_validators(schedule) == {1: 2}


def test_a_rejected_last_client_leaves_the_weights_of_one_that_changed_nothing(tmp_path):
    adversary = {"clients": [1], "place": "last"}
    unclipped = {"topology": {"kind": "relay", "defence": {"kind": "validation", "max_norm": None}}}
    harmful = unclipped | {"adversary": adversary | {"attack": {"kind": "sign_flip", "scale": 50.0}}}
    idle = unclipped | {"adversary": adversary | {"attack": {"kind": "free_rider"}}}
    attacked = run(garments(tmp_path, harmful), tmp_path / "harmful")
    assert attacked["weights_sha256"] == run(garments(tmp_path, idle), tmp_path / "idle")["weights_sha256"]
    outcomes = {row["client"]: row["outcome"] for row in rows(tmp_path / "harmful" / "clients.jsonl")}
    assert outcomes.pop(1) == "rejected"
    assert set(outcomes.values()) == {"done"}
    assert attacked["final"]["rejected"] == attacked["final"]["rejected_attackers"] == 1


def test_validating_costs_forward_passes_of_two_models_over_all_samples(tmp_path):
    _, job = job_of(garments(tmp_path, DEFENDED))
    workload = measure(job.scenario, job.folder, job.dataset)
    each = workload.validate_flops_per_sample
    # forwards and backwards take three times as much, less what the first layer's inputs need not
    assert each == pytest.approx(2 / 3 * workload.flops_per_sample, rel=0.05)
    work = workload.of(job.scenario, [40, 7])
    assert work.load(Validate("validate-0-1", 1, ())) == 7 * each


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"topology.chains": 3}, "at most 2: a client alone in its chain has nobody who validates"),
        ({"ledger": {"keep": "updates"}}, "hashes: which of the kept models were accepted"),
        ({"topology.defence.max_norm": 0}, "max_norm: got 0, expected"),
        ({"topology.defence.max_accuracy_drop": 2}, "max_accuracy_drop: got 2, expected"),
    ],
)
def test_a_defence_that_cannot_be_is_refused(changes, expected, tmp_path):
    with pytest.raises(ScenarioError, match=expected):
        job_of(garments(tmp_path, DEFENDED | changes))
