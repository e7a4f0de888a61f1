"""What each mechanism does to updates and gradients, against closed forms and per-sample gradients."""

import json
import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fedray.network.radio import Radio
from fedray.planning.round import schedule_round
from fedray.privacy.accounting import installed
from fedray.privacy.central import Central, multiplier_beside_count, next_clip_norm
from fedray.privacy.local import Local
from fedray.privacy.noise import gaussian
from fedray.privacy.sample import Sample
from fedray.privacy.tree import Tree, covering
from fedray.randomness import SERVER
from fedray.report.facts import facts
from fedray.report.recorded import read
from fedray.scenario import ScenarioError, load
from fedray.scenario import privacy as sections
from fedray.transport.hooks import HookContext
from tests.helpers import begun, garments, rows, run

UNIFORM = {"kind": "fedavg", "weighting": "uniform"}
CENTRAL = {"kind": "central", "clip_norm": 1.0, "noise_multiplier": 0.5}


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    """Five clients a round."""
    return load(garments(tmp_path_factory.mktemp("mechanisms"))).scenario


def test_a_sum_is_divided_by_the_expected_clients_however_many_came(scenario):
    section = sections.Central(kind="central", clip_norm=2.0, noise_multiplier=1e-9)
    mean = torch.tensor([[3.0, -6.0]], dtype=torch.float64)
    context = HookContext(0, 1, SERVER, added=2)
    combined = Central(section, scenario).on_combined(mean, slice(0, 2), context)
    assert combined.tolist()[0] == pytest.approx([3 * 2 / 5, -6 * 2 / 5])


def test_noise_on_the_mean_has_the_deviation_of_the_multiplier_times_the_norm_over_the_clients(scenario):
    section = sections.Central(kind="central", clip_norm=3.0, noise_multiplier=2.0)
    nothing = torch.zeros(1, 200_000, dtype=torch.float64)
    context = HookContext(0, 1, SERVER)
    noise = Central(section, scenario).on_combined(nothing, slice(0, None), context)
    assert float(noise.std()) == pytest.approx(2 * 3 / 5, rel=0.01)


def test_a_local_update_leaves_with_noise_of_the_multiplier_times_the_norm(scenario):
    section = sections.Local(kind="local", clip_norm=2.0, noise_multiplier=1.5)
    update = torch.zeros(100_000)
    update[0] = 10.0
    sent = Local(section, scenario).on_client(update, HookContext(0, 1, 3))
    noise = sent.clone()
    noise[0] -= 2.0
    assert float(noise.std()) == pytest.approx(3.0, rel=0.02)
    assert abs(float(noise[0])) < 15


def test_adaptive_clipping_has_the_papers_numbers():
    assert multiplier_beside_count(1.0, 5.0) == pytest.approx(1.005038, abs=1e-6)
    adaptive = sections.AdaptiveClipping(quantile=0.5, learning_rate=0.2)
    assert next_clip_norm(1.0, 0.8, adaptive) == pytest.approx(0.941765, abs=1e-6)


def test_an_adaptive_norm_follows_the_share_of_updates_that_clients_count(scenario):
    adaptive = sections.AdaptiveClipping(count_noise=1e-9)
    section = sections.Central(kind="central", clip_norm=1.0, noise_multiplier=1e-10, adaptive=adaptive)
    hook = Central(section, scenario)
    counts = {}
    for client, length in enumerate([0.1, 0.5, 0.9, 1.0, 7.0]):
        own = HookContext(0, 1, client)
        assert float(hook.on_client(torch.tensor([length]), own)) == pytest.approx(min(1.0, length))
        counts["unclipped"] = counts.get("unclipped", 0) + own.counts["unclipped"]
    kept = hook.kept_by_server(HookContext(0, 1, SERVER, counts=counts, added=5))
    assert kept["clip_norm"] == pytest.approx(0.941765, abs=1e-6)  # four of five, as in the paper's example
    assert float(hook.on_client(torch.tensor([7.0]), HookContext(0, 2, 0, server=kept))) == pytest.approx(
        0.941765, abs=1e-6
    )


