"""The robust rules: numbers of the reference and of another library, what an attacker can do, and limits."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fedray.aggregation.accumulators import Gathered, Updates
from fedray.aggregation.bulyan import mean_near_median, selected
from fedray.aggregation.fltrust import trusted_mean
from fedray.aggregation.foolsgold import learning_rates
from fedray.aggregation.krum import scores
from fedray.aggregation.robust import squared_distances
from fedray.aggregation.rules import rule
from fedray.executors.global_step import GlobalStep
from fedray.executors.root_update import RootUpdate
from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from fedray.scenario.aggregation import Aggregation, FfaLora
from fedray.transport.buffer import Layout
from fedray.transport.hooks import HookChain, HookContext
from tests.helpers import begun, garments, job_of, rows, run

SECTIONS = TypeAdapter(Aggregation)
# Seven updates of two numbers, the last two sent by attackers (shared/reference/privacy.md, Known answers).
SEVEN = [(1, 1), (1, 2), (2, 1), (2, 2), (1.5, 1.5), (10, -10), (12, -9)]
CLOSE = {"tolerance": 1e-12, "iterations": 1000}
ROBUST = [  # of 11 updates, 2 from attackers
    {"kind": "median"},
    {"kind": "trimmed_mean", "trim": 2},
    {"kind": "krum", "attackers": 2},
    {"kind": "multi_krum", "attackers": 2},
    {"kind": "multi_krum", "attackers": 2, "selected": 3},
    {"kind": "bulyan", "attackers": 2},
    {"kind": "geometric_median", **CLOSE},
    {"kind": "norm_bound"},
    {"kind": "norm_bound", "bound": 3.0},
    {"kind": "centered_clipping", "tau": 2.0, "iterations": 3},
    {"kind": "foolsgold"},
]
NAMES = [" ".join(map(str, options.values())) for options in ROBUST]


def made(options, numbers, trained=None):
    layout = Layout(("w",), ((numbers,),), "fp32", numbers if trained is None else trained)
    return rule(SECTIONS.validate_python(options), layout)


def gathered(values, clients=None):
    values = torch.as_tensor(values, dtype=torch.float32)
    clients = tuple(range(len(values))) if clients is None else clients
    return Updates(values[:, None], torch.ones(len(values), dtype=torch.int64), clients)


def combined(options, values, state=None, clients=None):
    """The rule's update [numbers], and what the server keeps."""
    combines = made(options, len(values[0])).combine_with_state
    result, kept = combines(gathered(values, clients), state or {})
    return result[0], kept


def draws(seed, n=11, numbers=6):
    return np.random.default_rng(seed).normal(size=(n, numbers)).astype(np.float32)


# --- numbers that somebody else computed


