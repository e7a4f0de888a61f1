"""Accumulators behind one face, and the median, which needs each update: in every topology that allows it."""

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.aggregation.accumulators import Accumulator, ExactSum, Gathered
from fedray.aggregation.rule import Rule
from fedray.executors import chains
from fedray.executors.global_step import GlobalStep, merged
from fedray.network.radio import Radio
from fedray.planning.plan import plan
from fedray.planning.round import schedule_round
from fedray.scenario import ScenarioError
from fedray.scenario.aggregation import FedAvg, GeometricMedian, Median
from fedray.transport.buffer import Layout
from fedray.transport.hooks import HookChain, HookContext
from tests.helpers import begun, garments, job_of

MEDIAN = {"aggregation": {"kind": "median"}}
IID = {"data.partition": {"kind": "iid"}}
NUMEL = 7
LAYOUT = Layout(("w",), ((NUMEL,),), "fp32", NUMEL)


def of_clients(n):
    return {"population": {"clients": n, "per_round": n}}


def updates_of(seed, n):
    draws = np.random.default_rng(seed)
    return torch.from_numpy(draws.normal(size=(n, NUMEL)).astype(np.float32)), draws.integers(
        1, 50, n
    ).tolist()


def stepped(rule, accumulated):
    """The global numbers after one step from zeros."""
    chain, context = HookChain([], torch.float32), HookContext(0, 1, -1)
    return GlobalStep(rule, chain, accumulated, torch.zeros(NUMEL), {}, 1.0, 0, context).run()[0]


