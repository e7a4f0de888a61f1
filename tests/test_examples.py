"""The worked examples, as a user would run them: copied to somewhere else, by the command line."""

import ast
import csv
import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.stats import trim_mean

from fedray import __all__ as public_names
from tests.helpers import rows

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(file.parent.name for file in EXAMPLES.glob("*/scenario.yaml"))
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
MOST_LINES = 60
ON_RAY = ["--set", "runtime={executor: ray, actors: 2}"]


@pytest.fixture
def copied(tmp_path):
    """Copies an example to another folder, once; gives the copy's scenario."""

    def copied(name):
        folder = tmp_path / name
        if not folder.exists():
            shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
        return folder / "scenario.yaml"

    return copied


@pytest.fixture
def follow(copied, fedray, tmp_path):
    """Copies an example, checks it, plans it and runs it with these options; gives its run folder."""

    def follow(name, *options, out="run"):
        scenario = copied(name)
        if name == "segmentation":
            draw_images()
        code, checked, err = fedray("check", scenario)
        assert (code, checked, err) == (0, f"{scenario}: {name.replace('_', '-')} OK\n", "")
        code, planned, err = fedray("plan", scenario, "--json", *options)
        assert code == 0, err
        code, printed, err = fedray("run", scenario, "--out", tmp_path / out, "--quiet", "--json", *options)
        assert code == 0, err
        result, total = json.loads(printed), json.loads(planned)["total"]
        assert result["status"] == "done"
        assert {key: result["final"][key] for key in total if key in result["final"]} == {
            key: value for key, value in total.items() if key != "transfers"
        }
        return tmp_path / out

    return follow


