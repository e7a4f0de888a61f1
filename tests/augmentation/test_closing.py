"""Augmentation beside deadlines, over-selection and transfers that are lost."""

import pytest

from fedray.augmentation.planner import AugmentationPlanner
from fedray.augmentation.topology import Closing, ImageCounts, at_server
from fedray.checks import check
from fedray.network.clock import time_round
from fedray.network.ledger import Ledger
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.shared import shared
from fedray.randomness import SERVER_ID
from tests.helpers import garments, job_of, rows, run

PAINT = {"inference_steps": 2, "per_class": 1, "at_most": 4, "batch_size": 8}
FAST = {"kind": "fixed", "rate_bps": 1.0e12, "latency_s": 0.0}
SECOND = {"kind": "flops", "peak_flops": 1.0, "utilisation": 1.0, "active_w": 1.0}
NETWORK = {"uplink": FAST, "downlink": FAST, "sidelink": FAST, "device": SECOND, "server": SECOND}


def timed(tmp_path, closing, server_s, paint_s=0.0):
    """Three clients that train for 1, 2 and 3 s beside a server that paints and trains for so long."""
    radio = Radio(check(garments(tmp_path, {"network": NETWORK})).scenario.network)
    work = Work(
        train_flops=lambda client, pictures: server_s if client == SERVER_ID else 1.0 + client,
        send_bytes=lambda direction, client: 0,
        aggregate_flops=lambda updates: 0.0,
        generate_flops=paint_s,
    )
    schedule = at_server(1, [0, 1, 2], ImageCounts(1, 1), True, closing)
    events = {e.id: e for e in time_round(schedule, work, radio, 0.0)}
    return schedule.prune({name: e.outcome for name, e in events.items()}), events


@pytest.mark.parametrize(("server_s", "ends_s"), [(0.5, 2.0), (2.5, 2.5)])
def test_the_augmented_model_is_none_of_the_updates_that_are_enough(server_s, ends_s, tmp_path):
    left, events = timed(tmp_path, Closing(min_updates=2), server_s)
    assert events["aggregate"].t0_s == pytest.approx(ends_s)
    assert left.clients == [0, 1]
    assert "train-augmented" in {step.id for step in left}
    assert events["up-2"].outcome == "late"


@pytest.mark.parametrize(
    ("paint_s", "server_s", "begins_s", "trains"), [(0, 2, 2.5, True), (0, 4, 4, True), (3, 1, 3, False)]
)
def test_training_that_the_server_has_not_begun_at_the_deadline_is_late(
    paint_s, server_s, begins_s, trains, tmp_path
):
    left, events = timed(tmp_path, Closing(deadline_s=2.5), server_s, paint_s)
    assert events["aggregate"].t0_s == pytest.approx(begins_s)
    assert left.clients == [0, 1]
    assert ("train-augmented" in {step.id for step in left}) == trains
    assert events["train-augmented"].outcome == ("done" if trains else "late")


def test_pictures_that_were_lost_are_sent_again(tmp_path):
    scenario = job_of(garments(tmp_path, {"augmentation": PAINT | {"at": "server_broadcast"}}))[1].scenario
    from fedray.data import holdings

    known = shared(scenario, *holdings(scenario, tmp_path))
    planner = AugmentationPlanner(scenario)
    radio = Radio(scenario.network)

    def round_of(t, ledger):
        schedule = planner.schedule(RoundStart(t, 0.0), [0, 1], known, ledger.pictures, radio, None)
        return schedule, {s.id: s.pictures for s in schedule if s.id.startswith("pictures-")}

    first, sent = round_of(1, Ledger())
    assert sent == {"pictures-0": 10, "pictures-1": 10}
    work = Work(lambda client, n: 1.0, lambda way, client: 8, lambda updates: 1.0, 1.0, picture_bytes=1)
    events = [
        e._replace(outcome="lost") if e.id == "pictures-1" else e for e in time_round(first, work, radio, 0.0)
    ]
    ledger = Ledger().add(events, first)
    assert dict(ledger.pictures) == {"server": 10, "client-0": 10}
    assert round_of(2, ledger)[1] == {"pictures-0": 10, "pictures-1": 20}


def test_a_run_may_have_pictures_over_selection_and_a_deadline(tmp_path):
    changes = {
        "augmentation": PAINT,
        "population": {"clients": 5, "per_round": 2, "over_select": 2},
        "network.deadline_s": 30.0,
        "training.rounds": 2,
    }
    result = run(garments(tmp_path, changes), tmp_path / "run")
    assert result["status"] == "done"
    metrics = rows(tmp_path / "run" / "metrics.jsonl")
    assert [(r["clients"], r["pictures"], r["kappa_2"]) for r in metrics] == [(2, 10, 0.5), (2, 20, 0.5)]
