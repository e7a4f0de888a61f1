"""Run folders that were half written, or that a stranger made."""

import json
import re
import shutil
from functools import partial

import pytest
from PIL import Image

from fedray import engine, trained_models
from fedray import generate as generating
from fedray.errors import UserError
from fedray.report.page import write
from fedray.runs import reader
from fedray.runs.folder import RunFolder
from fedray.runs.state import State
from fedray.scenario import ScenarioError
from fedray.terminal import Quiet
from tests.report.made import made_up, with_everything

STATE = "checkpoints/round-0002/state.json"
OBJECTS = [
    "result.json",
    "error.json",
    "env.json",
    "baseline.json",
    "partition.json",
    "augmentation.json",
    "split.json",
    STATE,
]
LINES = ["metrics.jsonl", "timeline.jsonl"]
SAMPLES = [
    "samples/round-0002.png",
    "samples/round-0002.txt",
    "samples/pictures.png",
    "samples/attack-0002.png",
    "samples/reconstructions-0002.png",
]
FILES = ["scenario.resolved.yaml", *OBJECTS, *LINES, "CITATION.bib", *SAMPLES]


def changed(value):
    """JSON with every number a text, every text a list, every list and mapping a number within."""
    if isinstance(value, dict):
        return {k: changed(v) for k, v in value.items()}
    return "many" if isinstance(value, int | float) else [1.5] if isinstance(value, str) else 7


def other_types(file):
    if ".json" not in file.suffix:
        return "- 1\n- 2\n"
    text = file.read_text()
    lines = text.splitlines() if file.suffix == ".jsonl" else [text]
    return "\n".join(json.dumps(changed(json.loads(line))) for line in lines) + "\n"


def not_numbers(file):
    """Every number becomes NaN, or one too large for any machine."""
    text = re.sub(r"(?<=: )\d[\d.]*", "NaN", file.read_text(), count=3)
    return re.sub(r"(?<=: )\d[\d.]*", "9" * 5000, text, count=1)


def elsewhere(file):
    outside = next(p for p in file.parents if p.name == "run").parent / "outside"
    shutil.copy(file, outside)
    file.unlink()
    file.symlink_to(outside)


def sparse(file):
    with file.open("wb") as f:
        f.truncate(2**36)


def folder_instead(file):
    file.unlink()
    file.mkdir()


