"""Edge servers agree on a run's heads: on the clock, in the run folder, and under `fedray verify`."""

import json
import shutil

import pytest

from fedray.checks import check
from fedray.ledger.agreement import agreement
from fedray.ledger.log import SignedLedger
from fedray.scenario import ScenarioError
from fedray.verification import lines, verify
from tests.helpers import garments, run

PBFT = {"kind": "pbft", "equivocating": [0]}
CHANGES = {"training.rounds": 2, "population": {"clients": 3, "per_round": 2}, "evaluation": {}}


@pytest.fixture(scope="module")
def agreed_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agreed")
    run(garments(folder, CHANGES | {"ledger": {"consensus": PBFT}}), folder / "run")
    return folder / "run"


@pytest.fixture
def copied(agreed_run, tmp_path):
    return shutil.copytree(agreed_run, tmp_path / "run")


def change(run_folder, row, key, value):
    file = run_folder / "consensus.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[row][key] = value
    canonical = [json.dumps(one, sort_keys=True, separators=(",", ":")) for one in rows]
    file.write_text("\n".join(canonical) + "\n")


def test_each_head_has_a_quorum_of_signatures_and_a_primary_with_two_heads_is_named(agreed_run):
    verified = verify(agreed_run)
    assert verified["problems"] == []
    assert verified["agreed"] == {"rounds": 2, "edges": 4, "quorum": 3, "equivocated": ["edge-0 in round 1"]}
    assert any("two heads proposed by edge-0" in line for line in lines(verified))


def test_the_round_ends_when_its_head_is_agreed_on(agreed_run):
    section = check(agreed_run / "scenario.yaml").scenario.ledger.consensus
    events = [json.loads(line) for line in (agreed_run / "timeline.jsonl").read_text().splitlines()]
    waits = [event["waits_s"] for event in events if event["event"] == "aggregate"]
    assert waits == [agreement(section, 1).committed_s, agreement(section, 2).committed_s]
    assert waits[0] > section.timeout_s > waits[1] > 0


def test_an_agreement_changes_no_weight(agreed_run, tmp_path):
    alone = run(garments(tmp_path, CHANGES | {"ledger": {}}), tmp_path / "alone")
    assert json.loads((agreed_run / "result.json").read_text())["weights_sha256"] == alone["weights_sha256"]


@pytest.mark.parametrize(
    ("row", "key", "value", "named"),
    [
        (1, "head", "0" * 64, "consensus.jsonl:2"),
        (1, "view", 2, "0 of 3 commits"),
        (0, "commits", {}, "0 of 0 commits"),
        (0, "equivocated", [[]], "consensus.jsonl:1"),
    ],
)
def test_a_changed_agreement_is_named(copied, row, key, value, named):
    if value == [[]]:  # the same proposal twice: no proof of two
        rows = [json.loads(line) for line in (copied / "consensus.jsonl").read_text().splitlines()]
        value = [[rows[0]["equivocated"][0][0]] * 2]
    change(copied, row, key, value)
    assert named in " ".join(verify(copied)["problems"])


def test_a_missing_agreement_is_named(copied):
    (copied / "consensus.jsonl").unlink()
    assert "no agreement" in verify(copied)["problems"][0]


def test_a_run_that_goes_on_forgets_what_was_agreed_on_later(copied):
    loaded = check(copied / "scenario.yaml")
    from fedray.ledger.chain import read

    SignedLedger(copied, loaded.scenario, loaded.folder).go_back(1, read(copied).entries)
    assert len((copied / "consensus.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("consensus", "named"),
    [
        ({"kind": "pbft", "silent": [0], "equivocating": [1]}, "at most 1 of 4"),
        ({"kind": "pbft", "silent": [4]}, "edge servers 0 to 3"),
        ({"kind": "pbft", "latency_s": 0.5}, "four times latency_s"),
        ({"kind": "pbft", "validators": 3}, "ledger.consensus.validators"),
    ],
)
def test_edge_servers_that_cannot_agree_are_refused(tmp_path, consensus, named):
    with pytest.raises(ScenarioError, match=named):
        check(garments(tmp_path, {"ledger": {"consensus": consensus}}))
