"""What a report says of variants that ran under several seeds."""

import csv
import io
import json

import pytest

from fedray.report import page, recorded, replicates, tables
from fedray.report.page import write
from tests.report.made import SHA256, made_up

LOSSES = {0: [0.5, 0.4], 1: [0.7, 0.2], 2: [0.6, 0.6]}


@pytest.fixture
def runs(tmp_path):
    """Three runs of one scenario and one of another; the last of the three broke off."""
    folders = [made_up(tmp_path / f"five_{seed}", losses, seed=seed) for seed, losses in LOSSES.items()]
    folders.append(made_up(tmp_path / "rank_9", [0.3, 0.1], **{"tuning.rank": 9}))
    for folder in (*folders[:2], folders[3]):
        done = {"status": "done", "rounds": 2, "weights_sha256": SHA256, "final": {}, "artifacts": []}
        (folder / "result.json").write_text(json.dumps(done))
    (folders[2] / "error.json").write_text(json.dumps({"error": "X", "message": "no <disk> left"}))
    return folders


def test_the_page_has_means_over_the_seeds_that_are_done_and_says_what_stopped(runs):
    text = write(runs).read_text()
    table = text[text.index('id="over-seeds"') :].split("</table>")[0]
    # Losses 0.4 and 0.2: std 0.1414, and t is 12.706, so that half the interval is 1.2706.
    assert "0.3 ± 1.3 (0.1)" in table
    assert ">five</th>" in table
    assert 'data-of="seeds">0, 1<' in table
    assert "0.1000" not in table
    assert ">0.1</td>" in table  # the single run of the other variant
    assert "five: 2 of 3 seeds done" in text
    assert "no &lt;disk&gt; left" in text
    assert 'aria-label="training loss against rounds, over seeds"' in text


def test_a_mean_has_its_place_where_its_runs_are_on_average(runs):
    five, other = replicates.variants(recorded.read(runs))
    (x1, first), (x2, last) = five.series("loss", "seconds")
    assert (x1, x2) == (2.0, 4.0)
    assert (first.mean, last.mean) == (pytest.approx(0.6), pytest.approx(0.3))
    assert other.series("loss", "rounds")[0][1].interval is None


def test_the_csv_has_every_number_and_what_variants_differ_in(runs, tmp_path):
    tables.write(runs, tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "table.csv").read_text())))
    assert [row["variant"] for row in rows] == ["five", "rank_9"]
    assert [row["tuning.rank"] for row in rows] == ["8", "9"]
    assert (rows[0]["seeds"], rows[0]["loss_n"]) == ("0 1", "2")
    assert float(rows[0]["loss_mean"]) == pytest.approx(0.3)
    assert float(rows[0]["loss_ci95_low"]) == pytest.approx(0.3 - 1.2706204736)
    assert (rows[1]["loss_std"], rows[1]["loss_ci95_high"]) == ("", "")


def test_the_latex_is_a_booktabs_table_with_names_escaped(runs, tmp_path):
    file = tables.write(runs, tmp_path / "out")[1]
    text = file.read_text()
    assert r"\begin{tabular}{lrrrrr}" in text
    assert r"five & 2 & $0.3 \pm 1.3$ & 2 kB & 4 s & 6 J \\" in text
    assert r"rank\_9 & 1 & $0.1$ &" in text
    assert [text.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
    assert tables.escape("a_b & 5% #1 {x} ~^\\<$") == (
        r"a\_b \& 5\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\$"
    )


def test_the_command_line_writes_tables_where_it_is_told_to(runs, tmp_path, fedray, monkeypatch):
    monkeypatch.setattr(page, "render", lambda *_: "")
    code, said, _ = fedray("report", *runs, "--tables", tmp_path / "out")
    assert code == 0
    assert said.splitlines()[1:] == [str(tmp_path / "out" / name) for name in ("table.csv", "table.tex")]
    (tmp_path / "file").touch()
    code, _, err = fedray("report", *runs, "--tables", tmp_path / "file")
    got = "a folder that cannot be written to (File exists)"
    assert (code, err) == (2, f"{tmp_path / 'file'}: got {got}, expected another place\n")
