"""How many pictures are generated: closed forms, what hides behind clients, and FIMI's joint allocation."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from fedray.augmentation.amount import AmountContext, PerClassAmount, best_amount, hidden
from fedray.augmentation.fimi import Devices, fill_missing, needed_samples
from fedray.checks import check
from fedray.network.clock import time_round
from fedray.network.ledger import Ledger
from fedray.network.radio import Radio
from fedray.planning.plan import simulate_rounds
from fedray.planning.shared import shared
from fedray.planning.workload import measure
from tests.helpers import garments


def test_the_amount_that_balances_error_and_energy_is_the_references():
    law = {"a": 2.0, "b": 0.5, "samples": 100, "quality": 0.5, "price": 100.0}
    assert best_amount(**law, picture_j=2 / 135) == pytest.approx(250)
    for joules in (0.01, 0.05, 0.2):

        def cost(n, joules=joules):
            return 100 * 2 * (100 + 0.5 * n) ** -0.5 + joules * n

        found = minimize_scalar(cost, bounds=(0, 5000), method="bounded", options={"xatol": 1e-7})
        best = best_amount(**law, picture_j=joules)
        assert best == pytest.approx(found.x, abs=0.05)
    assert best_amount(**law, picture_j=10.0) == 0  # none is worth its energy


def test_pictures_hide_behind_what_clients_leave_of_the_servers_time():
    assert hidden(clients_s=10.0, train_s=4.0, picture_s=0.7) == 8
    assert hidden(clients_s=3.0, train_s=4.0, picture_s=0.7) == 0


def test_per_class_stops_at_the_most():
    amount = PerClassAmount(None, SimpleNamespace(per_class=4, at_most=10))
    assert [amount.total(AmountContext(3, t, 0)) for t in (1, 2, 3, 4)] == [12, 24, 30, 30]


def test_a_round_with_hidden_pictures_lasts_as_long_as_its_clients_and_has_no_room_for_another_batch(
    tmp_path,
):
    changes = {
        "augmentation": {"amount": {"kind": "hidden"}, "batch_size": 5, "at_most": 40, "inference_steps": 2},
        "training.rounds": 4,
        "network.server": {"kind": "flops", "peak_flops": 2.0e11, "utilisation": 1.0, "active_w": 400},
    }
    loaded = check(garments(tmp_path, changes))
    scenario = loaded.scenario
    from fedray.data import holdings

    known = shared(scenario, *holdings(scenario, tmp_path))
    work = measure(scenario, tmp_path).of(scenario, known.samples)
    radio = Radio(scenario.network, 5, 0)
    had = 0
    before = Ledger()
    for schedule, total in simulate_rounds(scenario, radio, work, known):
        events = {e.id: e for e in time_round(schedule, work, radio, before.sim_time_s)}
        last_s = max(e.t1_s for e in events.values() if e.direction == "uplink")
        have = total.pictures.get("server", 0)
        assert (have - had) % 5 == 0
        own = events["train-augmented"]
        assert own.t1_s <= last_s + 1e-9
        more_s = 5 * radio.server.time_s(work.generate_flops)
        assert have == 400 or own.t1_s + more_s > last_s
        had = have
        before = total
    assert had > 0


def devices():
    return Devices(
        samples=np.array([100.0, 300.0]),
        cycles=np.array([2e6, 1e6]),
        capacitance=np.array([1e-27, 3e-27]),
        most_hz=np.array([2e9, 2e9]),
        rate_bps=np.array([20e6, 40e6]),
        power_w=np.array([0.2, 0.2]),
    )


def test_fimis_allocation_takes_no_more_energy_than_any_on_a_grid():
    two = devices()
    bits, deadline_s, needed = 4e6, 3.0, 700.0
    best = fill_missing(two, bits, deadline_s, needed)
    generated, share = np.meshgrid(np.linspace(0, 300, 601), np.linspace(0.08, 0.95, 601), indexing="ij")
    n = np.stack([generated, 300 - generated], -1)
    shares = np.stack([share, 1 - share], -1)
    up_s = bits / (shares * two.rate_bps)
    cycles = two.cycles * (two.samples + n)
    with np.errstate(divide="ignore", invalid="ignore"):
        hz = cycles / (deadline_s - up_s)
        joules = (two.capacitance * cycles * hz**2 + two.power_w * up_s).sum(-1)
    in_time = ((hz > 0) & (hz <= two.most_hz)).all(-1)
    assert best.energy_j <= joules[in_time].min() * (1 + 1e-6)
    assert best.energy_j == pytest.approx(joules[in_time].min(), rel=2e-3)
    assert best.generated.sum() == pytest.approx(300)
    assert best.share.sum() == pytest.approx(1)
    ends_s = (
        two.cycles * (two.samples + best.generated) / best.frequency_hz + bits / best.share / two.rate_bps
    )
    assert (ends_s <= deadline_s * (1 + 1e-6)).all()


def test_a_deadline_that_no_allocation_meets_is_refused():
    with pytest.raises(ValueError, match="expected a later one"):
        fill_missing(devices(), 4e6, 0.3, 700.0)
    assert needed_samples(0.1, 2.0, 0.5) == pytest.approx(400)