FAULTS = {
    "missing": lambda f: f.unlink(),
    "empty": lambda f: f.write_bytes(b""),
    "cut": lambda f: f.write_bytes(f.read_bytes()[: len(f.read_bytes()) // 2]),
    "cut in its last line": lambda f: f.write_bytes(f.read_bytes()[:-9]),
    "no UTF-8": lambda f: f.write_bytes(f.read_bytes()[:40] + b"\xff\xfe" + f.read_bytes()[40:]),
    "a list": lambda f: f.write_text("[1, 2]\n"),
    "a number": lambda f: f.write_text("7\n"),
    "nothing but null": lambda f: f.write_text("null\n"),
    "other types": lambda f: f.write_text(other_types(f)),
    "an empty object": lambda f: f.write_text("{}\n"),
    "no numbers": lambda f: (
        f.write_text(not_numbers(f))
        if f.suffix not in (".png",)
        else f.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 99)
    ),
    "deep": lambda f: f.write_text("[" * 100_000 + "\n"),
    "deep, and whole": lambda f: f.write_text('{"a":' * 50_000 + "1" + "}" * 50_000 + "\n"),
    "huge": sparse,
    "a link out of the folder": elsewhere,
    "a link to itself": lambda f: (f.unlink(), f.symlink_to(f)),
    "a folder": folder_instead,
}
UNREADABLE = {"no UTF-8", "huge", "a link out of the folder", "a link to itself", "a folder"}
WHOLE = [("an empty object", "env.json"), ("an empty object", "baseline.json")]  # which need nothing
TEXT = ["no UTF-8", "a list", "a number", "nothing but null", "other types", "an empty object", "deep"]


class Damaged:
    """Instead of a model's part, which takes seconds to build: every weight is damaged."""

    flat = type("Flat", (), {"layout": None})

    def __init__(self, *_):
        pass

    def receive(self, *_):
        pass

    def restore(self, *_):
        raise ValueError("damaged")


def outcome(action):
    """What a person is told; none where the action did its job. Any other error is a defect."""
    try:
        action()
    except UserError as e:
        return str(e)
    return None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return with_everything(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def cheap(monkeypatch):
    """Neither is a model made nor a chart drawn, which takes seconds."""
    monkeypatch.setattr(trained_models, "Model", Damaged)
    monkeypatch.setattr(trained_models, "ServerWork", Damaged)
    monkeypatch.setattr("fedray.report.charts.svg", lambda *_: "")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_not_as_a_run_writes_it_is_read_past_or_refused_by_file_and_line(
    whole, tmp_path, cheap, name, fault
):
    run = shutil.copytree(whole, tmp_path / "runs" / "run")
    FAULTS[fault](file := run / name)

    said = outcome(lambda: write([run], tmp_path / "report.html"))
    if name in SAMPLES:
        assert said is None
        bad = UNREADABLE if file.suffix == ".txt" else FAULTS.keys() - {"missing"}
        assert (str(file) in (tmp_path / "report.html").read_text()) == (fault in bad)
    elif fault == "missing":
        assert said is None or name == "scenario.resolved.yaml"
    elif fault in TEXT and name in (*OBJECTS, *LINES) and (fault, name) not in WHOLE:
        assert said is None if name == STATE else re.match(rf"{file}:[1-9]: ", said), said
    for told in (
        said,
        outcome(lambda: list(RunFolder.reopen(run, "--resume ").states())),
        outcome(lambda: RunFolder.reopen(run).rows()),
        outcome(lambda: generating.generate(run, ["a bag"], tmp_path / "bag.png")),
    ):
        for line in (told or "").splitlines():
            assert re.match(rf"(--resume )?{run}\S*: (\S+: )?got .+, expected .", line), line


@pytest.mark.parametrize("fault", [f for f in FAULTS if f != "missing"])
def test_a_checkpoint_whose_state_is_not_whole_is_passed_over_with_the_reason(whole, tmp_path, fault):
    run = shutil.copytree(whole, tmp_path / "runs" / "run")
    assert isinstance(next(RunFolder(run).states())[1], State)
    FAULTS[fault](run / STATE)
    ((_, told),) = RunFolder(run).states()
    assert "state.json" in told


def test_a_last_line_that_was_cut_off_is_not_there_yet(tmp_path):
    run = made_up(tmp_path / "run", [0.5, 0.4, 0.3])
    for name in LINES:
        (run / name).write_bytes((run / name).read_bytes()[:-20])
    assert [row["round"] for row in RunFolder(run).rows()] == [1, 2]
    assert len(reader.lines(run, "timeline.jsonl")) == 5


def test_a_bad_line_is_named_by_its_number_and_key(tmp_path):
    run = made_up(tmp_path / "run", [0.5, 0.4, 0.3])
    lines = (run / "metrics.jsonl").read_text().splitlines()
    for bad, expected in (
        (lines[1].replace('"loss": 0.4', '"loss": "much"'), "loss: got 'much', expected a valid number"),
        (lines[1].replace('"energy_j": 6.0, ', ""), "energy_j: got nothing, expected this key"),
        (lines[1][:50], "got text that is no JSON"),
    ):
        (run / "metrics.jsonl").write_text("\n".join((lines[0], bad, lines[2])) + "\n")
        with pytest.raises(ScenarioError) as e:
            RunFolder(run).rows()
        assert str(e.value).startswith(f"{run / 'metrics.jsonl'}:2: {expected}")


def test_a_bad_key_of_a_json_file_is_named_by_its_line(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    text = (run / "env.json").read_text().replace('"cpus": 2', '"cpus": "two"')
    (run / "env.json").write_text(text)
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "cpus" in row)
    assert (
        outcome(lambda: write([run]))
        == f"{run / 'env.json'}:{line}: cpus: got 'two', expected a valid integer"
    )


def test_a_step_of_nobody_in_the_population_is_refused_by_its_line(tmp_path):
    run = made_up(tmp_path / "run", [0.5])
    text = (run / "timeline.jsonl").read_text()
    (run / "timeline.jsonl").write_text(text.replace('"peer": "client-1"', '"peer": "client-99"'))
    expected = (
        f"{run / 'timeline.jsonl'}:2: got client-99, expected the server, or one of client-0 to client-4"
    )
    assert outcome(lambda: write([run])) == expected


def test_nothing_of_a_run_is_read_or_written_through_a_link_out_of_its_folder(whole, tmp_path):
    for name in ("model", "samples", "checkpoints", "generated", "metrics.jsonl"):
        run, outside = shutil.copytree(whole, tmp_path / name / "run"), tmp_path / name / "outside"
        if (run / name).exists():
            (run / name).rename(outside)
        else:
            outside.mkdir()
        (run / name).symlink_to(outside)
        expected = f"{run / name}: got a link out of the run folder, to {outside}, expected a file in it"
        for action in (
            lambda run: write([run]),
            lambda run: generating.generate(run, ["a"]),
            RunFolder.reopen,
        ):
            assert outcome(partial(action, run)) == expected


def test_a_run_does_not_go_on_where_a_file_that_it_writes_is_a_link_out_of_its_folder(whole, tmp_path):
    run, secret = shutil.copytree(whole, tmp_path / "runs" / "run"), tmp_path / "secret"
    secret.write_text("kept")
    for name in ("model/model.safetensors", "samples/attack-0001.png", "tensorboard/events"):
        file = run / name
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        file.symlink_to(secret)
        loaded = reader.scenario(run)
        expected = f"{file}: got a link out of the run folder, to {secret}, expected a file in it"
        assert (
            outcome(lambda loaded=loaded: engine.run(loaded, RunFolder.reopen(run), [Quiet()], resume=True))
            == expected
        )
        file.unlink()
    assert secret.read_text() == "kept"


def test_a_link_that_somebody_has_put_where_a_file_is_written_is_replaced(tmp_path):
    run, secret = made_up(tmp_path / "runs" / "run", [0.5]), tmp_path / "secret"
    secret.write_text("kept")
    for name in ("report.html", "baseline.json"):
        (run / f".{name}.part").symlink_to(secret)
    write([run])
    RunFolder(run).write("baseline.json", {})
    assert secret.read_text() == "kept"
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_checkpoints_and_samples_whose_names_are_not_a_runs_are_passed_over(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "checkpoints" / "round-x").mkdir()
    Image.new("RGB", (9, 9)).save(run / "samples" / "round-new.png")
    assert [folder.name for folder, _ in RunFolder(run).states()] == ["round-0002"]
    assert [n for n, _ in reader.samples(run, 9).grids] == [1, 2]