@pytest.mark.parametrize("rounds", range(1, 18))
def test_the_nodes_of_a_tree_cover_each_round_once_and_are_few(rounds):
    leaves = [place * 2**height + i for height, place in covering(rounds) for i in range(2**height)]
    assert sorted(leaves) == list(range(rounds))
    assert len(list(covering(rounds))) == rounds.bit_count()


def test_the_noise_on_the_sum_of_seven_rounds_is_that_of_three_nodes(scenario):
    section = sections.Tree(kind="tree", clip_norm=1.0, noise_multiplier=1.0)
    hook = Tree(section, scenario)
    nothing = torch.zeros(1, 100_000, dtype=torch.float64)
    changes = [hook.on_combined(nothing, slice(0, None), HookContext(0, t, SERVER)) for t in range(1, 9)]
    assert float(torch.stack(changes[:7]).sum(0).std()) == pytest.approx(math.sqrt(3) / 5, rel=0.02)
    assert float(torch.stack(changes).sum(0).std()) == pytest.approx(1 / 5, rel=0.02)  # one node of eight


def test_clipped_gradients_are_those_that_opacus_takes_of_each_sample(scenario):
    opacus = pytest.importorskip("opacus", reason="Opacus is in the dev group: uv sync")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    pictures = torch.randn(7, 6)
    labels = torch.randint(3, (7,))
    by_opacus = opacus.GradSampleModule(deepcopy(network), loss_reduction="sum")
    cross_entropy(by_opacus(pictures), labels, reduction="sum").backward()
    together = torch.cat([p.grad_sample.flatten(1) for p in by_opacus.parameters()], dim=1)
    norm = float(together.norm(dim=1).median())
    scale = (norm / together.norm(dim=1)).clamp(max=1)
    expected = (scale[:, None] * together).sum(0) / 8

    flat = torch.zeros(together.shape[1])
    start = 0
    for p in network.parameters():
        p.grad = flat[start : start + p.numel()].view(p.shape)
        start += p.numel()

    def loss_of(i):
        return cross_entropy(network(pictures[i : i + 1]), labels[i : i + 1])

    section = sections.Sample(kind="sample", clip_norm=norm, noise_multiplier=1e-12)
    one_by_one = Sample(section, scenario)
    loss = one_by_one.gradient(flat, loss_of, 7, 8, 0)
    assert torch.allclose(flat, expected, atol=1e-6)
    assert loss == pytest.approx(cross_entropy(network(pictures), labels).item(), rel=1e-5)


def test_batches_of_private_samples_have_the_size_on_average(scenario):
    section = sections.Sample(kind="sample", clip_norm=1.0, noise_multiplier=1.0)
    drawn = Sample(section, scenario).batches([10] * 2000, 100, np.random.default_rng(0))
    sizes = [len(batch) for batch in drawn]
    assert np.mean(sizes) == pytest.approx(10, rel=0.03)
    assert np.var(sizes) == pytest.approx(100 * 0.1 * 0.9, rel=0.1)  # a binomial's


def test_secret_noise_is_normal_and_never_the_same():
    one = gaussian(300_000, "secret", 1)
    assert float(one.mean()) == pytest.approx(0, abs=0.01)
    assert float(one.std()) == pytest.approx(1, abs=0.01)
    assert not torch.equal(one, gaussian(300_000, "secret", 1))
    assert torch.equal(gaussian(5, "seed", 1), gaussian(5, "seed", 1))


def test_a_round_that_nobody_is_drawn_for_adds_noise_too(tmp_path):
    drawn = {"clients": 5, "per_round": 1, "sampling": "poisson"}
    changes = {"population": drawn, "aggregation": UNIFORM, "privacy": CENTRAL}
    executor = begun(garments(tmp_path, changes))
    scenario = executor.job.scenario
    radio = Radio(scenario.network, 5, scenario.seed, executor.job.folder)
    schedules = (schedule_round(scenario, radio, t, executor.shared) for t in range(1, 100))
    empty = next(schedule for schedule in schedules if not schedule.clients)
    before = executor.layout.view(executor.buffer).clone()
    assert list(executor.run_round(empty)) == []
    noise = executor.layout.view(executor.buffer) - before
    assert float(noise.std()) == pytest.approx(CENTRAL["noise_multiplier"], rel=0.01)  # of one client


