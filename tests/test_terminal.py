"""What is printed of strings that came from files."""

import io
import json

import pytest
from rich.console import Console

from fedray import terminal
from fedray.callbacks import ClientReport, RunStart
from fedray.errors import printable
from fedray.scenario import ScenarioError, load
from fedray.sweep import Variant, _last_words
from tests.helpers import tiny
from tests.report.made import SHA256, made_up

STEER = "\x1b]0;title\x07\x1b[2J\x9b31m\r\x08\u202egpj.exe\u2028"
SHOWN = "\\x1b]0;title\\x07\\x1b[2J\\x9b31m\\r\\x08\\u202egpj.exe\\u2028"


def test_whatever_steers_a_terminal_is_a_visible_escape_and_words_of_any_language_are_not():
    assert printable(STEER) == SHOWN
    assert printable("a\nb\tc") == "a\\nb\\tc"
    assert printable("a\nb", keep="\n") == "a\nb"
    assert printable("Übung 墨 😀 a\u00a0b") == "Übung 墨 😀 a\u00a0b"


@pytest.mark.parametrize("kind", [terminal.Quiet, terminal.Lines, terminal.Live])
def test_no_watcher_lets_a_note_a_failure_or_a_place_steer_the_terminal(kind, capsys, tmp_path):
    out = io.StringIO()
    watcher = (
        kind(Console(file=out, force_terminal=True, color_system=None, width=300))
        if kind is terminal.Live
        else kind()
    )
    report = ClientReport(1, 0, 1, samples_held=1, samples=1, steps=1, loss=0.5, failure=STEER, stage=STEER)
    watcher.on_start(RunStart(tmp_path, load(tiny(tmp_path)).scenario, STEER, 1, 0, []))
    watcher.on_client(report)
    watcher.on_note(STEER)
    watcher.variants({STEER: 1})
    watcher.variant_ended(STEER, f"failed: {STEER}")
    watcher.close()
    printed = out.getvalue() + "".join(capsys.readouterr())
    assert SHOWN in printed
    assert not any(
        part in printed for part in ("\x1b]0", "\x07", "\x1b[2J\x9b", "\x9b", "\u202e", "\u2028", "\x08")
    )


def test_a_failed_variants_last_words_and_the_command_lines_errors_are_visible(tmp_path, fedray, monkeypatch):
    run = made_up(tmp_path / "run", [0.5])
    (run / "error.json").write_text(json.dumps({"error": "x", "message": STEER}))
    assert (
        _last_words(Variant("run", run, rounds=1)) == f"failed: {STEER}"
    )  # which the watcher prints, as above
    (run / "metrics.jsonl").write_text(json.dumps({"round": STEER}) + "\n")
    code, _, err = fedray("report", run)
    assert code == 2
    assert err.isascii()
    assert err.count("\n") == 1

    def refuse(*_):
        raise ScenarioError([STEER])

    monkeypatch.setattr("fedray.report.page.write", refuse)
    assert fedray("report", run)[2] == SHOWN + "\n"


def test_a_result_that_a_stranger_wrote_is_told_without_its_escapes(tmp_path, fedray):
    run = made_up(tmp_path / "run", [0.5])
    done = {"status": "done", "rounds": 1, "weights_sha256": SHA256, "artifacts": []}
    (run / "result.json").write_text(
        json.dumps({"status": "done", "variants": {STEER: done}, "artifacts": []})
    )
    code, said, _ = fedray("run", "--resume", run)
    assert code == 0
    assert SHOWN in said


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0, "s", "0 s"),
        (2.47e-7, "s", "247 ns"),
        (3.5e-6, "J", "3.5 µJ"),
        (0.0105, "s", "10.5 ms"),
        (0.9996, "s", "999.6 ms"),
        (0.99996, "s", "1 s"),
        (999.96, "B", "1 kB"),
        (9.44e6, "B", "9.44 MB"),
        (1200, "J", "1.2 kJ"),
        (-0.002, "J", "-2 mJ"),
        (0.4, "B", "0.4 B"),
        (1.5e15, "FLOP", "1.5 PFLOP"),
        (1e-12, "s", "0.001 ns"),
    ],
)
def test_numbers_have_si_prefixes_and_what_is_counted_has_no_thousandths(value, unit, shown):
    assert terminal.size(value, unit) == shown


@pytest.mark.parametrize(("widgets", "kind"), [(True, terminal.Live), (False, terminal.Lines)])
def test_a_notebook_has_richs_own_progress_where_it_can_change_what_it_shows(widgets, kind, monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(terminal, "find_spec", lambda name: widgets or None)
    shown = terminal.progress()
    assert type(shown) is kind
    if widgets:
        assert shown.console.is_jupyter
    shown.close()
    assert type(terminal.progress(quiet=True)) is terminal.Quiet
