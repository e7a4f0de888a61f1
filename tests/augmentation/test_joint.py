"""Amounts, shares of the band and CPU frequencies that are allocated together, in a run (FIMI)."""

import numpy as np
import pytest

from fedray.augmentation.topology import ImageCounts, at_clients, at_server_broadcast
from fedray.checks import check
from fedray.data import holdings
from fedray.network.allocations import Allocation
from fedray.network.clock import time_round
from fedray.network.radio import Radio
from fedray.planning.plan import plan, simulate_rounds
from fedray.planning.shared import shared
from fedray.planning.workload import measure
from fedray.scenario import ScenarioError
from fedray.steps import Train
from tests.helpers import garments, rows, run

AIR = {
    "kind": "log_distance",
    "bandwidth_hz": 1.0e6,
    "shadowing_db": 0.0,
    "fading": "none",
    "rate": "shannon",
}
DEVICE = {"kind": "cpu", "frequency_hz": 2.0e9, "flops_per_cycle": 1.0, "kappa": 1.0e-28}
SLOW = DEVICE | {"kappa": 4.0e-28}
JOINT = {"kind": "joint", "error": 0.05, "scale": 1.0, "exponent": 0.5, "quality": 0.5}  # 400 samples
TWO = {
    "population": {"clients": 2, "per_round": 2},
    "data": {"kind": "fashion_mnist_mini", "partition": {"kind": "iid", "samples": 190}},
    "training.batch_size": 50,
    "training.local_epochs": 1,
    "training.local_steps": None,
    "augmentation": {
        "inference_steps": 2,
        "batch_size": 8,
        "at_most": 40,
        "at": "server_broadcast",
        "amount": JOINT,
    },
    "network.uplink": AIR | {"allocation": "least_energy"},
    "network.cell": {"placement": {"kind": "places", "at": [[60.0, 0.0], [140.0, 0.0]]}},
    "network.device": {"kind": "mix", "of": [{"share": 1, "device": DEVICE}, {"share": 1, "device": SLOW}]},
    "network.downlink": {"kind": "fixed", "rate_bps": 1.0e8, "transmit_w": 1.0},
    "network.deadline_s": 6.0,
}
PLACES = {
    "server_broadcast": {"network.server": {"kind": "flops", "peak_flops": 1e14, "active_w": 1.0}},
    "client": {"augmentation.at": "client", "network.deadline_s": 20.0},
}


class Known:
    """A scenario, and all that is known before it runs."""

    def __init__(self, folder, changes):
        self.file = garments(folder, TWO | changes)
        self.scenario = check(self.file).scenario
        self.shared = shared(self.scenario, *holdings(self.scenario, folder))
        self.work = measure(self.scenario, folder).of(self.scenario, self.shared.samples)
        self.radio = Radio(self.scenario.network, 2, self.scenario.seed)

    def first(self):
        """The first round's events, and how many pictures each client trains on."""
        schedule, _ = next(simulate_rounds(self.scenario, self.radio, self.work, self.shared))
        counts = {step.client: step.pictures for step in schedule if isinstance(step, Train)}
        return time_round(schedule, self.work, self.radio, 0.0), counts


class Given(Allocation):
    """Shares that a test gives."""

    def shares(self, senders):
        return np.array(self.section)


def joules(known, amounts, share, monkeypatch):
    """Of a round with these amounts, and the first client's share; infinite where one is late."""
    given = {k: ImageCounts(n, n) for k, n in enumerate(amounts)}
    if known.scenario.augmentation.at == "client":
        schedule = at_clients(1, [0, 1], given)
    else:
        schedule = at_server_broadcast(1, [0, 1], max(amounts), given)
    monkeypatch.setattr(known.radio.links["uplink"], "allocation", Given([share, 1 - share]))
    events = time_round(schedule, known.work, known.radio, 0.0)
    late = any(e.t1_s > known.scenario.network.deadline_s * (1 + 1e-9) for e in events if e.event == "send")
    return np.inf if late else sum(e.energy_j for e in events)