REFUSED = [
    ({"privacy.noise_multiplier": None}, "privacy: got neither of epsilon and noise_multiplier"),
    ({"privacy.epsilon": 1.0}, "privacy: got both of epsilon and noise_multiplier"),
    ({"privacy.epsilon": 0}, "privacy.epsilon: got 0"),
    ({"privacy.epsilon": -1.0}, "privacy.epsilon: got -1.0"),
    ({"privacy.delta": 0}, "privacy.delta: got 0"),
    ({"privacy.delta": -0.1}, "privacy.delta: got -0.1"),
    ({"aggregation.weighting": "samples"}, "aggregation.weighting: got samples with privacy central"),
    ({"aggregation": {"kind": "median"}}, "aggregation.kind: got median with privacy central"),
    ({"aggregation": {"kind": "scaffold"}}, "aggregation.kind: got scaffold with privacy central"),
    ({"topology": {"kind": "parallel", "reduce": "allreduce"}}, "privacy.kind: got central with topology"),
    ({"topology": {"kind": "split", "cut": "conv1"}}, "privacy.kind: got central in a split"),
    ({"privacy.adaptive": {"count_noise": 0.2}}, "privacy.adaptive.count_noise: got 0.2 with noise_mult"),
    ({"privacy.kind": "tree", "privacy.noise": "secret"}, "privacy.noise: got secret with privacy tree"),
    ({"privacy.kind": "sample", "training.precision": "fp16"}, "training.precision: got fp16 with privacy"),
    ({"privacy.kind": "sample", "runtime.gang": 2}, "runtime.gang: got 2 with privacy sample"),
    (
        {"population.sampling": "poisson", "population.selection": "round_robin"},
        "population.selection: got round_robin with sampling poisson",
    ),
]


@pytest.mark.parametrize(("changes", "problem"), REFUSED)
def test_what_has_no_bound_or_no_sense_is_refused_with_the_reason(changes, problem, tmp_path):
    with pytest.raises(ScenarioError) as refused:
        load(garments(tmp_path, {"aggregation": UNIFORM, "privacy": dict(CENTRAL)} | changes))
    assert problem in str(refused.value)


def test_a_small_population_and_a_seeds_noise_are_said(scenario):
    few = " ".join(sections.Central(**CENTRAL).notes(scenario))
    assert "hides a client among 5: with fewer than 500" in few
    assert "this is a simulation" in few
    secret = " ".join(sections.Central(**CENTRAL, noise="secret").notes(scenario))
    assert "no second run has the same bits" in secret


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    """The folder of a relay with DP-SGD in each turn."""
    folder = tmp_path_factory.mktemp("relay")
    privacy = {"kind": "sample", "clip_norm": 1.0, "noise_multiplier": 1.0}
    file = garments(folder, {"topology": {"kind": "relay"}, "privacy": privacy})
    run(file, folder / "run")
    return folder / "run"


def test_a_private_run_says_what_it_protects_and_what_it_has_spent(relay):
    said = json.loads((relay / "privacy.json").read_text())
    assert said["unit"].startswith("a sample of a client, from everybody else: neighbours")
    spent = [row["epsilon"] for row in rows(relay / "metrics.jsonl")]
    assert len(spent) == 2
    if installed():
        assert 0 < spent[0] < spent[1] == said["epsilon"]
        assert said["epsilon_pld"] < said["epsilon"]
    else:
        assert spent == [None, None]


def test_the_report_says_that_noise_from_the_seed_is_a_simulation(relay):
    what = facts(read([relay])[0], 0)["what"]["privacy"]
    assert "Protected: a sample of a client" in what
    assert "a simulation, since who knows the seed can take the noise away" in what
