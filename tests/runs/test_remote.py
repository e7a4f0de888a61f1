"""Run folders on another file system: here pyarrow's of this machine, by its URI."""

import json
import shutil
from pathlib import Path

import pytest

from fedray import mirror
from fedray.failures import RunFailed
from fedray.network.ledger import Ledger
from fedray.runs.folder import RunFolder
from fedray.runs.remote import Remote, is_uri, without_secrets
from fedray.runs.state import Saved
from fedray.scenario import ScenarioError, load
from tests.helpers import ARTISTS, garments, job_of, rows, run

SMALL = ARTISTS | {"training.rounds": 2, "population.per_round": 2}


def after_rounds(run, rounds):
    """A run folder with so many rounds done, as a run leaves it after each."""
    for number in rounds:
        event = {"round": number, "loss": 0.5, "clients": 0, "bytes_uplink": 0, "bytes_downlink": 0}
        run.append([], event | {"bytes_sidelink": 0, "sim_time_s": 1.0, "energy_j": 1.0, "wall_time_s": 1.0})

        def write(folder, before, number=number):
            (folder / "weights.safetensors").write_text(f"weights of round {number}")
            return Saved("ab" * 32, {"weights.safetensors": "x"})

        run.checkpoint(number, write, Ledger(), 1.0, 0)


class Broken(OSError):
    pass


@pytest.mark.parametrize("killed_at", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 99])
def test_a_kill_at_any_file_leaves_a_run_that_goes_on(tmp_path, monkeypatch, killed_at):
    loaded = load(garments(tmp_path))
    run = RunFolder.create(tmp_path / "run", loaded)
    there = tmp_path / "there"
    remote = Remote(there.as_uri())
    after_rounds(run, [1, 2])
    remote.push(run.path)
    after_rounds(run, [3, 4])
    (run.path / "result.json").write_text("{}")
    left = iter(range(killed_at))

    def until_killed(action):
        def acting(*arguments):
            if next(left, None) is None:
                raise Broken("killed")
            return action(*arguments)

        return acting

    with monkeypatch.context() as patch:
        patch.setattr(remote, "put", until_killed(remote.put))
        patch.setattr(remote, "_delete", until_killed(remote._delete))
        try:
            remote.push(run.path)
            finished = True
        except Broken:
            finished = False
    fetched = RunFolder.reopen(Remote(there.as_uri()).fetch())
    whole = [s for _, s in fetched.states() if not isinstance(s, str) and fetched.lost_lines(s) is None]
    assert whole[0].round in (2, 3, 4)
    assert (fetched.path / "result.json").exists() <= (whole[0].round == 4)
    if finished:
        assert [state.round for state in whole] == [4, 3]
        assert sorted(
            folder.name for folder in (there / "checkpoints").iterdir() if any(folder.iterdir())
        ) == [
            "round-0003",
            "round-0004",
        ]
    shutil.rmtree(fetched.path.parent)


def test_a_run_elsewhere_is_resumed_and_read_there(tmp_path, fedray, weights_alone, monkeypatch):
    monkeypatch.setattr(mirror, "INTERVAL_S", 0.01)
    file = garments(tmp_path, SMALL)
    alone = run(file, tmp_path / "alone")
    uri = (tmp_path / "store" / "one").as_uri()
    code, said, err = fedray("run", file, "--out", uri, "--json", "--quiet")
    assert code == 0, err
    result = json.loads(said)
    assert (result["run"], result["weights_sha256"]) == (uri, alone["weights_sha256"])
    store = tmp_path / "store" / "one"
    assert {"scenario.yaml", "metrics.jsonl", "result.json", "report.html", "run.log"} <= {
        entry.name for entry in store.iterdir()
    }
    assert not list(store.rglob("*.part"))
    code, said, _ = fedray("run", "--resume", uri, "--rounds", 3)
    assert code == 0
    assert f"{uri} done: 3 rounds" in said
    assert len(rows(store / "metrics.jsonl")) == 3
    assert (store / "results" / "round-0002.json").exists()
    longer = run(garments(tmp_path, SMALL | {"training.rounds": 3}, "3.yaml"), tmp_path / "longer")
    assert json.loads((store / "result.json").read_text())["weights_sha256"] == longer["weights_sha256"]
    code, said, _ = fedray("report", uri, "--out", tmp_path / "page.html")
    assert (code, (tmp_path / "page.html").exists()) == (0, True)
    import fedray as library

    opened = library.open(uri)
    assert opened.metrics.num_rows == 3
    code, _, err = fedray("run", file, "--out", uri)
    expected = f"expected a new one (or --resume {uri})"
    assert (code, err) == (2, f"--out {uri}: got a folder that already holds a run, {expected}\n")


def test_what_cannot_be_reached_or_written_is_one_line_with_the_uri_and_the_cause(tmp_path, fedray):
    file = garments(tmp_path, SMALL)
    (tmp_path / "file").touch()
    uri = (tmp_path / "file" / "run").as_uri()
    code, said, err = fedray("run", file, "--out", uri)
    assert (code, said, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"{uri}: got ")
    assert "Not a directory" in err
    code, _, err = fedray("run", file, "--out", "nope://key:secret@bucket/run")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("nope://bucket/run: got ")
    assert "secret" not in err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    uri = (tmp_path / "other").as_uri()
    assert "got a folder that holds other files" in fedray("run", file, "--out", uri)[2]
    code, _, err = fedray("run", "--resume", uri)
    assert (code, err) == (
        2,
        f"{uri}: got a folder that holds no run, expected one with scenario.resolved.yaml\n",
    )


def test_what_was_refused_before_it_trained_leaves_nothing_there(tmp_path):
    loaded, _ = job_of(garments(tmp_path, SMALL))
    remote = Remote((tmp_path / "store" / "one").as_uri())
    folder = RunFolder.create(remote.staging(), loaded)
    remote.push(folder.path)
    notes = []

    def refused():
        with mirror.mirrored(remote, folder.path, notes.append):
            folder.discard()
            raise ScenarioError(["no"])

    with pytest.raises(ScenarioError, match="no"):
        refused()
    assert (remote.files(), notes) == ({}, [])


def test_an_end_that_cannot_be_copied_up_says_where_the_run_is(tmp_path, monkeypatch):
    loaded, _ = job_of(garments(tmp_path, SMALL))
    remote = Remote((tmp_path / "store").as_uri())
    folder = RunFolder.create(remote.staging(), loaded)

    def full(*_):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(remote, "put", full)
        copying = mirror.mirrored(remote, folder.path, print)
        with pytest.raises(RunFailed, match="got no space, expected a place that") as failed, copying:
            pass
    assert str(folder.path) in failed.value.advice


def test_names_that_lead_out_of_a_run_are_not_fetched(tmp_path, monkeypatch):
    remote = Remote(tmp_path.as_uri())
    monkeypatch.setattr(remote, "files", lambda: dict.fromkeys(["scenario.resolved.yaml", "../x"]))
    (tmp_path / "scenario.resolved.yaml").write_text("name: x")
    with pytest.raises(ScenarioError, match=r"got a file called '\.\./x', expected a run's own"):
        remote.fetch()


def test_a_uri_is_told_from_a_path_and_shows_no_secrets():
    assert is_uri("s3://bucket/run")
    assert not any(map(is_uri, ["runs/x", "/a/b", "c:\\x", "x:y", Path("s3://bucket")]))
    assert without_secrets("run --out s3://key:secret@b/r?region=x") == "run --out s3://b/r?region=x"
