"""`fedray verify`: a run is as it was signed, and any byte that is not is named."""

import json
import shutil

import pytest

from fedray.ledger import log
from fedray.ledger import records as forms
from fedray.ledger.chain import chain
from fedray.ledger.keys import from_seed
from fedray.report.page import write
from fedray.runs import reader
from fedray.scenario import ScenarioError
from fedray.verification import verify
from tests.helpers import CommandLine, garments, run

CHANGES = {
    "training.rounds": 3,
    "population": {"clients": 3, "per_round": 2},
    "ledger": {"keep": "updates"},
}


@pytest.fixture(scope="module")
def ledger_run(tmp_path_factory):
    """A run of three rounds whose ledger keeps updates."""
    folder = tmp_path_factory.mktemp("ledger")
    run(garments(folder, CHANGES), folder / "run")
    return folder / "run"


@pytest.fixture
def copied(ledger_run, tmp_path):
    return shutil.copytree(ledger_run, tmp_path / "run")


@pytest.fixture
def fedray(monkeypatch, capfd):
    return CommandLine(monkeypatch, capfd)


def records(run):
    return [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]


def flip(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def kept(run):
    return sorted((run / "ledger").rglob("*.safetensors"))


def test_an_untouched_run_verifies_and_its_updates_add_up_to_its_weights(ledger_run):
    result = verify(ledger_run)
    assert result["problems"] == []
    assert (result["rounds"], result["leaves"], result["rounds_added_again"]) == (3, 6, 3)
    weights = json.loads((ledger_run / "result.json").read_text())["weights_sha256"]
    assert result["head"]["weights"] == weights


def test_flipped_bytes_of_each_line_are_named_by_their_line(copied):
    ledger = copied / "ledger.jsonl"
    run_id = records(copied)[0]["head"]["run"]
    whole = ledger.read_bytes()
    at = 0
    for number, line in enumerate(whole.splitlines(keepends=True), 1):
        # every 13th byte: keys, punctuation, hashes and signatures of each line are among them
        for place in range(at, at + len(line) - 1, 13):
            ledger.write_bytes(whole)
            flip(ledger, place)
            assert f"ledger.jsonl:{number}:" in chain(copied, run_id).problems[0], (number, place)
        at += len(line)


@pytest.mark.parametrize("name", ["ledger-keys.json", "ledger.jsonl"])
def test_the_first_and_the_last_byte_of_a_file_are_not_forgotten(copied, name):
    for at in (0, -1):
        original = (copied / name).read_bytes()
        flip(copied / name, at)
        assert any(name in problem for problem in verify(copied)["problems"])
        (copied / name).write_bytes(original)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 1])
def test_a_flipped_byte_of_a_kept_update_is_named(copied, share):
    file = kept(copied)[2]
    flip(file, int(share * (file.stat().st_size - 1)))
    (problem,) = verify(copied)["problems"]
    leaf = [entry["leaf"] for entry in records(copied) if "leaf" in entry][2]
    assert str(file) in problem
    assert f"client {leaf['client']} in round {leaf['round']}" in problem


def test_a_flipped_byte_of_any_file_of_a_checkpoint_is_named(copied):
    for file in sorted((copied / "checkpoints").rglob("*.*")):
        if file.is_file():
            original = file.read_bytes()
            for at in (0, len(original) // 2, -1):
                flip(file, at)
                (problem,) = verify(copied)["problems"]
                assert str(file) in problem
                file.write_bytes(original)


def test_a_line_that_is_gone_and_a_file_that_is_gone_or_was_added_are_named(copied):
    ledger = copied / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    assert "1 leaves of root" in verify(copied)["problems"][0]
    ledger.write_bytes(b"".join(lines[:-1]))  # without its last head
    assert verify(copied)["problems"]
    ledger.write_bytes(b"".join(lines))
    kept(copied)[0].rename(copied / "ledger" / "other.safetensors")
    added, gone = verify(copied)["problems"]
    assert "other.safetensors: got a file without a leaf" in added
    assert "got no update, expected that of client" in gone


def test_a_scenario_that_was_changed_is_another_run(copied):
    file = copied / "scenario.resolved.yaml"
    file.write_text(file.read_text().replace("learning_rate: 0.05", "learning_rate: 0.06"))
    assert "which the scenario in scenario.resolved.yaml is" in verify(copied)["problems"][0]


def test_an_update_that_was_signed_again_does_not_add_up(copied):
    """Whoever has the keys can write another history; with kept updates the sum gives it away."""
    loaded = reader.scenario(copied)
    head, first, second, after = records(copied)[:4]
    models = [
        log.GlobalModel(entry["buffer"], entry["weights"], entry["clients"])
        for entry in (head["head"], after["head"])
    ]
    leaf = forms.Leaf(**(first["leaf"] | {"weight": first["leaf"]["weight"] + 1}))
    signature = from_seed(0, f"client-{leaf.client}").sign(forms.signed_bytes("leaf", leaf)).hex()
    leaves = {
        leaf.client: forms.line(forms.SignedLeaf(leaf=leaf, signature=signature)),
        second["leaf"]["client"]: forms.canonical(second),
    }
    updates = {client: (copied / forms.kept_file(1, client)).read_bytes() for client in leaves}
    shutil.rmtree(copied / "checkpoints")
    (copied / "result.json").unlink()
    forged = log.SignedLedger(copied, loaded.scenario, loaded.folder)
    forged.begin(models[0])
    forged.add_round(1, leaves, updates, models[1])
    (problem,) = verify(copied)["problems"]
    assert "the sum of the kept updates gives a global model" in problem
    assert "after round 1" in problem


def test_the_command_prints_a_proof_and_ends_with_0(ledger_run, fedray):
    leaf = next(entry["leaf"] for entry in records(ledger_run) if "leaf" in entry)
    number = leaf["round"]
    client = leaf["client"]
    code, out, _ = fedray("verify", ledger_run, "--round", number, "--client", client)
    assert code == 0
    assert "kept updates: added up again, the same weights to the bit" in out
    assert "root of the last head" in out
    code, out, _ = fedray("verify", ledger_run, "--round", number, "--client", client, "--json")
    proof = json.loads(out)["inclusion"]
    assert (code, proof["verified"], proof["leaf"]["leaf"]) == (0, True, leaf)


def test_the_command_names_what_was_changed_and_ends_with_1(copied, fedray):
    flip(kept(copied)[0], 200)
    code, out, err = fedray("verify", copied)
    assert (code, out) == (1, "")
    assert f"{kept(copied)[0]}: got an update that was changed" in err


def test_a_run_without_a_ledger_and_an_update_that_is_not_there_are_bad_usage(copied, fedray):
    assert fedray("verify", copied, "--round", 1)[0] == 2
    code, _, err = fedray("verify", copied, "--round", 9, "--client", 1)
    assert (code, "expected a round from 1 to 3" in err) == (2, True)
    (copied / "ledger.jsonl").unlink()
    code, _, err = fedray("verify", copied)
    assert (code, "got a run without ledger.jsonl" in err) == (2, True)
    with pytest.raises(ScenarioError):
        verify(copied / "samples")


def test_the_report_has_the_last_head_and_says_what_a_ledger_does_not_prove(ledger_run, tmp_path):
    page = write([ledger_run], tmp_path / "report.html").read_text()
    assert records(ledger_run)[-1]["head"]["root"] in page
    assert "Does not prove: that a client trained honestly" in page
    assert "from the seed, for simulation" in page
