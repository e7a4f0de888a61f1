"""Mechanisms that decide about efforts, cuts and orders, in a run."""

import json

import numpy as np
import pytest

from fedray import checks
from fedray.executors.round_samples import UsedSamples
from fedray.incentives.contract import contract_menu
from fedray.incentives.stackelberg import price_game, prize_game
from fedray.incentives.vcg import relay_auction, split_auction
from fedray.network.clock import time_round
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.planning.client_costs import hop_costs, known_costs, private_factors
from fedray.planning.plan import plan, settle
from fedray.planning.round import schedule_round
from fedray.planning.shared import Shared
from fedray.planning.workload import measure
from fedray.report import facts, recorded
from fedray.scenario import ScenarioError
from tests.helpers import broken_off, garments, job_of, rows, run, timeless, unevaluated

MIX = {
    "kind": "mix",
    "of": [
        {"share": 1, "device": {"kind": "flops", "peak_flops": 1.0e9, "active_w": 5}},
        {"share": 1, "device": {"kind": "flops", "peak_flops": 1.0e10, "active_w": 10}},
    ],
}
PRICES = {"second_price": 0.5, "unit_value": 0.05}
BASE = {
    "population": {"clients": 6, "per_round": 4},
    "network.device": MIX,
    "data.partition": {"kind": "dirichlet", "alpha": 0.5},
    "training": {
        "rounds": 2,
        "local_epochs": 1,
        "batch_size": 8,
        "optimizer": {"kind": "sgd", "learning_rate": 0.05},
    },
}
CONTRACT = {"kind": "contract", "types": [1.5, 1.0, 0.5], **PRICES}
PRICE = {"kind": "stackelberg", "game": "price", "benefit": 5.0, **PRICES}
PRIZE = {"kind": "stackelberg", "game": "prize", "prize": 5.0, **PRICES}
RELAY = {"kind": "vcg_relay", **PRICES}
SPLIT = {"kind": "vcg_split", **PRICES}
IN_TOPOLOGY = {
    "vcg_relay": {"topology": {"kind": "relay"}},
    "vcg_split": {"topology": {"kind": "split", "cut": "auto", "may_send": ["labels"]}},
}
KINDS = [CONTRACT, PRICE, PRIZE, RELAY, SPLIT]
NAMES = ["contract", "price", "prize", "vcg_relay", "vcg_split"]


def scenario(folder, incentive, changes=None, name="garments.yaml"):
    topology = IN_TOPOLOGY.get(incentive["kind"], {})
    return garments(folder, BASE | topology | {"incentive": incentive} | (changes or {}), name)


class Round:
    """The first round of a scenario, and what it follows from."""

    def __init__(self, file):
        loaded, job = job_of(file)
        self.samples = [20 + 10 * c for c in range(6)]
        known = Shared(self.samples)
        if loaded.scenario.topology.chooses_cut:
            self.scenario, self.shared = settle(loaded.scenario, job.folder, known)
        else:
            self.scenario, self.shared = loaded.scenario, known
        self.work = measure(self.scenario, job.folder).of(self.scenario, self.samples)
        self.radio = Radio(self.scenario.network, 6, self.scenario.seed)
        self.schedule = schedule_round(self.scenario, self.radio, 1, self.shared, self.work)

    def known(self, clients):
        return known_costs(self.scenario, self.radio, RoundStart(1, 0.0), self.work, np.array(clients))

    def factors(self, clients):
        return private_factors(self.scenario, np.array(clients))


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    """A run of two rounds for which clients choose contracts, the folder."""
    folder = tmp_path_factory.mktemp("contract")
    with unevaluated():
        run(scenario(folder, CONTRACT), folder / "run")
    return folder


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """Plans of all kinds, without and with attackers that bid thrice their cost, by name."""
    folder = tmp_path_factory.mktemp("plans")
    lie = {"adversary": {"clients": [0, 1, 2, 3, 4, 5], "attack": {"kind": "misreport", "factor": 3.0}}}
    named = dict(zip(NAMES, KINDS, strict=True))
    honest = {n: plan(checks.check(scenario(folder, kind)))["total"] for n, kind in named.items()}
    lied = {n: plan(checks.check(scenario(folder, kind, lie)))["total"] for n, kind in named.items()}
    return honest, lied


def test_each_client_takes_the_contract_that_is_made_for_its_type(tmp_path):
    first = Round(scenario(tmp_path, CONTRACT))
    types = [1.5, 1.0, 0.5]
    paid = 0.0
    cost = 0.0
    for client in first.schedule.clients:
        (known,) = first.known([client])
        (factor,) = first.factors([client])
        menu = contract_menu(2 * known * np.array(types), [1 / 3] * 3, 0.05 * first.samples[client], most=1)
        effort = menu.efforts[types.index(factor)]
        paid += menu.rewards[types.index(factor)]
        cost += known * factor * effort**2
        assert first.schedule.used[client] == max(1, round(effort * first.samples[client]))
    assert len(first.schedule.clients) == 4
    assert first.schedule.payments.paid == pytest.approx(paid)
    assert first.schedule.payments.social_cost == pytest.approx(cost)


