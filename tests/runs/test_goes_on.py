"""A run goes on as what it was: with its scenario and its data, for more rounds where somebody asks for
them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedray import resume, shipped
from fedray.data import holdings
from fedray.data.clients import Holdings
from fedray.runs.fingerprint import differences, of_data
from fedray.runs.folder import RunFolder
from fedray.scenario import ScenarioError
from tests.helpers import ARTISTS, garments, job_of, rows, run

SMALL = {"training.rounds": 2, "population.per_round": 3}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of a run of two rounds over shipped images, its scenario's file, and an unbroken run of
    three."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(shipped.HERE / "ink", folder / "ink")
    changes = SMALL | ARTISTS
    file = garments(folder, changes | {"data": ARTISTS["data"] | {"path": str(folder / "ink")}})
    run(file, folder / "run")
    run(
        garments(
            folder,
            changes | {"data": ARTISTS["data"] | {"path": str(folder / "ink")}, "training.rounds": 3},
            "3.yaml",
        ),
        folder / "three",
    )
    return folder


def sha256(folder):
    return json.loads((folder / "result.json").read_text())["weights_sha256"]


@pytest.fixture
def broken(two, tmp_path):
    """The run of two rounds as it was before it had written its result, and its images, both where they may
    be changed."""
    out = shutil.copytree(two / "run", tmp_path / "run")
    (out / "result.json").unlink()
    data = shutil.copytree(two / "ink", tmp_path / "ink")
    edit(out, {re.escape(str(two / "ink")): str(data)})
    return out, data


def edit(out, changes):
    file = out / "scenario.resolved.yaml"
    text = file.read_text()
    for pattern, new in changes.items():
        text, n = re.subn(pattern, new, text)
        assert n, pattern
    file.write_text(text)


def test_data_and_run_may_move_as_long_as_they_are_the_same(broken, two):
    out, _ = broken
    run(None, out, resume=True)
    assert sha256(out) == sha256(two / "run")


EDITS = {
    "another seed": ({r"(?m)^seed: 0$": "seed: 1"}, "seed: got 1, expected 0, as before"),
    "a faster optimizer": (
        {"learning_rate: 0.05": "learning_rate: 0.06"},
        "training.optimizer.learning_rate: got 0.06, expected 0.05",
    ),
    "fewer a round": ({"per_round: 3": "per_round: 2"}, "population.per_round: got 2, expected 3, as before"),
    "another rule": (
        {"kind: fedavg": "kind: fedadam"},
        "aggregation.kind: got fedadam, expected fedavg, as before",
    ),
    "more threads": ({"threads: 1": "threads: 2"}, "runtime.threads: got 2, expected 1, as before"),
}


@pytest.mark.parametrize("what", EDITS)
def test_a_run_does_not_go_on_as_another_scenario_and_says_what_differs(what, broken):
    out, _ = broken
    changes, expected = EDITS[what]
    edit(out, changes)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(ScenarioError, match=re.escape(f"--resume {out}: {expected}")):
        run(None, out, resume=True)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_a_run_does_not_go_on_with_other_images(broken):
    out, data = broken
    image, other = sorted(data.rglob("*.png"))[:2]
    shutil.copy(other, image)
    with pytest.raises(ScenarioError, match=r"contents of samples: got .*, expected .*, as before"):
        run(None, out, resume=True)


def test_a_run_does_not_go_on_with_other_captions(broken):
    out, data = broken
    metadata = sorted(data.rglob("metadata.jsonl"))[0]
    metadata.write_text(metadata.read_text().replace("a photo of", "a drawing of"))
    with pytest.raises(ScenarioError, match=r"labels and captions: got .*, expected .*, as before"):
        run(None, out, resume=True)


def test_a_trace_beside_the_scenario_may_move_but_not_change(tmp_path):
    (tmp_path / "up.trace").write_text("10\n20\n")
    trace = {"network.uplink": {"kind": "trace", "path": "up.trace"}, "training.rounds": 1}
    out = tmp_path / "run"
    run(garments(tmp_path, trace), out)
    (out / "result.json").unlink()
    moved = shutil.move(tmp_path / "up.trace", tmp_path / "moved.trace")
    edit(out, {"up.trace": "moved.trace", "rounds: 1": "rounds: 2"})
    assert run(None, out, resume=True)["rounds"] == 2
    (out / "result.json").unlink()
    moved.write_text("10\n30\n")
    edit(out, {"rounds: 2": "rounds: 3"})
    expected = r"network\.uplink\.path \(its files\): got .*, expected .*, as before"
    with pytest.raises(ScenarioError, match=expected):
        run(None, out, resume=True)


def test_a_run_does_not_go_on_with_samples_in_other_hands(tmp_path):
    """The same samples, dealt anew: what a change of how fedray deals them would do."""
    _, job = job_of(garments(tmp_path))
    samples, held = holdings(job.scenario, job.folder)
    parts = [held[c] for c in held]
    dealt = Holdings([np.sort(np.append(parts[0], parts[1][:1])), parts[1][1:], *parts[2:]])
    before, now = ({"data": of_data(samples, h)} for h in (held, dealt))
    assert [line.split(":")[0] for line in differences(before, now, "data")] == ["partition"]


def test_what_reaches_no_weight_may_be_other_than_it_was(broken, two):
    out, _ = broken
    edit(out, {"checkpoint_every: 1": "checkpoint_every: 5", "name: garments": "name: other"})
    run(None, out, resume=True)
    assert sha256(out) == sha256(two / "run")


def test_other_code_is_said(broken, capfd):
    out, _ = broken
    for file in out.glob("checkpoints/*/state.json"):
        file.write_text(file.read_text().replace('"torch": "', '"torch": "0.0.'))
    run(None, out, resume=True)
    assert re.search(
        r"other code than before, with which bits may differ: torch: got \S+, expected 0\.0\.",
        capfd.readouterr().err,
    )


def test_a_run_that_lost_lines_of_its_metrics_is_not_done_and_makes_them_again(two, tmp_path, capfd):
    out = shutil.copytree(two / "run", tmp_path / "run")
    first, _ = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text(first)
    assert resume.finished(RunFolder(out)) is None
    run(None, out, resume=True)
    assert (
        "refused checkpoint round-0002, which is damaged: metrics.jsonl has 1 of its 2 lines"
        in capfd.readouterr().err
    )
    assert [row["round"] for row in rows(out / "metrics.jsonl")] == [1, 2]
    assert sha256(out) == sha256(two / "run")


def test_more_rounds_give_the_bits_of_a_run_that_had_them_from_the_start(two, tmp_path, fedray):
    out = shutil.copytree(two / "run", tmp_path / "run")
    code, said, err = fedray("run", "--resume", out, "--rounds", 3)
    assert code == 0, err
    assert "done: 3 rounds" in said
    assert sha256(out) == sha256(two / "three")
    assert "rounds: 3" in (out / "scenario.resolved.yaml").read_text()
    before = json.loads((two / "run" / "result.json").read_text())
    kept = json.loads((out / "results" / "round-0002.json").read_text())
    assert kept == {key: value for key, value in before.items() if key != "artifacts"}
    assert "its result after round 2 is kept in results/round-0002.json" in said + err
    code, said, _ = fedray("run", "--resume", out)
    assert (code, "was already done: 3 rounds" in said) == (0, True)


class InThisProcess:
    """What a sweep starts for a run: `fedray run ARGUMENTS`, here and to its end."""

    def __init__(self, command, **_):
        from fedray import checks, execution
        from fedray.terminal import Quiet

        what = command[command.index("run") + 1 :]
        if what[0] == "--resume":
            rounds = int(what[what.index("--rounds") + 1]) if "--rounds" in what else None
            folder, loaded, result = execution.reopen(Path(what[1]), rounds)
            assert result is None
        else:
            loaded = checks.check(Path(what[0]))
            folder = execution.create(loaded, what[2])
        execution.execute(folder, loaded, Quiet(), resume=what[0] == "--resume")

    def poll(self):
        return 0


def test_more_rounds_of_a_sweep_are_more_of_every_run_with_the_bits_they_have_alone(
    two, tmp_path, fedray, monkeypatch, weights_alone
):
    from fedray import sweep

    monkeypatch.setattr(sweep.subprocess, "Popen", InThisProcess)
    monkeypatch.setattr(sweep, "POLL_INTERVAL_S", 0)
    data = {"data": ARTISTS["data"] | {"path": str(two / "ink")}}
    grid = {"grid": {"training.batch_size": [2, 4]}, "at_once": 1}
    file = garments(tmp_path, SMALL | ARTISTS | data | {"sweep": grid})
    out = tmp_path / "all"
    assert fedray("run", file, "--out", out)[0] == 0
    before = json.loads((out / "result.json").read_text())
    shutil.rmtree(out / "batch_size-2" / "checkpoints")  # which had not begun yet
    code, _, err = fedray("run", "--resume", out, "--rounds", 3)
    assert code == 0, err
    result = json.loads((out / "result.json").read_text())
    assert {one["rounds"] for one in result["variants"].values()} == {3}
    assert sha256(out / "batch_size-4") == sha256(two / "three")
    kept = json.loads((out / "results" / "round-0002.json").read_text())
    assert kept["summary"] == before["summary"]
    assert "rounds: 3" in (out / "scenario.resolved.yaml").read_text()
    code, _, err = fedray("run", "--resume", out, "--rounds", 3)
    assert (code, err) == (
        2,
        "--rounds 3: got no more than the 3 rounds that its runs have, expected more\n",
    )


def test_a_finished_run_whose_scenario_asks_for_more_rounds_goes_on(two, tmp_path):
    out = shutil.copytree(two / "run", tmp_path / "run")
    edit(out, {"rounds: 2": "rounds: 3"})
    run(None, out, resume=True)
    assert sha256(out) == sha256(two / "three")


def test_a_finished_run_whose_scenario_was_edited_is_not_done_as_that(two, tmp_path, fedray):
    out = shutil.copytree(two / "run", tmp_path / "run")
    edit(out, {r"(?m)^seed: 0$": "seed: 1"})
    code, said, err = fedray("run", "--resume", out)
    assert (code, said) == (2, "")
    assert err == f"--resume {out}: seed: got 1, expected 0, as before\n"


def test_no_more_rounds_than_are_done_is_an_error(two, tmp_path, fedray):
    out = shutil.copytree(two / "run", tmp_path / "run")
    code, _, err = fedray("run", "--resume", out, "--rounds", 2)
    assert (code, err) == (2, "--rounds 2: got no more than the 2 rounds that are done, expected more\n")
    code, _, err = fedray("run", "quickstart", "--rounds", 2)
    assert code == 2
    assert "--rounds goes with --resume" in err


def test_strangers_files_beside_checkpoints_and_samples_are_left_alone(broken, two):
    out, _ = broken
    copies = [
        shutil.copytree(out / "checkpoints" / "round-0002", out / "checkpoints" / name)
        for name in (
            "round-0002 (copy)",
            "round-0002.bak",
            "round-0001-old",
            "round-9",
            "round-00009",
            "Round-0003",
        )
    ]
    (out / "checkpoints" / "round-0007").symlink_to(two)
    (out / "checkpoints" / "round-0008").write_text("a file")
    (out / "samples").mkdir(exist_ok=True)
    kept = [
        out / "samples" / name
        for name in ("round-0009-copy.png", "round-best.png", "round-.png", "notes.txt", "round-0009.png.bak")
    ]
    for file in kept:
        file.write_text("mine")
    ours = out / "samples" / "round-0009.png"
    ours.write_text("of a round that was not recorded")
    run(None, out, resume=True)
    assert sha256(out) == sha256(two / "run")
    assert all(place.exists() for place in (*copies, *kept))
    assert not ours.exists()
    assert not [
        name
        for name in json.loads((out / "result.json").read_text())["artifacts"]
        if "copy" in name or "notes" in name
    ]


def test_a_folder_that_was_broken_off_before_it_began_can_be_started_again(tmp_path, fedray):
    file = garments(tmp_path, SMALL)
    out = tmp_path / "run"
    out.mkdir()
    for name in (".prepared", "scenario.yaml", "metrics.jsonl", ".scenario.resolved.yaml.part"):
        (out / name).write_text("")
    code, _, err = fedray("run", "--resume", out)
    assert (code, "broken off before it began: fedray run ... --out" in err) == (2, True)
    code, _, err = fedray("run", file, "--out", out, "--quiet")
    assert code == 0, err
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]
