"""A generator that the server fine-tunes first, on images that it has collected."""

import json
import shutil

import numpy as np
import pytest

from fedray import execution
from fedray.checks import check, disclosures
from fedray.data import Dataset
from fedray.data.clients import partition
from fedray.executors import chains
from fedray.network.devices import open_device
from fedray.planning.fine_tuning import fine_tuning
from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from fedray.terminal import Quiet
from fedray.topologies.central import CentralTopology
from fedray.topologies.topology import RoundContext
from tests.helpers import garments, rows, run, unevaluated

TUNE = {
    "kind": "collected",
    "samples": 3,
    "rounds": 2,
    "local_steps": 1,
    "batch_size": 2,
    "optimizer": {"kind": "adamw", "learning_rate": 1.0e-4},
    "tuning": {"kind": "lora", "rank": 2},
}
PAINT = {"inference_steps": 1, "per_class": 1, "at_most": 1, "batch_size": 10, "templates": ["a {label}"]}
COLLECTED = {
    "population": {"clients": 3, "per_round": 2},
    "training.rounds": 1,
    "augmentation": PAINT | {"tune_first": TUNE},
}
TOTALS = ("bytes_uplink", "bytes_downlink", "bytes_sidelink", "sim_time_s", "energy_j")
IMAGE = 28 * 28  # bytes


class Notes(Quiet):
    """Keeps what is said."""

    def __init__(self):
        super().__init__()
        self.said = []

    def on_note(self, text):
        self.said.append(text)
        super().on_note(text)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("collected") / "run"
    loaded = check(garments(out.parent, COLLECTED))
    notes = Notes()
    return loaded, out, execution.execute(execution.create(loaded, out), loaded, notes), notes.said


def test_collecting_and_central_fine_tuning_are_charged_for_in_plan_and_run(whole):
    loaded, out, result, _ = whole
    planned = plan(loaded)
    assert {k: result["final"][k] for k in TOTALS} == {k: planned["total"][k] for k in TOTALS}
    first = rows(out / "generator" / "metrics.jsonl")[-1]
    assert {k: first[k] for k in TOTALS} == {k: planned["generator"]["total"][k] for k in TOTALS}
    assert first["bytes_uplink"] == planned["collected"]["bytes_uplink"] == 3 * 3 * IMAGE
    assert first["bytes_downlink"] == 0  # the generator stays where it is trained
    uplink = loaded.scenario.network.uplink
    slowest_s = uplink.latency_s + 8 * 3 * IMAGE / uplink.rate_bps
    assert planned["collected"]["sim_time_s"] == pytest.approx(slowest_s)
    server = open_device(loaded.scenario.network.server)
    trains = [e for e in rows(out / "generator" / "timeline.jsonl") if e["event"] == "train"]
    assert [e["node"] for e in trains] == ["server"] * 2
    assert trains[0]["t0_s"] == pytest.approx(slowest_s)
    for e in trains:
        assert e["t1_s"] - e["t0_s"] == pytest.approx(server.time_s(e["flops"]))
        assert e["energy_j"] == pytest.approx(server.energy_j(e["flops"]))


def test_it_is_said_that_images_leave_their_clients(whole):
    loaded, out, _, said = whole
    sentence = "9 images of 3 clients (7,056 bytes) leave them for the server"
    assert any(sentence in text for text in said)
    assert any(sentence in text for text in plan(loaded)["notes"])
    assert sentence in (out / "run.log").read_text()
    assert disclosures(loaded) == ["clients send up to 3 images each to the server (augmentation.tune_first)"]
    events = json.loads((out / "generator" / "collection.json").read_text())["events"]
    assert [e["bytes"] for e in events if e["event"] == "send"] == [3 * IMAGE] * 3


def test_the_server_trains_on_what_each_client_gave_and_nothing_else(whole):
    loaded, _, _, _ = whole
    first = fine_tuning(loaded)
    dataset = Dataset.of(first.scenario, first.folder)
    pooled = partition(first.scenario, dataset.train)[0]
    held = partition(loaded.scenario, dataset.train)
    assert len(pooled) == 9
    assert [len(np.intersect1d(pooled, held[client])) for client in range(3)] == [3, 3, 3]


def test_a_fine_tuning_that_was_broken_off_goes_on_to_the_same_weights(whole, tmp_path):
    _, out, result, _ = whole
    copy = shutil.copytree(out, tmp_path / "run")
    tuned = json.loads((copy / "generator" / "result.json").read_text())["weights_sha256"]
    for folder in (copy, copy / "generator"):
        (folder / "result.json").unlink()
        shutil.rmtree(folder / "checkpoints")  # before either had one
        for name in ("metrics.jsonl", "timeline.jsonl", "clients.jsonl"):
            (folder / name).write_text("")
    shutil.rmtree(copy / "pictures")
    folder, again, _ = execution.reopen(copy)
    assert (
        execution.execute(folder, again, Quiet(), resume=True)["weights_sha256"] == result["weights_sha256"]
    )
    assert json.loads((copy / "generator" / "result.json").read_text())["weights_sha256"] == tuned


def test_a_central_run_moves_nothing_and_trains_as_one_client_with_everything_does(tmp_path):
    alone = {"population": {"clients": 1}, "training.rounds": 1}
    with unevaluated():
        central, one = (
            run(garments(tmp_path, alone | {"topology": {"kind": kind}}, f"{kind}.yaml"), tmp_path / kind)
            for kind in ("central", "parallel")
        )
    assert central["weights_sha256"] == one["weights_sha256"]
    final = central["final"]
    assert final["bytes_uplink"] == final["bytes_downlink"] == 0 < final["energy_j"]
    # what both executors submit
    assert chains(CentralTopology(None).schedule(RoundContext(1, [0]))) == [[0]]


BAD = {
    "a number of images that stay at home": (
        {"augmentation": PAINT | {"tune_first": TUNE | {"kind": "federated"}}},
        "augmentation.tune_first.samples: got 3 where images stay with their clients",
    ),
    "several clients without a server's round": (
        {"topology": {"kind": "central"}},
        "population.clients: got 5 for a central topology",
    ),
    "a pool for several": (
        {"data.partition": {"kind": "pooled", "of": {"kind": "iid"}, "clients": 3}},
        "data.partition.kind: got pooled for 5 clients",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_collected_is_refused(what, tmp_path):
    changes, line = BAD[what]
    with pytest.raises(ScenarioError) as refused:
        check(garments(tmp_path, changes))
    assert any(line in problem for problem in refused.value.problems)
