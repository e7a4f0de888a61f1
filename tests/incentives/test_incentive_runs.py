"""An incentive in a run: who takes part, what it costs and is paid, and what misreports gain."""

import re
import textwrap

import numpy as np
import pytest

from fedray import checks
from fedray.incentives.auction import reverse_auction
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.planning.client_costs import known_costs, private_factors
from fedray.planning.plan import plan
from fedray.planning.round import schedule_round
from fedray.planning.shared import Shared
from fedray.planning.workload import measure
from fedray.randomness import generator
from fedray.report import facts, page, recorded
from fedray.runs.folder import RunFolder
from fedray.scenario import ScenarioError
from tests.helpers import garments, job_of, rows, run

MIX = {
    "kind": "mix",
    "of": [
        {"share": 1, "device": {"kind": "flops", "peak_flops": 1.0e9, "active_w": 5}},
        {"share": 1, "device": {"kind": "flops", "peak_flops": 1.0e10, "active_w": 10}},
    ],
}
AUCTION = {"kind": "auction", "unit_value": 0.1, "second_price": 0.5}
CHANGES = {
    "population": {"clients": 6, "per_round": 2},
    "incentive": AUCTION,
    "network.device": MIX,
    "data.partition": {"kind": "dirichlet", "alpha": 0.5},
}
LIE = {"clients": [0, 1, 2, 3, 4, 5], "attack": {"kind": "misreport", "factor": 3.0}}