@pytest.mark.parametrize(
    ("options", "name", "arguments"),
    [
        ({"kind": "median"}, "Median", {}),
        ({"kind": "trimmed_mean", "trim": 2}, "TrMean", {"f": 2}),
        ({"kind": "krum", "attackers": 2}, "Krum", {"f": 2}),
        ({"kind": "multi_krum", "attackers": 2}, "MultiKrum", {"f": 2}),
        ({"kind": "geometric_median", **CLOSE}, "GeometricMedian", {"nu": 1e-6, "T": 1000}),
        (
            {"kind": "centered_clipping", "tau": 1.0, "iterations": 3},
            "CenteredClipping",
            {"L": 3, "tau": 1.0},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rules_equal_those_of_byzfl(options, name, arguments):
    rules = pytest.importorskip("byzfl.aggregators.aggregators", reason="ByzFL is in the dev group: uv sync")
    values = np.concatenate([draws(0, 9, 50), 3 * draws(1, 2, 50) + 5])
    expected = getattr(rules, name)(**arguments)(values.astype(np.float64))
    assert combined(options, values)[0].tolist() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kind": "median"}, (2, 1)),
        ({"kind": "trimmed_mean", "trim": 2}, (1.833333, 1.166667)),
        ({"kind": "krum", "attackers": 2}, (1.5, 1.5)),
        ({"kind": "multi_krum", "attackers": 2}, (1.5, 1.5)),
        ({"kind": "geometric_median", **CLOSE}, (1.769237, 1.201577)),
        ({"kind": "geometric_median", "iterations": 8}, (1.83914, 1.13663)),
        ({"kind": "norm_bound"}, (1.493019, 0.594051)),
        ({"kind": "centered_clipping", "tau": 1.0, "iterations": 3}, (1.606406, 0.931654)),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_two_attackers_of_seven_give_the_references_result(options, expected):
    assert combined(options, SEVEN)[0].tolist() == pytest.approx(expected, abs=5e-6)


def test_krums_scores_are_the_references():
    distances = squared_distances(torch.tensor(SEVEN, dtype=torch.float32)).numpy()
    assert scores(distances, 2) == pytest.approx([2.5, 2.5, 2.5, 2.5, 1.5, 392, 425.5], rel=1e-12)


def test_a_root_update_of_clean_samples_weighs_the_others_as_the_reference_says():
    trusted = trusted_mean(torch.tensor(SEVEN, dtype=torch.float32), torch.tensor([1.0, 1.0]))
    assert trusted.tolist() == pytest.approx((0.984364, 0.928795), abs=1e-6)


def test_an_update_against_the_root_update_counts_nothing_and_all_of_them_give_none():
    root = torch.tensor([3.0, 4.0])
    against = torch.tensor([[-3.0, -4.0], [-1e3, 0.0]])
    assert trusted_mean(torch.cat([against, 100 * root[None]]), root).tolist() == pytest.approx([3, 4])
    assert trusted_mean(against, root).tolist() == [0, 0]


def test_distances_of_updates_far_from_zero_keep_what_they_differ_by():
    far = torch.tensor([[1000.0, 1000.0], [1000.0, 1000.0 + 2.0**-10]])
    assert squared_distances(far)[0, 1] == 2.0**-20


def test_whole_updates_longer_than_one_part_are_measured_in_all_their_numbers(monkeypatch):
    values = draws(3, numbers=50)
    whole = [combined(options, values)[0] for options in ROBUST]
    monkeypatch.setattr("fedray.aggregation.robust.CHUNK", 7 * len(values))
    for options, expected in zip(ROBUST, whole, strict=True):
        torch.testing.assert_close(combined(options, values)[0], expected, rtol=1e-9, atol=1e-12)


# --- what holds of each


@pytest.mark.parametrize("options", ROBUST, ids=NAMES)
@given(order=st.permutations(range(11)), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_which_client_sends_which_update_does_not_change_the_result(options, order, seed):
    values = draws(seed)
    torch.testing.assert_close(
        combined(options, values[list(order)])[0], combined(options, values)[0], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("options", ROBUST[:7], ids=NAMES[:7])
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_updates_that_are_all_moved_move_the_result_as_far(options, seed):
    """Those that measure lengths from zero are other than that by intent."""
    values = np.round(64 * draws(seed)) / 64  # so that moving them rounds nothing
    moved = combined(options, values + 5)[0] - 5
    torch.testing.assert_close(moved, combined(options, values)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", ROBUST[:8], ids=NAMES[:8])
def test_equal_updates_give_that_update(options):
    update = draws(0, n=1)
    result, _ = combined(options, np.repeat(update, 11, axis=0))
    torch.testing.assert_close(result, torch.from_numpy(update[0]).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", ROBUST[:7], ids=NAMES[:7])
@given(seed=st.integers(0, 1000), sign=st.sampled_from([-1, 1]))
@settings(max_examples=10, deadline=None)
def test_attackers_a_million_away_leave_the_result_among_the_honest_updates(options, seed, sign):
    honest = draws(seed, n=9)
    attacks = sign * 1e6 * np.ones((2, 6), np.float32)
    result = combined(options, np.concatenate([attacks, honest]))[0].numpy()
    slack = 1.0 if options["kind"] == "geometric_median" else 1e-9  # it is pulled, but not far
    assert (result >= honest.min(0) - slack).all()
    assert (result <= honest.max(0) + slack).all()


@pytest.mark.parametrize(
    ("options", "bound"),
    [({"kind": "norm_bound", "bound": 3.0}, 3.0), ({"kind": "centered_clipping", "tau": 2.0}, 2.0)],
    ids=["norm bound", "centered clipping"],
)
def test_an_attacker_a_million_away_moves_a_clipped_mean_by_its_share_of_the_bound(options, bound):
    none = np.concatenate([draws(1, n=10), np.zeros((1, 6), np.float32)])
    far = none.copy()
    far[-1] = 1e6
    moved = combined(options, far)[0] - combined(options, none)[0]
    assert moved.norm().item() == pytest.approx(bound / 11)


def test_bulyan_leaves_out_the_attacker_then_takes_the_values_next_to_the_median():
    """By hand: Krum takes 3, 2, 4, 1 and 5, of which 2, 3 and 4 are nearest to 3."""
    values = [[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [100.0]]
    distances = squared_distances(torch.tensor(values)).numpy()
    assert selected(distances, 1).tolist() == [1, 2, 3, 4, 5]
    assert combined({"kind": "bulyan", "attackers": 1}, values)[0].tolist() == [3]


def test_of_two_values_equally_near_to_the_median_the_smaller_is_taken():
    values = torch.tensor([[10.0], [4.0], [1.0], [3.0], [2.0]], dtype=torch.float64)
    assert mean_near_median(values, 2).tolist() == [2.5]


def test_one_attacker_with_three_clients_counts_as_nobody_in_foolsgold():
    sybil = (-1.0, 0.0, 0.0)
    result, _ = combined({"kind": "foolsgold"}, [(0, 1, 0), sybil, sybil, sybil, (0, 0, 1)])
    assert result.tolist() == [0, 0.5, 0.5]


def test_foolsgold_weighs_clients_by_the_one_most_similar_to_them_through_a_logit():
    """Two with a cosine of 0.5 have 1 - 0.5, whose logit is 0, beside one with a cosine of 0."""
    cosines = torch.tensor([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]], dtype=torch.float64)
    assert learning_rates(cosines, 1.0).tolist() == [0.5, 0.5, 1]
    assert learning_rates(cosines, 0.5).tolist() == [0.25, 0.25, 1]


def test_foolsgold_remembers_what_clients_sent_in_rounds_before():
    """By what they send in the third round alone, clients 2 and 5 would count as much as 7."""
    first, kept = combined({"kind": "foolsgold"}, [(3, 0), (3, 0), (0, 1)], clients=(2, 5, 7))
    assert first.tolist() == [0, 1]
    _, kept = combined({"kind": "foolsgold"}, [(1, 1), (3, 0), (0, 1)], kept, clients=(0, 5, 7))
    assert kept["clients"].tolist() == [2, 5, 7, 0]
    assert kept["history"].tolist() == [[3, 0], [6, 0], [0, 2], [1, 1]]
    third, _ = combined({"kind": "foolsgold"}, [(0, -1), (-1, 0), (0, 1)], kept, clients=(2, 5, 7))
    assert third[1] > 0.9


def test_centered_clipping_begins_where_the_round_before_ended():
    options = {"kind": "centered_clipping", "tau": 1.0}
    state = {}
    for _ in range(3):
        result, state = combined(options, SEVEN, state)
    at_once = combined(options | {"iterations": 3}, SEVEN)[0]
    assert torch.equal(result, at_once)
    assert torch.equal(state["centre"], at_once)


# --- the server optimizer behind them


@pytest.mark.parametrize("optimizer", ["fedavgm", "fedadam", "fedyogi"])
@pytest.mark.parametrize("options", [ROBUST[0], ROBUST[9]], ids=["a median", "centered clipping"])
def test_a_server_optimizer_takes_the_combined_update_as_it_takes_a_mean(options, optimizer):
    """And no step is taken by numbers that only travel."""
    numbers = 6
    trained = 4
    robust = made(options | {"server_optimizer": {"kind": optimizer}}, numbers, trained)
    alone = made({"kind": optimizer}, numbers, trained)
    old = torch.zeros(numbers)
    expected = torch.zeros(1, trained, dtype=torch.float64)
    state = {}
    kept = {}
    centre = {}
    for seed in range(3):
        values = draws(seed)
        accumulated = Gathered(numbers, 11)
        for client, update in enumerate(values):
            accumulated.add(torch.from_numpy(update), 1, client)
        context = HookContext(0, seed + 1, -1)
        before = old.double()
        step = GlobalStep(robust, HookChain([], torch.float32), accumulated, old, state, 1.0, 0, context)
        old, arrays = step.run()
        state = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
        update, centre = combined(options, values, centre)
        expected, kept = alone.step(expected, update[None, :trained], kept, 1.0, 0)
        torch.testing.assert_close(old[:trained].double(), expected[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(old[trained:].double(), (before + update)[trained:], rtol=0, atol=1e-6)


# --- in a scenario

IID = {"data.partition": {"kind": "iid"}}


@pytest.mark.parametrize(
    ("aggregation", "changes", "line"),
    [
        (
            {"kind": "krum", "attackers": 2},
            {},
            "attackers: got 2 for krum with 5 updates a round, expected at most 1, or more updates: it needs "
            "n >= 2 attackers + 3",
        ),
        ({"kind": "multi_krum", "attackers": 2}, {}, "attackers: got 2 for multi_krum with 5 updates"),
        (
            {"kind": "multi_krum", "attackers": 1, "selected": 5},
            {},
            "selected: got 5, expected at most 4: the updates of a round but for 1",
        ),
        (
            {"kind": "bulyan", "attackers": 1},
            {},
            "attackers: got 1 for bulyan with 5 updates a round, expected at most 0, or more updates: it "
            "needs n >= 4 attackers + 3",
        ),
        (
            {"kind": "trimmed_mean", "trim": 2},
            {"population": {"clients": 5, "per_round": 4}},
            "trim: got 2 for trimmed_mean with 4 updates a round, expected at most 1, or more updates: it "
            "needs n > 2 trim",
        ),
        (
            {"kind": "krum", "attackers": 0},
            {"topology": {"kind": "relay", "chains": 1}},
            "attackers: got 0 for krum with 1 updates a round, expected more updates",
        ),
        (
            {"kind": "foolsgold"},
            {"topology": {"kind": "relay", "chains": 2}},
            "kind: got foolsgold with 2 updates of 5 clients, expected topology.kind parallel",
        ),
        (
            {"kind": "krum", "attackers": 1},
            {"topology": {"kind": "parallel", "reduce": "allreduce"}},
            "kind: got krum with topology.reduce allreduce, expected topology.reduce server",
        ),
        (
            {"kind": "fltrust", "root_samples": 500},
            {},
            "root_samples: got 500, expected less than the 500 images of the test set",
        ),
        (
            {"kind": "fltrust", "root_samples": 50},
            {"topology": {"kind": "split", "cut": "conv1", "tail": "loss"}},
            "kind: got fltrust in a split, expected",
        ),
        (
            {"kind": "median", "ffa_lora": True},
            {},
            "ffa_lora: got true with tuning full, expected tuning.kind",
        ),
        ({"kind": "norm_bound", "weighting": "samples"}, {}, "weighting: got 'samples', expected 'uniform'"),
        ({"kind": "norm_bound", "bound": 0.0}, {}, "bound"),
        ({"kind": "krum", "attackers": -1}, {}, "attackers: got -1"),
        ({"kind": "centered_clipping", "tau": 0.0}, {}, "tau: got 0.0"),
    ],
)
def test_what_a_rule_cannot_hold_is_refused(aggregation, changes, line, tmp_path):
    file = garments(tmp_path, changes | {"aggregation": aggregation})
    with pytest.raises(ScenarioError, match=rf":\d+: aggregation\.{re.escape(line)}"):
        plan(job_of(file)[0])


@pytest.mark.parametrize(
    ("aggregation", "bytes_a_number"),
    [
        ({"kind": "trimmed_mean", "trim": 1}, 4 * 3),
        ({"kind": "krum", "attackers": 0}, 2 * 4 * 3),
        ({"kind": "centered_clipping", "tau": 1.0}, 2 * 4 * 3 + 8),
        ({"kind": "foolsgold"}, 2 * 4 * 3 + 4 * 5),
    ],
    ids=["number by number", "whole updates", "with the last result", "with every client's history"],
)
def test_a_plan_states_what_the_server_has_of_three_updates_of_five_clients(
    aggregation, bytes_a_number, tmp_path
):
    memory = []
    for options in (aggregation, {"kind": "fedavg"}):
        changes = {"aggregation": options, "population": {"clients": 5, "per_round": 3}}
        planned = plan(job_of(garments(tmp_path, changes, f"{options['kind']}.yaml"))[0])
        memory.append(planned["memory_bytes"]["server"])
    assert memory[0] - memory[1] == bytes_a_number * planned["trainable_parameters"]


def test_a_round_with_fewer_updates_than_a_rule_needs_leaves_the_model_as_it_is(tmp_path):
    changed = {}
    for attackers in (0, 1):
        aggregation = {"kind": "krum", "attackers": attackers}
        executor = begun(garments(tmp_path, IID | {"aggregation": aggregation}, f"{attackers}.yaml"))
        before = executor.buffer.copy()
        accumulated = executor.clients.rule.empty(5)
        for client in range(4):  # of five, one was lost on its way
            update = torch.full((executor.layout.numel,), 0.1 * client)
            accumulated.add(update, 1, client)
        executor.buffer, executor.state = executor.server.aggregate(
            executor.layout, executor.buffer, executor.state, 1, 5, [accumulated]
        )
        changed[attackers] = not np.array_equal(executor.buffer, before)
    assert changed == {0: True, 1: False}


def test_a_run_with_histories_and_an_optimizer_goes_on_from_its_checkpoint_with_the_same_bits(tmp_path):
    aggregation = {"kind": "foolsgold", "server_optimizer": {"kind": "fedadam"}}
    file = garments(tmp_path, IID | {"aggregation": aggregation, "training.rounds": 2})
    whole = run(file, tmp_path / "whole")
    first = garments(tmp_path, IID | {"aggregation": aggregation, "training.rounds": 1}, "first.yaml")
    run(first, tmp_path / "part")
    resolved = tmp_path / "part" / "scenario.resolved.yaml"
    resolved.write_text(re.sub(r"(?m)^(\s+rounds:) 1$", r"\1 2", resolved.read_text()))
    assert run(file, tmp_path / "part", resume=True)["weights_sha256"] == whole["weights_sha256"]
    assert [row["round"] for row in rows(tmp_path / "part" / "metrics.jsonl")] == [1, 2]


def test_with_ffa_lora_a_robust_rule_freezes_what_ffa_lora_freezes():
    for options in ROBUST:
        assert SECTIONS.validate_python(options | {"ffa_lora": True}).frozen == FfaLora.frozen
        assert SECTIONS.validate_python(options).frozen == ()


# --- FLTrust: the server trains too

FLTRUST = {"kind": "fltrust", "root_samples": 100}


def test_with_fltrust_the_server_trains_on_samples_that_are_not_measured_and_attackers_count_nothing(
    tmp_path,
):
    (tmp_path / "attacks.py").write_text(
        "import fedray\n\n\n"
        "class Against(fedray.Hook):\n"
        "    def on_client(self, update, context):\n"
        "        return -5 * update if context.client < 2 else update\n"
    )
    attack = {"transforms": [{"kind": "attacks:Against"}]}
    training = {"training.rounds": 3, "training.local_steps": 20, "training.batch_size": 16}
    accuracy = {}
    for kind, options in {"fltrust": FLTRUST, "fedavg": {"kind": "fedavg"}}.items():
        file = garments(tmp_path, IID | training | {"aggregation": options | attack}, f"{kind}.yaml")
        accuracy[kind] = run(file, tmp_path / kind)["final"]["eval_accuracy"]
    assert accuracy["fltrust"] > 0.3 > accuracy["fedavg"]
    assert accuracy["fltrust"] * 400 == pytest.approx(round(accuracy["fltrust"] * 400))  # of the other 400


def test_the_servers_own_update_depends_on_round_and_model_alone(tmp_path):
    """So that a server that was started anew goes on with the same bits."""
    executor = begun(garments(tmp_path, {"aggregation": FLTRUST}))
    root = RootUpdate(executor.job)
    first = root.of(1, executor.buffer, executor.state)
    second = root.of(2, executor.buffer, executor.state)
    assert torch.equal(RootUpdate(executor.job).of(2, executor.buffer, executor.state), second)
    assert not torch.equal(first, second)


def test_a_plan_counts_the_servers_training_in_time_and_memory(tmp_path):
    changes = {"aggregation": FLTRUST, "training.rounds": 1}
    planned = plan(job_of(garments(tmp_path, changes, "fltrust.yaml"))[0])
    mean = plan(job_of(garments(tmp_path, {"training.rounds": 1}, "mean.yaml"))[0])
    numbers = planned["trainable_parameters"]
    memory = planned["memory_bytes"]
    assert memory["server"] - mean["memory_bytes"]["server"] == memory["client"] + 2 * 4 * numbers * 6
    assert planned["total"]["sim_time_s"] > mean["total"]["sim_time_s"]
