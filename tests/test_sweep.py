import json
import os
import shutil
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from tests.helpers import ARTISTS, garments, rows, run, tiny


@pytest.fixture(scope="module")
def swept(cluster, tmp_path_factory):
    """A sweep with a variant that must fail, on the tests' Ray: exit code, what it said, its folder."""
    folder = tmp_path_factory.mktemp("swept")
    variants = {"good": {}, "broken": {"training.optimizer.learning_rate": 1e30}}
    on_ray = {"sweep": {"variants": variants}, "runtime": {"executor": "ray", "actors": 1}}
    file = garments(folder, ARTISTS | on_ray)
    command = [sys.executable, "-m", "fedray", "run", file, "--out", folder / "all"]
    environment = os.environ | {"RAY_ADDRESS": cluster.get_runtime_context().gcs_address}
    return subprocess.run(command, env=environment, capture_output=True, text=True), folder / "all"


def test_a_variant_is_a_run_of_its_own_with_the_bits_it_has_alone(swept, tmp_path):
    _, out = swept
    alone = run(garments(tmp_path, ARTISTS), tmp_path / "run")
    assert json.loads((out / "good" / "result.json").read_text())["weights_sha256"] == alone["weights_sha256"]
    assert len(rows(out / "good" / "metrics.jsonl")) == 2
    assert (out / "good" / "report.html").exists()


def test_a_variant_that_fails_stops_no_other_and_the_exit_code_is_1(swept):
    done, out = swept
    assert done.returncode == 1
    assert "good: done" in done.stdout
    assert (
        "broken: failed: no client of round 1 trained; the first: client 0, while training: " in done.stdout
    )
    assert done.stderr.endswith(f"some variants failed; to go on: fedray run --resume {out}\n")
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "failed"
    assert {name: v["status"] for name, v in result["variants"].items()} == {
        "good": "done",
        "broken": "failed",
    }
    assert result["variants"]["broken"]["error"]["round"] == 1


def test_its_report_compares_the_variants_and_names_the_one_that_stopped(swept):
    page = (swept[1] / "report.html").read_text()
    assert "<h1>garments</h1>" in page
    assert "broken stopped" in page
    assert "training.optimizer.learning_rate" in page


def test_resume_goes_on_with_what_is_not_done(swept, tmp_path, fedray):
    out = shutil.copytree(swept[1], tmp_path / "all")
    before = (out / "good" / "result.json").stat().st_mtime_ns
    for file in (out / "broken" / "scenario.resolved.yaml", out / "scenario.resolved.yaml"):
        file.write_text(
            file.read_text()
            .replace("1.0e+30", "0.05")
            .replace("1e+30", "0.05")
            .replace("executor: ray", "executor: serial")
        )
    code, _, err = fedray("run", "--resume", out, "--quiet")
    assert code == 0, err
    assert (out / "good" / "result.json").stat().st_mtime_ns == before
    shas = [
        json.loads((out / name / "result.json").read_text())["weights_sha256"] for name in ("good", "broken")
    ]
    assert shas[0] == shas[1]  # the same training by now, in one process
    assert json.loads((out / "result.json").read_text())["status"] == "done"


def test_a_variants_mistake_has_the_line_it_stands_on(fedray, tmp_path):
    text = tiny(tmp_path).read_text()
    file = tmp_path / "sweep.yaml"
    file.write_text(
        text
        + "sweep:\n  variants:\n    a: {}\n    b:\n      training.rounds: 0\n      tuning: {kind: lora, rnk:"
        " 3}\n"
    )
    last = len(file.read_text().splitlines())
    code, _, err = fedray("check", file)
    assert code == 2
    assert err.splitlines() == [
        f"{file}:{last}: tuning.rank: got nothing, expected this key (in sweep.variants.b)",
        (
            f"{file}:{last}: tuning.rnk: got an unknown key, expected rank (did you mean it?) (in"
            " sweep.variants.b)"
        ),
        f"{file}:{last - 1}: training.rounds: got 0, expected at least 1 (in sweep.variants.b)",
    ]


def test_plan_of_a_sweep_is_a_plan_of_each_variant(fedray):
    code, said, _ = fedray("plan", "huang2023-tiny", "--json")
    assert code == 0
    variants = json.loads(said)["variants"]
    assert variants["lora"]["trainable_parameters"] < variants["full"]["trainable_parameters"] == 4_192_900


def test_a_variant_changes_only_what_it_names(tmp_path):
    from fedray.scenario import load

    file = tiny(
        tmp_path,
        {
            "sweep": {
                "variants": {
                    "a": {"training.rounds": 7},
                    "b": {"tuning": {"kind": "full"}, "data.path": "shipped:ink"},
                }
            }
        },
    )
    loaded = load(file)
    variants = loaded.variants
    plain = loaded.scenario.model_copy(update={"sweep": None})
    assert variants["a"].scenario.training.rounds == 7
    assert variants["a"].scenario == plain.model_copy(
        update={"name": "quickstart-a", "training": plain.training.model_copy(update={"rounds": 7})}
    )
    assert variants["b"].scenario.tuning.kind == "full"
    again = YAML(typ="safe", pure=True).load(loaded.resolved())["sweep"]["variants"]
    assert set(again["a"]) == {"training"}
    assert set(again["b"]) == {"tuning"}
