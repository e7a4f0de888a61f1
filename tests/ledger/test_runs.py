"""Runs with a ledger: resumed, in relays, by other rules; and what it cannot go with."""

import json
import math

import pytest

from fedray import shipped
from fedray.callbacks import Callback
from fedray.checks import check
from fedray.engine import RunFailed
from fedray.executors.local_training import Turn
from fedray.scenario import ScenarioError, load
from fedray.verification import verify
from tests.helpers import garments, run, tiny

KEEPS = {"ledger": {"keep": "updates"}, "population": {"clients": 4, "per_round": 3}}
SHORT = KEEPS | {"training.rounds": 2}


class Broken(Callback):
    """Raises as the second round ends."""

    def on_round(self, report):
        if report.round_number == 2:
            raise RuntimeError("broken off")


def test_a_run_that_is_broken_off_goes_on_with_the_same_chain(tmp_path):
    file = garments(tmp_path, KEEPS | {"training.rounds": 3})
    run(file, tmp_path / "whole")
    with pytest.raises(RunFailed):
        run(file, tmp_path / "run", callback=Broken())
    ledger = tmp_path / "run" / "ledger.jsonl"
    assert json.loads(ledger.read_text().splitlines()[-1])["head"]["round"] == 2
    assert verify(tmp_path / "run")["problems"] == []
    with ledger.open("a") as f:
        f.write(ledger.read_text().splitlines()[-2] + "\n{half a li")
    run(file, tmp_path / "run", resume=True)
    assert ledger.read_bytes() == (tmp_path / "whole" / "ledger.jsonl").read_bytes()
    assert verify(tmp_path / "run")["rounds_added_again"] == 3


def test_a_changed_ledger_is_not_gone_on_with(tmp_path):
    file = garments(tmp_path, SHORT)
    with pytest.raises(RunFailed):
        run(file, tmp_path / "run", callback=Broken())
    ledger = tmp_path / "run" / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"weight":', '"weight":1', 1))
    with pytest.raises(ScenarioError, match=r"ledger\.jsonl:2: got the leaf of client \d in round 1"):
        run(file, tmp_path / "run", resume=True)


def test_a_ledger_changes_no_weight(tmp_path):
    with_ledger = run(garments(tmp_path, SHORT), tmp_path / "a")
    without = run(garments(tmp_path, {k: v for k, v in SHORT.items() if k != "ledger"}), tmp_path / "b")
    assert with_ledger["weights_sha256"] == without["weights_sha256"]


@pytest.mark.parametrize(
    "changes",
    [
        {"topology": {"kind": "relay", "chains": 2}, "population": {"clients": 4, "per_round": 4}},
        {"topology": {"kind": "relay"}, "tuning.payload": "fp16", "aggregation": {"kind": "fedadam"}},
        {"aggregation": {"kind": "scaffold", "transforms": [{"kind": "quantize", "bits": 8}]}},
        {"aggregation": {"kind": "median"}},
    ],
    ids=["two relays", "a relay in fp16 with FedAdam", "SCAFFOLD, quantized", "median"],
)
def test_kept_updates_add_up_to_the_bit_with(changes, tmp_path):
    run(garments(tmp_path, SHORT | changes), tmp_path / "run")
    result = verify(tmp_path / "run")
    assert (result["problems"], result["rounds_added_again"]) == ([], 2)


def test_a_hop_of_a_relay_signs_what_it_got_and_what_it_handed_on(tmp_path):
    run(garments(tmp_path, SHORT | {"topology": {"kind": "relay"}}), tmp_path / "run")
    entries = map(json.loads, (tmp_path / "run" / "ledger.jsonl").read_text().splitlines())
    end = None
    for entry in entries:
        if "head" in entry:
            end = entry["head"]["buffer"]
        else:
            assert (entry["leaf"]["sends"], entry["leaf"]["base"]) == ("model", end)
            end = entry["leaf"]["update"]


def test_a_client_that_fails_signs_that_it_sent_nothing(tmp_path, monkeypatch):

    add_loss = Turn.add_loss

    def failing(turn, loss, samples):
        add_loss(turn, math.nan if turn.client == 1 else loss, samples)

    monkeypatch.setattr(Turn, "add_loss", failing)
    changes = {
        "population": {"clients": 3, "per_round": 3},
        "runtime.failures": {"data": "drop", "budget": 9},
    }
    run(garments(tmp_path, SHORT | changes), tmp_path / "run")
    entries = map(json.loads, (tmp_path / "run" / "ledger.jsonl").read_text().splitlines())
    failed = [e["leaf"] for e in entries if "leaf" in e and e["leaf"]["client"] == 1]
    assert [(leaf["outcome"], leaf["update"], leaf["bytes"]) for leaf in failed] == [("failed", None, 0)] * 2
    result = verify(tmp_path / "run")
    assert (result["problems"], result["rounds_added_again"]) == ([], 2)


def test_a_ledger_over_a_split_is_refused(tmp_path):
    split = {"kind": "split", "cut": "down.0", "tail": "up.0"}
    with pytest.raises(ScenarioError, match="ledger: got one over a split, expected parallel or relay"):
        check(tiny(tmp_path, {"topology": split, "ledger": {}}))


def test_kept_updates_beside_augmentation_are_refused():
    settings = ["ledger={keep: updates}"]
    with pytest.raises(ScenarioError, match=r"ledger\.keep: got updates beside augmentation"):
        load(shipped.scenarios()["qiang2024-fashion"], settings)