def draw_images():
    """What the README's block does, in the current folder."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    exec(block, {})


def result(run):
    return json.loads((run / "result.json").read_text())


def timeline(run, round_number):
    return [row for row in rows(run / "timeline.jsonl") if row["round"] == round_number]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_a_scenario_and_one_short_file_of_public_names(name):
    (file,) = (EXAMPLES / name).glob("*.py")
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("fedray.") for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert not node.module.startswith("fedray")
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "fedray":
            assert node.attr in public_names


def test_the_examples_are_as_clean_as_the_package():
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check"], ["format", "--check"]):
        subprocess.run([*ruff, *command, str(EXAMPLES)], check=True, capture_output=True)


def test_the_readme_names_every_example_and_how_to_run_it():
    table = re.findall(r"^\| `(\w+)/` \| .+ \| `fedray run (\w+)/scenario\.yaml` \|$", README, re.M)
    assert sorted(table) == [(name, name) for name in NAMES]


def test_the_trimmed_mean_of_the_updates_of_a_run_is_scipy_s(copied, follow, fedray, monkeypatch):
    assert fedray("check", copied("trimmed_mean"))[0] == 0  # imports it
    kind = sys.modules["trimmed_mean"].TrimmedMean
    combine, calls = kind.combine, []

    def combine_and_keep(self, updates):
        calls.append((updates.values.numpy(), combine(self, updates)))
        return calls[-1][1]

    monkeypatch.setattr(kind, "combine", combine_and_keep)
    follow("trimmed_mean", "--set", "training.rounds=1")
    assert calls
    for updates, combined in calls:
        assert len(updates) == 5
        expected = trim_mean(updates.astype(np.float64), 0.2, axis=0)
        np.testing.assert_allclose(combined.numpy(), expected, rtol=1e-12, atol=0)


def test_a_trimmed_mean_that_trims_nothing_is_the_mean(follow):
    options = ["--set", "training.rounds=1", "--set"]
    runs = {
        "nothing": [*options, "aggregation.trim=0.0"],
        "mean": [*options, "aggregation={kind: fedavg, weighting: uniform}"],
        "trimmed": options[:2],
    }
    weights = {
        name: load_file(follow("trimmed_mean", *changes, out=name) / "model" / "model.safetensors")
        for name, changes in runs.items()
    }
    for key, mean in weights["mean"].items():
        np.testing.assert_allclose(weights["nothing"][key], mean, atol=1e-6)
    assert any(np.abs(weights["trimmed"][key] - mean).max() > 1e-4 for key, mean in weights["mean"].items())


def test_an_option_that_an_example_s_section_refuses_is_an_error_with_its_line(copied, fedray):
    file = copied("trimmed_mean")
    file.write_text(file.read_text().replace("trim: 0.2", "trim: 0.5"))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "trim: 0.5" in text)
    code, _, err = fedray("check", file)
    assert code == 2
    assert err.startswith(f"{file}:{line}: aggregation.trim: got 0.5, expected ")


def test_the_model_goes_round_the_ring_and_begins_one_client_further_each_round(follow):
    run = follow("ring")
    for round_number, clients in ((1, [0, 1, 2, 3]), (2, [1, 2, 3, 0]), (3, [2, 3, 0, 1])):
        nodes = ["server", *(f"client-{client}" for client in clients), "server"]
        steps = sorted(timeline(run, round_number), key=lambda row: row["t0_s"])
        sends = [step for step in steps if step["event"] == "send"]
        assert [(send["node"], send["peer"]) for send in sends] == list(pairwise(nodes))
        assert [step["node"] for step in steps if step["event"] == "train"] == nodes[1:-1]
        assert steps[-1]["event"] == "aggregate"
        for before, step in pairwise(steps):  # one after another, without a pause
            assert step["after"] == [before["id"]]
            assert step["t0_s"] == pytest.approx(before["t1_s"], abs=1e-12)
    rates = {"downlink": 100e6, "sidelink": 195.8e6, "uplink": 20e6}
    for send in (row for row in rows(run / "timeline.jsonl") if row["event"] == "send"):
        seconds = 8 * send["bytes"] / rates[send["direction"]]
        assert send["t1_s"] - send["t0_s"] == pytest.approx(seconds, rel=1e-9)
    losses = [row["loss"] for row in rows(run / "metrics.jsonl")]
    assert losses[-1] < losses[0]


def test_an_upload_over_the_table_of_gains_takes_as_long_as_shannon_says(follow):
    run = follow("gain_table", "--set", "training.rounds=4")
    with (EXAMPLES / "gain_table" / "gains.csv").open(newline="") as file:
        table = [[float(gain_db) for gain_db in row] for row in csv.reader(file)]
    assert len({gain_db for row in table for gain_db in row}) == 12
    noise_w = 10 ** (-174 / 10) * 1e-3 * 1e6  # of -174 dBm/Hz over 1 MHz
    for round_number in range(1, 5):
        sends = [row for row in timeline(run, round_number) if row["direction"] == "uplink"]
        assert [send["client"] for send in sends] == [0, 1, 2, 3]
        for send in sends:
            gain = 10 ** (table[send["client"]][(round_number - 1) % 3] / 10)
            seconds = 8 * send["bytes"] / (1e6 * np.log2(1 + 0.2 * gain / noise_w))
            assert send["t1_s"] - send["t0_s"] == pytest.approx(seconds, rel=1e-9)
            assert send["energy_j"] == pytest.approx(0.2 * seconds, rel=1e-9)


def test_a_table_that_is_missing_or_too_short_is_an_error_with_its_line(copied, fedray):
    file = copied("gain_table")
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "gains.csv" in text)
    code, _, err = fedray("plan", file, "--set", "population.clients=5")
    assert code == 2
    assert err == (f"{file}:{line}: network.uplink.gains: got 4 rows, expected one for each of 5 clients\n")
    file.with_name("gains.csv").unlink()
    code, _, err = fedray("check", file)
    assert code == 2
    assert err.startswith(f"{file}:{line}: network.uplink.gains: got 'gains.csv', expected a file")


def test_a_run_goes_on_with_the_table_that_it_had_and_with_no_other(follow, fedray, tmp_path, monkeypatch):
    run = follow("gain_table", "--set", "training.rounds=2")
    monkeypatch.chdir(EXAMPLES.anchor)
    assert fedray("run", "--resume", run, "--rounds", "3", "--quiet")[0] == 0
    table = tmp_path / "gain_table" / "gains.csv"
    table.write_text(table.read_text().replace("-95.0", "-96.0"))
    code, _, err = fedray("run", "--resume", run, "--rounds", "4", "--quiet")
    assert code == 2
    assert "network.uplink.gains (its files): got " in err


def test_the_callback_writes_a_row_a_round_also_of_a_run_that_goes_on(follow, fedray):
    run = follow("csv_callback")
    assert_rows(run, rounds=3)
    assert fedray("run", "--resume", run, "--rounds", "4", "--quiet")[0] == 0
    assert_rows(run, rounds=4)


def assert_rows(run, rounds):
    with (run / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    columns = ["round", "loss", "eval_accuracy", "sim_time_s"]
    metrics = rows(run / "metrics.jsonl")
    assert len(metrics) == rounds
    assert table == [{key: str(row[key]) for key in columns} for row in metrics]


def test_clients_learn_the_labels_of_a_torch_dataset(follow):
    run = follow("torch_dataset")
    census = json.loads((run / "partition.json").read_text())
    assert census["labels"] == ["disc", "square", "cross"]
    assert np.sum(census["counts"], axis=0).tolist() == [200, 200, 200]
    done = result(run)
    assert done["baseline"]["eval_samples"] == 150
    assert done["final"]["eval_accuracy"] > done["baseline"]["eval_accuracy"] + 0.3


def test_the_u_net_s_masks_come_to_cover_the_objects(follow):
    run = follow("segmentation")
    done = result(run)
    assert done["baseline"]["eval_iou"] < 0.5
    assert done["final"]["eval_iou"] > 0.6
    assert done["final"]["eval_loss"] < done["baseline"]["eval_loss"]
    assert done["final"]["eval_samples"] == 30


def test_another_mask_is_another_data_set(follow, fedray, tmp_path):
    run = follow("segmentation", "--set", "training.rounds=1")
    mask = tmp_path / "segmentation" / "photos" / "train" / "masks" / "7.png"
    shutil.copy(mask.with_name("8.png"), mask)
    code, _, err = fedray("run", "--resume", run, "--rounds", "2", "--quiet")
    assert code == 2
    assert "contents of samples: got " in err


def test_an_example_has_the_same_bits_on_two_actors_of_ray(follow, cluster, weights_alone):
    name = "segmentation"
    options = ["--set", "training.rounds=2"]
    runs = [follow(name, *options), follow(name, *options, *ON_RAY, out="on-ray")]
    assert result(runs[0])["weights_sha256"] == result(runs[1])["weights_sha256"]