def scenario(folder, changes=None, name="garments.yaml"):
    return garments(folder, CHANGES | (changes or {}), name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two rounds, the folder."""
    folder = tmp_path_factory.mktemp("auction")
    run(scenario(folder), folder / "run")
    return folder


def costs_and_work(file):
    loaded, job = job_of(file)
    known = loaded.scenario
    samples = [20 + 10 * c for c in range(known.population.clients)]
    work = measure(known, job.folder).of(known, samples)
    radio = Radio(known.network, known.population.clients, known.seed)
    clients = np.arange(known.population.clients)
    costs = known_costs(known, radio, RoundStart(1, 0.0), work, clients) * private_factors(known, clients)
    return known, radio, work, samples, costs


@pytest.mark.parametrize(
    ("prices", "column"),
    [
        ({"joule_price": 1.0, "second_price": 0.0}, "energy_j"),
        ({"joule_price": 0.0, "second_price": 1.0}, "sim_time_s"),
    ],
)
def test_the_winners_costs_are_the_joules_and_seconds_that_the_clock_gives_them(prices, column, tmp_path):
    incentive = AUCTION | prices | {"private_factor": [1.0, 1.0]}
    run(scenario(tmp_path, {"training.rounds": 1, "incentive": incentive}), tmp_path / "run")
    (row,) = rows(tmp_path / "run" / "metrics.jsonl")
    spent = [client[column] for client in rows(tmp_path / "run" / "clients.jsonl")]
    assert len(spent) == 2
    assert row["social_cost"] == pytest.approx(sum(spent))


def test_each_client_has_a_private_factor_of_its_own(tmp_path):
    costs = costs_and_work(scenario(tmp_path))[-1]
    same = AUCTION | {"private_factor": [1.0, 1.0]}
    public = costs_and_work(scenario(tmp_path, {"incentive": same}))[-1]
    factors = costs / public
    assert factors == pytest.approx([generator(0, 0, c, "private cost").uniform(0.5, 1.5) for c in range(6)])
    assert len(set(factors)) == 6


def test_money_is_summed_over_rounds_and_equals_the_plan_s(finished):
    first, last = rows(finished / "run" / "metrics.jsonl")
    assert 0 < first["social_cost"] < first["paid"] < last["paid"]
    total = plan(checks.check(finished / "garments.yaml"))["total"]
    assert (total["paid"], total["social_cost"]) == (last["paid"], last["social_cost"])
    assert "misreport_gain" not in last


def test_a_run_without_incentive_says_nothing_of_money(tmp_path):
    total = plan(checks.check(garments(tmp_path)))["total"]
    assert not {"paid", "social_cost", "misreport_gain"} & set(total)


def test_the_report_says_what_was_paid(finished):
    what = facts.facts(*recorded.read([finished / "run"]), 0)["what"]
    paid = rows(finished / "run" / "metrics.jsonl")[-1]["paid"]
    assert f"paid {paid:.4g}, true costs of the winners" in what["incentive"]


def test_the_report_s_table_of_totals_has_what_was_paid(finished):
    paid = rows(finished / "run" / "metrics.jsonl")[-1]["paid"]
    html = page.render(recorded.read([finished / "run"]))
    assert re.search(rf"paid to clients</t[dh]>\s*<td[^>]*>\s*{paid:.4g}\s*<", html)


def test_a_schedule_has_the_auction_s_winners_and_payments(tmp_path):
    known, radio, work, samples, costs = costs_and_work(scenario(tmp_path))
    expected = reverse_auction(0.1 * np.array(samples, float), costs, 2)
    schedule = schedule_round(known, radio, 1, Shared(samples), work)
    assert schedule.clients == expected.winners.tolist()
    assert schedule.payments.paid == pytest.approx(expected.payments.sum())
    assert schedule.payments.social_cost == pytest.approx(costs[expected.winners].sum())


def test_money_of_a_checkpoint_goes_on_where_it_was(finished):
    states = [state for _, state in RunFolder.reopen(finished / "run").states()]
    totals = [state.ledger.money["paid"] for state in states]
    assert totals[::-1] == [row["paid"] for row in rows(finished / "run" / "metrics.jsonl")]


@pytest.mark.parametrize("incentive", [AUCTION, {"kind": "budget_auction", "budget": 8.0}])
def test_misreports_never_gain_where_the_mechanism_is_truthful(incentive, tmp_path):
    for factor in (0.2, 3.0):
        lie = LIE | {"attack": {"kind": "misreport", "factor": factor}}
        total = plan(checks.check(scenario(tmp_path, {"incentive": incentive, "adversary": lie})))["total"]
        assert total["misreport_gain"] <= 1e-9


def test_misreports_gain_where_a_mechanism_of_ones_own_pays_the_bid(tmp_path):
    code = """
        import numpy as np
        import fedray

        class PayAsBid(fedray.Incentive):
            def decide(self, offers):
                winners = np.sort(np.argsort(offers.bids, kind="stable")[: offers.most])
                return fedray.Outcome(winners, offers.bids[winners])
    """
    (tmp_path / "pay_as_bid.py").write_text(textwrap.dedent(code))
    changes = {"incentive": {"kind": "pay_as_bid:PayAsBid"}, "adversary": LIE}
    total = plan(checks.check(scenario(tmp_path, changes)))["total"]
    assert total["misreport_gain"] > 0
    assert total["paid"] == pytest.approx(3 * total["social_cost"])


def test_a_round_that_nobody_wins_leaves_the_model_as_it_is(tmp_path):
    lie = LIE | {"from_round": 2, "attack": {"kind": "misreport", "factor": 1e6}}
    run(scenario(tmp_path, {"adversary": lie}), tmp_path / "run")
    first, last = rows(tmp_path / "run" / "metrics.jsonl")
    assert (first["clients"], last["clients"]) == (2, 0)
    assert first["paid"] == last["paid"]
    newest = next(state for _, state in RunFolder.reopen(tmp_path / "run").states())
    assert newest.ledger.money["misreport_gain"] == last["misreport_gain"] < 0  # what resuming goes on from


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"incentive": AUCTION | {"joule_price": -1.0}}, "joule_price: got -1.0, expected at least 0"),
        ({"incentive": {"kind": "budget_auction", "budget": -1.0}}, "budget: got -1.0, expected a number ab"),
        ({"incentive": AUCTION | {"private_factor": [1.5, 0.5]}}, "the lower factor first"),
        ({"population.selection": "round_robin"}, "round_robin beside incentive"),
        ({"population.over_select": 1}, "0 beside incentive"),
        ({"population.sampling": "poisson"}, "fixed: bids decide"),
        ({"topology": {"kind": "relay"}}, "auction in relay"),
        ({"privacy": {"kind": "central", "clip_norm": 1.0, "noise_multiplier": 1.0}}, "one of them"),
    ],
)
def test_check_refuses_what_an_incentive_cannot_go_with(changes, message, tmp_path):
    with pytest.raises(ScenarioError, match=message):
        checks.check(scenario(tmp_path, changes))


def test_check_refuses_misreports_where_nobody_bids(tmp_path):
    with pytest.raises(ScenarioError, match="misreport without incentive"):
        checks.check(garments(tmp_path, {"adversary": {"clients": [0], "attack": LIE["attack"]}}))


@pytest.mark.parametrize(
    "incentive", [{"kind": "budget_auction", "budget": 1e-6}, AUCTION | {"unit_value": 1e-6}]
)
def test_a_budget_or_a_value_that_no_client_fits_is_refused_before_anything_trains(incentive, tmp_path):
    key = "budget" if "budget" in incentive else "unit_value"
    expected = f"incentive.{key}: got 1e-06, with which nobody wins the first round, expected more, where the"
    with pytest.raises(ScenarioError, match=expected):
        plan(checks.check(scenario(tmp_path, {"incentive": incentive})))