@pytest.mark.parametrize("place", PLACES)
def test_a_joint_allocation_takes_no_more_energy_than_any_on_a_grid(place, tmp_path, monkeypatch):
    known = Known(tmp_path, PLACES[place])
    events, counts = known.first()
    assert {e.outcome for e in events} == {"done"}
    missing = sum(counts.values())
    assert missing == 40  # 380 samples, and a picture is worth half a one
    assert counts[0] != counts[1]  # whose devices differ
    best = sum(e.energy_j for e in events)
    grid = [
        joules(known, (n, missing - n), share, monkeypatch)
        for n in range(0, missing + 1, 4)
        for share in np.linspace(0.1, 0.9, 17)
    ]
    assert best <= min(grid) * (1 + 1e-4)  # amounts are whole
    assert best == pytest.approx(min(grid), rel=0.02)
    assert best < 0.97 * joules(known, (missing // 2, missing // 2), 0.5, monkeypatch)  # all alike


def test_what_the_server_spends_once_is_divided_by_the_rounds_that_make_use_of_it(tmp_path):
    dear = {"network.server": {"kind": "flops", "peak_flops": 1e14, "active_w": 4000.0}}
    _, alike = Known(tmp_path, dear).first()
    _, unlike = Known(tmp_path, dear | {"augmentation.amount": JOINT | {"rounds": 1000}}).first()
    assert alike == {0: 20, 1: 20}  # a picture is generated once for both
    assert unlike == {0: 0, 1: 40}  # the second device takes less energy


def test_a_run_is_what_was_planned_and_each_client_trains_on_its_own_number(tmp_path):
    known = Known(tmp_path, PLACES["server_broadcast"])
    planned = plan(check(known.file))["total"]
    result = run(known.file, tmp_path / "run")
    assert {name: result["final"][name] for name in planned if name in result["final"]} == {
        name: value for name, value in planned.items() if name in result["final"]
    }
    _, counts = known.first()
    trained = {(r["round"], r["client"]): r["samples"] for r in rows(tmp_path / "run" / "clients.jsonl")}
    assert trained == {(t, k): 190 + counts[k] for t in (1, 2) for k in (0, 1)}
    devices = known.radio.devices
    trains = [e for e in rows(tmp_path / "run" / "timeline.jsonl") if e["event"] == "train"]
    for e in trains:
        device = devices[e["client"]]
        hz = device.cycles(e["flops"]) / (e["t1_s"] - e["t0_s"])
        assert hz < 0.99 * device.frequency_hz
        assert e["energy_j"] == pytest.approx(device.energy_j(e["flops"], hz))


def test_where_so_many_cannot_be_in_time_there_are_as_many_as_can(tmp_path):
    known = Known(tmp_path, {"augmentation.amount": JOINT | {"error": 0.02}, "augmentation.at_most": 500})
    events, counts = known.first()
    assert {e.outcome for e in events} == {"done"}
    assert 800 < sum(counts.values()) < 2 * (2500 - 380)
    assert all(
        e.energy_j == pytest.approx(known.radio.devices[e.client].energy_j(e.flops), rel=0.02)
        for e in events
        if e.event == "train"
    )  # at the highest frequency


MINE = """
import fedray

class Half(fedray.Amount):
    def total(self, context):
        return context.labels * self.augmentation.at_most

    def each(self, context):
        return {client: 4 + client for client in context.clients}

class Ours(fedray.Allocation):
    class Section(fedray.Allocation.Section):
        slows_devices = True

    def shares(self, senders):
        return senders.bits / senders.bits.sum()
"""


def test_an_amount_and_an_allocation_of_ones_own_decide_in_their_place(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    own = {"augmentation.amount": {"kind": "mine:Half"}, "network.uplink": AIR | {"allocation": "mine:Ours"}}
    known = Known(tmp_path, own)
    events, counts = known.first()
    assert counts == {0: 4, 1: 5}
    ends = [e.t1_s for e in events if e.direction == "uplink"]
    assert ends == pytest.approx([6.0, 6.0])  # as slowly as the deadline lets them


BAD = {
    "pictures that the server keeps": (
        {"augmentation.at": "server"},
        "augmentation.at: got server with a joint",
    ),
    "shares that are others'": (
        {"network.uplink": AIR},
        "augmentation.amount.kind: got joint over an uplink",
    ),
    "a band for each cell": (
        {
            "network.uplink": {
                "kind": "gains",
                "path": "shipped:synthetic-street.npz",
                "bandwidth_hz": 5e6,
                "allocation": "least_energy",
            }
        },
        "augmentation.amount.kind: got joint over an uplink of kind gains",
    ),
    "no deadline": ({"network.deadline_s": None}, "network.uplink.allocation: got least_energy without a"),
    "devices of one speed": (
        {"network.device": {"kind": "flops", "peak_flops": 1e9, "active_w": 1.0}},
        "network.uplink.allocation: got least_energy for a flops",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_allocated_together_is_refused(what, tmp_path):
    changes, line = BAD[what]
    with pytest.raises(ScenarioError) as refused:
        check(
            garments(
                tmp_path, {k: v for k, v in (TWO | changes).items() if v is not None or "deadline" not in k}
            )
        )
    assert any(line in problem for problem in refused.value.problems)