def test_an_effort_is_what_the_clock_charges_for_and_what_updates_weigh(contract):
    flops = {
        (row["round"], row["client"]): row["flops"]
        for row in rows(contract / "run" / "timeline.jsonl")
        if row["event"] == "train"
    }
    clients = rows(contract / "run" / "clients.jsonl")
    per_sample = [flops[c["round"], c["client"]] / c["samples"] for c in clients]
    assert max(per_sample) == pytest.approx(min(per_sample))
    had = [sum(counts) for counts in recorded.read([contract / "run"])[0].partition["counts"]]
    assert all(c["samples"] <= had[c["client"]] for c in clients)
    assert any(c["samples"] < had[c["client"]] for c in clients)
    assert all(c["steps"] == -(-c["samples"] // 8) for c in clients)


def test_a_run_of_contracts_is_paid_as_planned_and_says_so_in_its_report(contract):
    last = rows(contract / "run" / "metrics.jsonl")[-1]
    total = plan(checks.check(contract / "garments.yaml"))["total"]
    assert (total["paid"], total["social_cost"]) == (last["paid"], last["social_cost"])
    assert total["energy_j"] == last["energy_j"]
    what = facts.facts(*recorded.read([contract / "run"]), 0)["what"]
    assert what["incentive"].startswith("contract")
    assert f"rent {last['paid'] - last['social_cost']:.4g}" in what["incentive"]


def sha256(run_folder):
    return json.loads((run_folder / "result.json").read_text())["weights_sha256"]


def test_a_run_of_contracts_goes_on_to_the_same_bits(contract, tmp_path):
    broken_off(contract / "run", tmp_path / "run", 2)
    with unevaluated():
        run(contract / "garments.yaml", tmp_path / "run", resume=True)
    assert sha256(tmp_path / "run") == sha256(contract / "run")
    again = rows(tmp_path / "run" / "metrics.jsonl")
    assert timeless(again) == timeless(rows(contract / "run" / "metrics.jsonl"))


def test_other_samples_are_used_in_each_round():
    used = UsedSamples({3: 4})
    first = used.places(0, 1, 3, 10)
    assert len(set(first.tolist())) == 4
    assert sorted(first.tolist()) != sorted(used.places(0, 2, 3, 10).tolist())


def test_clients_are_paid_the_price_of_their_efforts(tmp_path):
    first = Round(scenario(tmp_path, PRICE))
    clients = first.schedule.clients
    costs = first.known(clients) * first.factors(clients)
    game = price_game(costs, 5.0, most=1)
    assert first.schedule.payments.paid == pytest.approx(game.price * game.contributions.sum())
    assert first.schedule.payments.social_cost == pytest.approx(costs @ game.contributions**2)
    shares = [max(1, round(x * first.samples[c])) for c, x in zip(clients, game.contributions, strict=True)]
    assert [first.schedule.used[c] for c in clients] == shares


def test_clients_share_a_prize_by_their_efforts(tmp_path):
    first = Round(scenario(tmp_path, PRIZE))
    clients = first.schedule.clients
    efforts = prize_game(first.known(clients) * first.factors(clients), 5.0, most=1)
    assert first.schedule.payments.paid == pytest.approx(5.0)
    shares = [max(1, round(x * first.samples[c])) for c, x in zip(clients, efforts, strict=True)]
    assert [first.schedule.used[c] for c in clients] == shares


def test_a_relay_has_the_order_of_the_bids_and_pays_for_it(tmp_path):
    first = Round(scenario(tmp_path, RELAY))
    drawn = np.array(sorted(first.schedule.clients))
    costs = hop_costs(first.scenario, first.radio, RoundStart(1, 0.0), first.work, drawn)
    bids = costs * first.factors(drawn)[:, None]
    values = 0.05 * np.array([first.samples[c] for c in drawn], float)
    expected = relay_auction(bids * (1 - np.eye(len(drawn))), np.ones(len(drawn)), values, np.diag(bids))
    assert first.schedule.clients == drawn[expected.order].tolist()
    assert first.schedule.payments.paid == pytest.approx(expected.payments.sum())


def test_the_cost_of_a_hop_is_what_the_clock_charges_its_sender(tmp_path):
    first = Round(scenario(tmp_path, RELAY | {"second_price": 0.0}))
    order = np.array(first.schedule.clients)
    costs = hop_costs(first.scenario, first.radio, RoundStart(1, 0.0), first.work, order)
    spent = dict.fromkeys(order.tolist(), 0.0)
    for event in time_round(first.schedule, first.work, first.radio, 0.0):
        if event.event in ("train", "send") and event.node != "server":
            spent[event.client] += event.energy_j
    after = [*range(1, len(order)), len(order) - 1]
    assert [costs[i, j] for i, j in enumerate(after)] == pytest.approx([spent[c] for c in order.tolist()])


def test_the_cut_and_the_clients_of_a_split_are_decided_once(tmp_path):
    first = Round(scenario(tmp_path, SPLIT))
    assert first.scenario.topology.cut != "auto"
    assert first.schedule.clients == list(first.shared.agreed.payments)
    later = schedule_round(first.scenario, first.radio, 2, first.shared, first.work)
    assert later.clients == first.schedule.clients
    assert later.payments == first.schedule.payments


def test_the_cut_is_the_one_with_the_greatest_welfare(tmp_path):
    from fedray.planning.client_costs import split_work
    from fedray.planning.cuts import all_cuts
    from fedray.planning.plan import with_cut

    file = scenario(tmp_path, SPLIT)
    first = Round(file)
    _, job = job_of(file)
    clients = np.arange(6)
    costs = []
    for cut in all_cuts(job.scenario, job.folder):
        this = with_cut(job.scenario, cut.cut, cut.tail)
        work = split_work(this, measure(this, job.folder).of(this, first.samples), cut, first.samples)
        costs.append(known_costs(this, first.radio, RoundStart(1, 0.0), work, clients))
    bids = np.stack(costs, axis=1) * first.factors(clients)[:, None]
    values = 0.05 * np.array(first.samples, float)[:, None]
    expected = split_auction(values, bids, 4)
    assert first.schedule.clients == expected.winners
    assert first.schedule.payments.paid == pytest.approx(expected.payments.sum())


def test_what_a_cut_costs_a_client_are_the_joules_that_the_clock_gives_it(tmp_path):
    """Where latencies are nothing, many transfers take as long as one."""
    first = Round(scenario(tmp_path, SPLIT | {"second_price": 0.0, "private_factor": [1.0, 1.0]}))
    spent = sum(
        event.energy_j
        for event in time_round(first.schedule, first.work, first.radio, 0.0)
        if event.node != "server"
    )
    assert first.schedule.payments.social_cost == pytest.approx(spent)


@pytest.mark.parametrize("kind", NAMES)
def test_what_is_paid_covers_what_it_costs(kind, plans):
    total = plans[0][kind]
    assert 0 < total["social_cost"] <= total["paid"]


@pytest.mark.parametrize("kind", ["contract", "vcg_relay", "vcg_split"])
def test_misreports_never_gain_where_the_mechanism_is_truthful(kind, plans):
    assert plans[1][kind]["misreport_gain"] < 0


@pytest.mark.parametrize(
    ("incentive", "changes", "message"),
    [
        (CONTRACT | {"types": [0.5, 1.0]}, {}, r"types: got \[0.5, 1.0\], expected the highest factor first"),
        (CONTRACT | {"types": [1.0, -1.0]}, {}, r"types.1: got -1.0, expected a number above 0"),
        (CONTRACT | {"types": []}, {}, r"types: got 0 of them, expected at least 1"),
        (CONTRACT | {"shares": [0.5, 0.5]}, {}, "3 numbers, one for each of types"),
        (CONTRACT | {"shares": [0.5, 0.5, 0.5]}, {}, "add up to 1, not 1.5"),
        (CONTRACT, {"training.local_epochs": None, "training.local_steps": 3}, "training.local_epochs: an"),
        (CONTRACT, {"topology": {"kind": "relay"}}, "contract in relay"),
        (PRICE | {"benefit": -1.0}, {}, r"incentive.benefit: got -1.0, expected a number above 0"),
        (RELAY | {"second_price": -1.0}, {}, r"incentive.second_price: got -1.0, expected at least 0"),
        (PRIZE, {"population.per_round": 1}, "two clients at least"),
        (SPLIT, {"topology.cut": "head"}, "cut: auto, which the bids decide"),
        (SPLIT, {"topology.variant": "vanilla"}, "vanilla beside incentive vcg_split"),
        (RELAY, {"topology": {"kind": "parallel"}}, "vcg_relay in parallel"),
        (RELAY, {"topology.order": "tour"}, "tour.*random beside incentive vcg_relay"),
        (RELAY, {"topology.chains": 2}, "1 beside incentive vcg_relay"),
        (RELAY, {"population": {"clients": 9}}, "at most 8 beside incentive vcg_relay"),
    ],
)
def test_check_refuses_what_a_mechanism_cannot_do(incentive, changes, message, tmp_path):
    with pytest.raises(ScenarioError, match=message):
        checks.check(scenario(tmp_path, incentive, changes))


@pytest.mark.parametrize("incentive", [CONTRACT, RELAY, SPLIT], ids=["contract", "vcg_relay", "vcg_split"])
def test_a_value_for_which_no_client_takes_part_is_refused(incentive, tmp_path):
    cheap = incentive | {"unit_value": 1e-9}
    with pytest.raises(ScenarioError, match="unit_value: got 1e-09, with which nobody wins"):
        plan(checks.check(scenario(tmp_path, cheap)))