def hosts(rule, updates, weights, order, cuts):
    """What each host has accumulated of the clients that it served, in the order in which they came."""
    ends = [0, *sorted(cuts), len(order)]
    accumulators = []
    for start, end in itertools.pairwise(ends):
        accumulator = rule.empty(sum(weights))
        for client in order[start:end]:
            accumulator.add(updates[client], weights[client], client)
        accumulators.append(accumulator)
    return accumulators


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        (FedAvg(), ExactSum),
        (Median(kind="median"), Gathered),
        (GeometricMedian(kind="geometric_median"), Gathered),
    ],
    ids=["sum", "gathered, number by number", "gathered, whole updates"],
)
@given(order=st.permutations(range(6)), cuts=st.sets(st.integers(1, 5)), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_neither_order_of_arrival_nor_hosts_change_a_bit_of_the_next_model(section, kind, order, cuts, seed):
    from fedray.aggregation.rules import rule

    made = rule(section, LAYOUT)
    updates, weights = updates_of(seed, 6)
    in_order = hosts(made, updates, weights, range(6), [])
    assert isinstance(in_order[0], kind)
    shuffled = merged(hosts(made, updates, weights, order, cuts))
    assert torch.equal(stepped(made, shuffled), stepped(made, merged(in_order)))
    assert (shuffled.weight, shuffled.added) == (sum(weights), 6)


@given(order=st.permutations(range(6)), cuts=st.sets(st.integers(1, 5)), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_sums_that_a_ring_adds_up_as_plain_numbers_are_the_sum_at_the_server_to_the_bit(order, cuts, seed):
    made = Rule(FedAvg(), LAYOUT)
    updates, weights = updates_of(seed, 6)
    parts = hosts(made, updates, weights, order, cuts)
    around = torch.stack([part.as_numbers() for part in parts]).sum(0)
    reduced = made.empty(sum(weights)).from_numbers(around)
    (alone,) = hosts(made, updates, weights, range(6), [])
    assert torch.equal(reduced.total, alone.total)
    assert (reduced.weight, reduced.added) == (alone.weight, alone.added)


def test_what_is_gathered_does_not_add_up_and_says_so():
    gathered: Accumulator = Gathered(NUMEL, 4)
    assert (ExactSum.adds_up, Gathered.adds_up) == (True, False)
    for call in (gathered.as_numbers, lambda: gathered.from_numbers(torch.zeros(NUMEL))):
        with pytest.raises(NotImplementedError, match="Gathered does not add up"):
            call()


def test_each_update_keeps_its_client_and_weight_in_fp32_whatever_the_dtype_it_came_in():
    gathered = Gathered(2, 10)
    gathered.add(torch.tensor([1.5, 2.5], dtype=torch.float16), 3, 9)
    gathered.add(torch.tensor([1 / 3, 1e-30], dtype=torch.float64), 7, 4)
    values, weights, clients = gathered.result(1, slice(None))
    assert values.dtype == torch.float32
    assert values[:, 0].tolist() == [[np.float32(1 / 3), np.float32(1e-30)], [1.5, 2.5]]
    assert (weights.tolist(), clients) == ([7, 3], (4, 9))


# --- real rounds


def first_round(executor):
    return schedule_round(executor.job.scenario, Radio(executor.job.scenario.network), 1)


def trained_by_hand(executor, clients):
    """Where the numbers end that go from the server through the hands of these clients."""
    work = executor.clients
    numbers = work.model.flat.layout.view(executor.buffer).float().clone()
    for client in clients:
        work.run(1, client, numbers, {})
        numbers = work.model.flat.all.clone()
    return numbers


@pytest.mark.parametrize(
    "changes",
    [
        of_clients(3),
        of_clients(4),
        {"topology": {"kind": "relay", "chains": 3}},
        {"topology": {"kind": "relay", "chains": 2}},
    ],
    ids=["three clients", "four clients", "three chains", "two chains"],
)
def test_a_round_moves_each_number_by_numpys_median_of_what_came_back(changes, tmp_path):
    executor = begun(garments(tmp_path, MEDIAN | IID | changes))
    schedule = first_round(executor)
    base = executor.clients.model.flat.layout.view(executor.buffer).clone()
    ends = [trained_by_hand(executor, chain) for chain in chains(schedule)]
    list(executor.run_round(schedule))
    changed = np.stack([(end - base).numpy() for end in ends]).astype(np.float64)
    expected = (base.double().numpy() + np.median(changed, axis=0)).astype(np.float32)
    assert np.array_equal(executor.clients.model.flat.layout.view(executor.buffer).numpy(), expected)
    assert changed.any(axis=1).all()


def test_an_attacker_among_five_moves_the_mean_far_and_the_median_little(tmp_path):
    (tmp_path / "attacks.py").write_text(
        "import fedray\n\n\n"
        "class Huge(fedray.Hook):\n"
        "    def on_client(self, update, context):\n"
        "        return 500 * update.sign() if context.client == 2 else update\n"
    )
    moved = {}
    for kind in ("median", "fedavg"):
        aggregation = {"kind": kind, "transforms": [{"kind": "attacks:Huge"}]}
        executor = begun(garments(tmp_path, IID | {"aggregation": aggregation}, f"{kind}.yaml"))
        before = executor.clients.model.flat.layout.view(executor.buffer).clone()
        list(executor.run_round(first_round(executor)))
        after = executor.clients.model.flat.layout.view(executor.buffer)
        moved[kind] = float((after - before).abs().max())
    assert moved["median"] < 1 < 50 < moved["fedavg"]


# --- what it takes, and what it cannot go with


def server_memory(file):
    return plan(job_of(file)[0])["memory_bytes"]["server"]


@pytest.mark.parametrize(
    ("changes", "updates"),
    [
        ({}, 5),
        ({"population": {"clients": 5, "per_round": 3}}, 3),
        ({"population": {"clients": 5, "per_round": 3, "over_select": 1}}, 4),
        ({"topology": {"kind": "relay", "chains": 2}}, 2),
        ({"topology": {"kind": "split", "cut": "conv1", "tail": "loss"}}, 5),
        ({"topology": {"kind": "split", "cut": "conv1", "tail": "loss", "variant": "vanilla"}}, 1),
    ],
    ids=["all", "three a round", "one more asked than needed", "two chains", "a split", "one after another"],
)
def test_a_plan_states_four_bytes_a_number_for_each_update_that_the_server_gathers(
    changes, updates, tmp_path
):
    if changes.get("topology", {}).get("variant") == "vanilla":
        changes = changes | {"runtime": {"executor": "serial", "failures": {"data": "abort"}}}
    mean = garments(tmp_path, changes, "mean.yaml")
    median = garments(tmp_path, changes | MEDIAN, "median.yaml")
    numbers = plan(job_of(mean)[0])["trainable_parameters"]
    assert server_memory(median) - server_memory(mean) == 4 * numbers * updates


def test_variants_of_a_sweep_each_state_the_memory_of_their_own_clients(tmp_path):
    variants = {"few": {"population.per_round": 2}, "many": {"population.per_round": 4}}
    file = garments(tmp_path, MEDIAN | {"sweep": {"variants": variants}})
    planned = plan(job_of(file)[0])["variants"]
    memory = {name: planned[name]["memory_bytes"]["server"] for name in variants}
    assert memory["many"] - memory["few"] == 2 * 4 * planned["few"]["trainable_parameters"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            MEDIAN | {"topology": {"kind": "parallel", "reduce": "allreduce"}},
            r"aggregation\.kind: got median with topology\.reduce allreduce, expected .*reduce server",
        ),
        (
            {"aggregation": {"kind": "median", "weighting": "samples"}},
            r"aggregation\.weighting: got 'samples', expected 'uniform'",
        ),
    ],
    ids=["in a ring", "with weights"],
)
def test_a_median_is_refused_where_it_cannot_be_had(changes, line, tmp_path):
    file = garments(tmp_path, changes)
    with pytest.raises(ScenarioError, match=rf"{re.escape(str(file))}:\d+: {line}"):
        job_of(file)


def test_a_rule_of_ones_own_that_gathers_is_refused_in_a_ring_before_anything_trains(tmp_path):
    (tmp_path / "robust.py").write_text(
        "import fedray\n\n\n"
        "class Midrange(fedray.Rule):\n"
        "    accumulator = fedray.Gathered\n\n"
        "    def combine(self, result):\n"
        "        return (result.values.amin(0).double() + result.values.amax(0).double()) / 2\n"
    )
    rule = {"aggregation": {"kind": "robust:Midrange"}, "training.rounds": 1}
    at_server = plan(job_of(garments(tmp_path, rule))[0])
    assert at_server["rounds"] == 1
    ring = rule | {"topology": {"kind": "parallel", "reduce": "allreduce"}}
    with pytest.raises(ScenarioError, match=r"aggregation\.kind: got robust:Midrange .*a ring can only add"):
        plan(job_of(garments(tmp_path, ring, "ring.yaml"))[0])
