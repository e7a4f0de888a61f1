"""Payment for what updates add to the model, in games of known values and in a run."""

import json
import textwrap

import numpy as np
import pytest
import torch

from fedray import checks
from fedray.data.clients import split_test_set
from fedray.executors.model import Model
from fedray.incentives.contributions import leave_one_out, shapley_values
from fedray.planning.plan import plan
from fedray.report import facts, recorded
from fedray.scenario import ScenarioError
from fedray.transport.buffer import Layout
from tests.helpers import ONE_ACTOR, broken_off, garments, job_of, rows, run, timeless, unevaluated

BUDGET = 8.0
BASE = {
    "population": {"clients": 6, "per_round": 4},
    "data.partition": {"kind": "dirichlet", "alpha": 0.5},
    "training.local_steps": 5,
    "incentive": {"kind": "quality_pay", "budget": BUDGET, "contribution": "shapley", "images": 60},
    "adversary": {"clients": [0, 1], "attack": {"kind": "label_flip"}},
}


def scenario(folder, changes=None):
    return garments(folder, BASE | (changes or {}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two rounds, in which clients 0 and 1 turn their labels round; its folder."""
    folder = tmp_path_factory.mktemp("quality")
    run(scenario(folder), folder / "run")
    return folder


def gloves(coalition):
    """What a coalition gets for pairs of gloves, where player 0 has a left one and the others right ones."""
    return float(0 in coalition and len(coalition) > 1)


def test_the_shapley_values_of_the_game_of_gloves():
    assert shapley_values(3, gloves) == pytest.approx([2 / 3, 1 / 6, 1 / 6])


def test_the_shapley_values_of_three_aeroplanes_that_share_a_runway():
    lengths = np.array(
        [1.0, 2.0, 4.0]
    )  # Littlechild and Owen 1973: each part is shared by those that need it
    values = shapley_values(3, lambda planes: max(lengths[list(planes)], default=0.0))
    assert values == pytest.approx([1 / 3, 1 / 3 + 1 / 2, 1 / 3 + 1 / 2 + 2])


def test_leaving_one_out_says_what_the_others_would_miss():
    assert leave_one_out(3, gloves).tolist() == [1, 0, 0]
    assert leave_one_out(1, gloves).tolist() == [0]


def held_out_loss(folder, checkpoint):
    """The loss of a checkpoint's model on the images that the server holds out."""
    job = job_of(folder / "garments.yaml")[1]
    model = Model(job, torch.device("cpu"))
    layout: Layout = model.flat.layout
    model.receive(layout.load(folder / "run" / "checkpoints" / checkpoint / "weights.safetensors"))
    held_out, _ = split_test_set(job.scenario, len(job.dataset.test))
    assert len(held_out) == 60
    return model.learner.measure(job.dataset.test, held_out)["eval_loss"]


def test_contributions_add_up_to_how_much_a_round_lowers_the_loss_on_held_out_images(finished):
    added = [row["contribution"] for row in rows(finished / "run" / "clients.jsonl") if row["round"] == 2]
    lowered = held_out_loss(finished, "round-0001") - held_out_loss(finished, "round-0002")
    assert len(added) == 4
    assert sum(added) == pytest.approx(lowered, abs=1e-6)


def test_a_budget_is_shared_in_proportion_to_what_updates_add(finished):
    for number in (1, 2):
        round_rows = [row for row in rows(finished / "run" / "clients.jsonl") if row["round"] == number]
        added = np.maximum([row["contribution"] for row in round_rows], 0)
        paid = [row["paid"] for row in round_rows]
        assert paid == pytest.approx(BUDGET * added / added.sum())


def test_clients_with_false_labels_are_paid_less_than_others(finished):
    paid = {True: [], False: []}
    for row in rows(finished / "run" / "clients.jsonl"):
        paid[row["client"] in (0, 1)].append(row["paid"])
    assert np.mean(paid[True]) < np.mean(paid[False]) / 2


def test_money_is_in_the_metrics_and_the_plan_counts_what_is_paid_at_most(finished):
    first, last = rows(finished / "run" / "metrics.jsonl")
    assert (first["paid"], last["paid"]) == pytest.approx((BUDGET, 2 * BUDGET))
    assert last["eval_samples"] == 440  # nothing is tested on what is held out
    total = plan(checks.check(finished / "garments.yaml"))["total"]
    assert total["paid"] == 2 * BUDGET
    assert total["social_cost"] == last["social_cost"] > 0
    assert total["energy_j"] == last["energy_j"]
    what = facts.facts(*recorded.read([finished / "run"]), 0)["what"]["incentive"]
    assert what.startswith("quality_pay")
    assert f"paid {last['paid']:.4g}" in what


@pytest.mark.parametrize(("contribution", "models"), [("shapley", 16), ("leave_one_out", 5)])
def test_the_models_that_the_server_evaluates_are_on_its_clock(contribution, models, finished, tmp_path):
    changes = {"incentive": BASE["incentive"] | {"contribution": contribution}}
    paid = plan(checks.check(scenario(tmp_path, changes)))
    unpaid = plan(checks.check(garments(tmp_path, {k: v for k, v in BASE.items() if k != "incentive"})))
    forward = paid["flops_per_sample"] / 3
    server = checks.check(finished / "garments.yaml").scenario.network.server
    seconds = (paid["total"]["sim_time_s"] - unpaid["total"]["sim_time_s"]) / 2
    flops = seconds * server.peak_flops * server.utilisation
    assert flops == pytest.approx(models * 60 * forward, rel=0.1)


def test_a_round_in_which_no_update_arrives_pays_nothing(tmp_path):
    gone = {"kind": "flops", "peak_flops": 1e10, "active_w": 5, "dropout": 1 - 1e-12}
    run(scenario(tmp_path, {"network.device": gone, "training.rounds": 1}), tmp_path / "run")
    (row,) = rows(tmp_path / "run" / "metrics.jsonl")
    assert (row["clients"], row["paid"]) == (0, 0)
    assert {client["contribution"] for client in rows(tmp_path / "run" / "clients.jsonl")} == {None}


OWN = """
    import numpy as np
    import fedray

    class PricedImprovement(fedray.Incentive):
        class Section(fedray.Incentive.Section):
            chooses_clients = False
            bids_for = "nothing"
            validation_images = 60

        def decide(self, offers):
            winners = np.flatnonzero(offers.values > 0)
            return fedray.Outcome(winners, 100 * offers.values[winners])
"""


def test_a_kind_of_one_s_own_pays_for_what_updates_add(tmp_path):
    (tmp_path / "my_prices.py").write_text(textwrap.dedent(OWN))
    changes = {"incentive": {"kind": "my_prices:PricedImprovement"}, "training.rounds": 1}
    with unevaluated():
        run(scenario(tmp_path, changes), tmp_path / "run")
    clients = rows(tmp_path / "run" / "clients.jsonl")
    assert [row["paid"] for row in clients] == [max(0, 100 * row["contribution"]) for row in clients]
    assert rows(tmp_path / "run" / "metrics.jsonl")[0]["paid"] > 0


def sha256(folder):
    return json.loads((folder / "result.json").read_text())["weights_sha256"]


def test_a_run_goes_on_to_the_same_payments(finished, tmp_path):
    broken_off(finished / "run", tmp_path / "run", 2)
    run(finished / "garments.yaml", tmp_path / "run", resume=True)
    assert sha256(tmp_path / "run") == sha256(finished / "run")
    for name in ("metrics.jsonl", "clients.jsonl"):
        again = rows(tmp_path / "run" / name)
        assert timeless(again) == timeless(rows(finished / "run" / name))


def test_actors_pay_the_same(finished, tmp_path, cluster):
    with unevaluated():
        run(scenario(tmp_path, {"runtime": ONE_ACTOR, "training.rounds": 1}), tmp_path / "run")
    first = [row for row in rows(finished / "run" / "clients.jsonl") if row["round"] == 1]
    assert rows(tmp_path / "run" / "clients.jsonl") == first


FLTRUST = {"kind": "fltrust", "root_samples": 50}
MISREPORT = {"clients": [0], "attack": {"kind": "misreport", "factor": 2.0}}
PRIVACY = {"kind": "central", "clip_norm": 1.0, "noise_multiplier": 1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topology": {"kind": "relay"}}, "got quality_pay in relay, expected topology.kind parallel"),
        ({"topology": {"kind": "parallel", "reduce": "allreduce"}}, "got quality_pay with topology.reduce"),
        ({"secure_aggregation": {}}, "got quality_pay with secure aggregation, expected another"),
        ({"privacy": PRIVACY}, "got central beside incentive quality_pay, expected one of them"),
        ({"aggregation": FLTRUST}, "got fltrust beside incentive quality_pay, expected another rule"),
        ({"model": {"kind": "gan"}}, "got quality_pay for a gan, expected a model that learns labels"),
        ({"adversary": MISREPORT}, "got misreport beside incentive quality_pay, for which nobody bids"),
        ({"population": {"clients": 9}}, "population.per_round: got 9, expected at most 8 beside contrib"),
        ({"incentive": BASE["incentive"] | {"budget": -1}}, "incentive.budget: got -1, expected a number ab"),
        ({"incentive": BASE["incentive"] | {"images": 0}}, "incentive.images: got 0, expected at least 1"),
    ],
)
def test_check_refuses_what_it_cannot_go_with(changes, message, tmp_path):
    with pytest.raises(ScenarioError, match=message):
        checks.check(scenario(tmp_path, changes))


def test_as_many_images_as_there_are_to_test_on_are_refused(tmp_path):
    with pytest.raises(ScenarioError, match=r"incentive\.images: got 500, expected less than the 500"):
        plan(checks.check(scenario(tmp_path, {"incentive": BASE["incentive"] | {"images": 500}})))
