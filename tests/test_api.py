"""fedray from Python: the same scenarios, bits and errors as the command line."""

import io
import json
import re
import subprocess
import sys
from html import escape
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML

import fedray
from fedray import shipped
from tests.helpers import ARTISTS, garments, rows, tiny
from tests.report.made import made_up

STEER = "<script>alert(1)</script>\x1b[2J"
RUNS = {"first": [0.5, 0.25], "<i>second": [0.5, 0.375]}  # folders and losses


RULE = """
from fedray import Gathered, Rule

class Largest(Rule):
    accumulator = Gathered

    def combine(self, result):
        return result.values.max(0).values.double()
"""
SCRIPT = """
import fedray

if __name__ == "__main__":
    run = fedray.run({mapping!r}, out="out")
    print(run.result["rounds"])
    print(run.metrics["round"].to_pylist())
"""


def tree(file: Path) -> dict:
    return YAML(typ="safe", pure=True).load(file.read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run from Python of two rounds, its scenario's file, and what its callback was told."""
    folder = tmp_path_factory.mktemp("done")
    file = garments(folder)

    class Rounds(fedray.Callback):
        losses = []

        def on_round(self, report):
            self.losses.append(report.metrics["loss"])

    callback = Rounds()
    run = fedray.run(str(file), out=folder / "run", callbacks=[callback], progress=False)
    return run, file, callback.losses


def test_a_run_from_python_has_the_bits_of_the_command_line(done, tmp_path, request):
    run, file, losses = done
    command = [sys.executable, "-m", "fedray", "run", file, "--out", tmp_path / "run", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    expected = json.loads((tmp_path / "run" / "result.json").read_text())
    assert run.result["weights_sha256"] == expected["weights_sha256"]
    for name in ("timeline.jsonl", "clients.jsonl"):
        assert (run.path / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    assert losses == [row["loss"] for row in rows(tmp_path / "run" / "metrics.jsonl")]
    assert (run.path / "report.html").is_file()


def test_a_runs_tables_are_arrow_and_hold_what_its_files_hold(done):
    run, _, _ = done
    for table, name in ((run.metrics, "metrics"), (run.clients, "clients"), (run.timeline, "timeline")):
        assert table.to_pylist() == [
            {key: row.get(key) for key in table.column_names} for row in rows(run.path / f"{name}.jsonl")
        ]
    assert run.metrics["round"].to_pylist() == [1, 2]
    assert run.clients.num_rows == 10
    assert set(run.timeline["event"].to_pylist()) == {"send", "train", "aggregate"}


def test_a_run_of_before_there_were_clients_rows_has_none(tmp_path):
    run = fedray.open(made_up(tmp_path / "run", [0.5, 0.25]))
    assert run.clients.num_rows == 0
    assert "outcome" in run.clients.column_names
    assert run.metrics["loss"].to_pylist() == [0.5, 0.25]


def test_load_takes_a_shipped_name_a_file_a_mapping_and_a_loaded_scenario(tmp_path, monkeypatch):
    changes = {
        "training.rounds": 5,
        "training.optimizer.learning_rate": 1e-05,
        "evaluation.prompts": ["ü: x"],
    }
    file = shipped.scenarios()["quickstart"]
    for source in ("quickstart", file, tree(file), fedray.load("quickstart")):
        loaded = fedray.load(source, changes)
        assert loaded.scenario.training.rounds == 5
        assert loaded.scenario.training.optimizer.learning_rate == 1e-05
        assert loaded.scenario.evaluation.prompts == ["ü: x"]
        assert loaded.scenario.name == "quickstart"
    assert fedray.load(loaded, {"training.rounds": 6}).scenario.evaluation.prompts == ["ü: x"]


def test_the_paths_of_a_mapping_start_at_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "ink").symlink_to(shipped.HERE / "ink")
    data = ARTISTS["data"] | {"path": "ink"}
    mapping = tree(garments(tmp_path / "elsewhere", ARTISTS | {"data": data}))
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(fedray.ScenarioError, match=r"data.path: got 'ink'"):
        fedray.check(mapping)
    monkeypatch.chdir(tmp_path)
    fedray.check(mapping)


def test_every_mistake_is_in_one_error_with_its_line(tmp_path):
    mapping = tree(tiny(tmp_path))
    mapping["training"]["rounds"] = 0
    mapping["modle"] = {}
    with pytest.raises(fedray.ScenarioError) as caught:
        fedray.load(mapping)
    assert len(caught.value.problems) == 2
    assert any("training.rounds: got 0, expected at least 1" in line for line in caught.value.problems)
    with pytest.raises(fedray.ScenarioError, match=r"training.rounds=0: training.rounds: got 0"):
        fedray.load("quickstart", {"training.rounds": 0})
    with pytest.raises(fedray.ScenarioError, match=r"expected quickstart \(did you mean it\?\)"):
        fedray.check("quikstart")
    with pytest.raises(TypeError, match="got object, expected what YAML has"):
        fedray.load("quickstart", {"seed": object()})


def test_errors_of_a_mapping_name_no_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fedray.ScenarioError) as caught:
        fedray.check({"name": "x"})
    assert caught.value.problems[0] == "topology: got nothing, expected this key"
    mapping = tree(garments(tmp_path))
    assert repr(fedray.load(mapping)) == "<scenario garments from a mapping>"
    mapping["data"] = ARTISTS["data"] | {"path": "nowhere"}
    with pytest.raises(fedray.ScenarioError, match=r"^data.path: got 'nowhere'"):
        fedray.check(fedray.load(mapping, {"model.resolution": 32}))
    mapping["sweep"] = {"variants": {"one": {"training.nonsense": 1}}}
    with pytest.raises(fedray.ScenarioError, match=r"^training.nonsense: got an unknown key"):
        fedray.load(mapping)


def test_errors_say_what_python_has_in_place_of_options(done, tmp_path):
    run, file, _ = done
    with pytest.raises(fedray.ScenarioError, match=r"^training.rounds=0: training.rounds: got 0"):
        fedray.load("quickstart", {"training.rounds": 0})
    with pytest.raises(fedray.ScenarioError) as caught:
        fedray.run(file, run.path, progress=False)
    assert str(caught.value) == (
        f"out={run.path}: got a folder that already holds a run, expected a new one"
        f" (or fedray.open('{run.path}').resume())"
    )
    (tmp_path / "taken").touch()
    with pytest.raises(fedray.ScenarioError, match=r"^out=.*taken: got a file, expected a new folder"):
        fedray.run(file, tmp_path / "taken", progress=False)
    with pytest.raises(fedray.ScenarioError, match=r"^rounds=1: got no more than the 2 rounds"):
        run.resume(rounds=1)
    with pytest.raises(fedray.ScenarioError, match=r"^nowhere: got a folder that holds no run"):
        fedray.Run("nowhere").resume()


def test_a_notebook_shows_an_error_of_the_user_without_a_traceback():
    error = fedray.ScenarioError(["a: got \x1b[2J", "b: got 2"])
    assert error._render_traceback_() == ["ScenarioError:", "a: got \\x1b[2J", "b: got 2"]


def test_a_loaded_scenario_that_is_changed_keeps_where_its_code_may_lie(done, tmp_path):
    run, _, _ = done
    changed = fedray.load(run.scenario, {"training.rounds": 7})
    assert changed.code == run.scenario.code
    assert run.path not in changed.code_folders


def test_a_plan_is_the_command_lines(fedray, tmp_path):
    import fedray as api

    file = garments(tmp_path)
    assert api.plan(file) == json.loads(fedray("plan", file, "--json")[1])
    assert api.plan(api.load(file)) == api.plan(file)


def test_a_refused_scenario_leaves_no_folder_and_a_failed_run_says_where_it_broke(tmp_path):
    changes = {"training.local_steps": 2, "training.optimizer.learning_rate": 1e30}
    with pytest.raises(fedray.RunFailed, match="no client of round 1 trained"):
        fedray.run(garments(tmp_path, changes), tmp_path / "failed", progress=False)
    assert json.loads((tmp_path / "failed" / "error.json").read_text())["round"] == 1
    bad = garments(tmp_path, ARTISTS | {"population.per_round": 5, "network.deadline_s": 1e-9}, "bad.yaml")
    with pytest.raises(fedray.ScenarioError):
        fedray.run(bad, tmp_path / "refused", progress=False)
    assert not (tmp_path / "refused").exists()


def test_a_failed_run_says_what_to_try_and_where_it_lies(tmp_path):
    class Breaks(fedray.Callback):
        def on_round(self, report):
            raise KeyError("mine")

    with pytest.raises(fedray.RunFailed, match="KeyError: 'mine'") as caught:
        fedray.run(garments(tmp_path), tmp_path / "run", callbacks=[Breaks()], progress=False)
    assert caught.value.__notes__ == [
        "what to try: the traceback in error.json",
        f"see error.json and run.log in {tmp_path / 'run'}",
        f"to go on: fedray.open('{tmp_path / 'run'}').resume()",
    ]


def test_callbacks_that_are_none_are_refused_before_anything_is_written(tmp_path):
    class Mine(fedray.Callback):
        pass

    file = garments(tmp_path)
    for callbacks, got in ((Mine(), "a Mine"), ([Mine], "the class Mine"), ([len], "a builtin_function")):
        with pytest.raises(TypeError, match=f"callbacks: got {got}"):
            fedray.run(file, tmp_path / "run", callbacks=callbacks)
    assert not (tmp_path / "run").exists()


class Printer(fedray.Callback):
    """Prints, and has a library print."""

    def on_round(self, report):
        print(f"printed in round {report.round_number}")

    def on_end(self, end):
        print("an error", file=sys.stderr)


def test_what_a_callback_prints_is_seen_and_not_logged(tmp_path, capfd):
    fedray.run(garments(tmp_path), tmp_path / "run", callbacks=[Printer()], progress=False)
    out, err = capfd.readouterr()
    assert out == "printed in round 1\nprinted in round 2\n"
    assert err == "an error\n"
    assert "printed" not in (tmp_path / "run" / "run.log").read_text()


def test_under_a_bar_a_callback_is_seen_and_what_libraries_print_is_logged(tmp_path, monkeypatch):
    from rich.console import Console

    from fedray import engine, terminal

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200)
    monkeypatch.setattr(terminal, "progress", lambda quiet: terminal.Live(console))
    train_round = engine.Run.train_round

    def chatty(run, round_number):
        print("a library prints")
        train_round(run, round_number)

    monkeypatch.setattr(engine.Run, "train_round", chatty)
    before = sys.stdout, sys.stderr
    fedray.run(garments(tmp_path), tmp_path / "run", callbacks=[Printer()])
    assert (sys.stdout, sys.stderr) == before
    assert "printed in round 2" in screen.getvalue()
    assert "a library prints" not in screen.getvalue()
    assert "a library prints" in (tmp_path / "run" / "run.log").read_text()


def test_a_run_goes_on_from_python_for_more_rounds_to_the_bits_of_an_unbroken_one(tmp_path):
    file = garments(tmp_path)
    run = fedray.run(file, tmp_path / "run", progress=False)
    before = run.result
    assert run.resume(progress=False).result == before
    assert run.resume(rounds=3, progress=False) is run
    whole = fedray.run(fedray.load(file, {"training.rounds": 3}), tmp_path / "whole", progress=False)
    assert run.result["weights_sha256"] == whole.result["weights_sha256"]
    assert run.clients.equals(whole.clients)


def test_progress_is_shown_a_line_a_round_in_a_script_and_not_where_it_is_not_wanted(tmp_path, capfd):
    file = garments(tmp_path)
    fedray.run(file, tmp_path / "shown")
    assert [line.split("  ")[0] for line in capfd.readouterr().out.splitlines()[1:]] == [
        "round 1/2",
        "round 2/2",
    ]
    fedray.run(file, tmp_path / "quiet", progress=False)
    assert capfd.readouterr().out == ""


def test_generate_gives_pil_images_that_are_those_of_the_command_line(unbroken, fedray, tmp_path):
    import fedray as api

    run = api.open(unbroken[1])
    images = run.generate("a photo of a bag in ink style", num=2, seed=3, steps=2)
    assert [type(image).__name__ for image in images] == ["PngImageFile"] * 2
    arguments = ["--prompt", "a photo of a bag in ink style", "--num", 2, "--seed", 3, "--steps", 2]
    fedray("generate", unbroken[1], *arguments, "--out", tmp_path / "images")
    files = sorted((tmp_path / "images").iterdir())
    assert [Image.open(file).tobytes() for file in files] == [image.tobytes() for image in images]
    assert not (unbroken[1] / "generated").exists()


def test_generate_gives_the_texts_of_a_model_that_writes(tmp_path):
    changes = {
        "data": {
            "kind": "text",
            "path": "shipped:shakespeare",
            "length": 16,
            "tokenizer": {"kind": "bytes"},
            "partition": {"kind": "iid"},
        },
        "model": {
            "kind": "transformer",
            "objective": "causal_language",
            "width": 16,
            "layers": 1,
            "heads": 2,
        },
        "training.rounds": 1,
    }
    run = fedray.run(garments(tmp_path, changes), tmp_path / "run", progress=False)
    texts = run.generate(["My lord", "O "], steps=4)
    assert [type(text) for text in texts] == [str, str]
    assert [text.startswith(prompt) for text, prompt in zip(texts, ["My lord", "O "], strict=True)] == [
        True,
        True,
    ]


def test_figures_are_pictures_that_stand_alone(done, tmp_path):
    run, _, _ = done
    figures = run.figures
    assert {"loss", "eval_accuracy", "timeline", "partition"} <= set(figures)
    from xml.etree import ElementTree

    for svg in figures.values():
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        for colour in set(re.findall(r"var\(--(\w+)\)", svg)):
            assert f"--{colour}:#" in svg, colour


def test_a_run_shows_itself_with_name_status_metrics_and_curve(done):
    run, _, _ = done
    shown = run._repr_html_()
    assert "<b>garments</b>" in shown
    assert ": done" in shown
    assert "<svg" in shown
    for row in rows(run.path / "metrics.jsonl"):
        assert f"<td>{row['loss']:.4g}</td>" in shown
    assert repr(run) == f"<fedray.Run {run.path}>"


def test_what_a_stranger_wrote_into_a_run_is_shown_escaped(tmp_path):
    folder = made_up(tmp_path / "run", [0.5]).rename(tmp_path / "<i>run")
    run = fedray.open(folder)
    lines = [json.dumps(row | {f"eval_{STEER}": 1.0}) + "\n" for row in rows(folder / "metrics.jsonl")]
    (folder / "metrics.jsonl").write_text("".join(lines))
    shown = run._repr_html_()
    assert "<script" not in shown
    assert "\x1b" not in shown
    assert escape("<script>alert(1)</script>") in shown
    assert "<i>run" not in shown
    (folder / "metrics.jsonl").write_text(json.dumps({"round": STEER}) + "\n")
    broken = run._repr_html_()
    assert broken.startswith("<pre>")
    assert "<script" not in broken


def test_open_refuses_a_folder_that_holds_no_run(tmp_path):
    with pytest.raises(fedray.ScenarioError, match="got a folder that holds no run"):
        fedray.open(tmp_path)


def test_a_sweep_is_run_from_python_and_gives_its_variants(tmp_path):
    variants = {"one": {"seed": 1}, "two": {"seed": 2}}
    file = garments(tmp_path, {"training.rounds": 1, "sweep": {"variants": variants}})
    with pytest.raises(fedray.ScenarioError, match="callbacks: got some for a sweep"):
        fedray.run(file, tmp_path / "refused", callbacks=[fedray.Callback()])
    run = fedray.run(file, tmp_path / "all", progress=False)
    assert run.result["status"] == "done"
    assert {name: one.metrics.num_rows for name, one in run.variants.items()} == {"one": 1, "two": 1}
    assert "one: done" in run._repr_html_()
    assert run.metrics["variant"].to_pylist() == ["one", "two"]
    losses = run.metrics["loss"].to_pylist()
    (over_seeds,) = run.summary.values()
    assert (over_seeds["seeds"], over_seeds["done"]) == ([1, 2], 2)
    assert over_seeds["metrics"]["loss"]["mean"] == pytest.approx(sum(losses) / 2)
    assert over_seeds["metrics"]["loss"]["std"] == pytest.approx(abs(losses[0] - losses[1]) / 2**0.5)
    assert (run.path / "table.csv").read_text().startswith("variant,seeds,loss_n,")
    assert r"\bottomrule" in (run.path / "table.tex").read_text()
    assert run.clients["variant"].to_pylist() == ["one"] * 5 + ["two"] * 5
    assert run.metrics["loss"].to_pylist() == [
        loss for one in run.variants.values() for loss in one.metrics["loss"].to_pylist()
    ]
    assert run.figures == fedray.compare([run])


def test_runs_are_compared_in_figures_and_in_a_report(tmp_path):
    made = {name: made_up(tmp_path / f"run-{i}", losses) for i, (name, losses) in enumerate(RUNS.items())}
    runs = [fedray.open(folder.rename(tmp_path / name)) for name, folder in made.items()]
    figures = fedray.compare(runs)
    assert {"loss", "loss by bytes", "loss by seconds", "loss by joules"} <= set(figures)
    shown = figures["loss by joules"]._repr_html_()
    assert "<b>training loss against energy</b>" in shown
    for name in RUNS:
        assert escape(name) in shown
    assert "<i>" not in shown
    page = runs[0].report(out=tmp_path / "both.html", beside=runs[1:]).read_text()
    for name in RUNS:
        assert escape(name) in page


def test_a_timeline_says_what_its_colours_mean(done):
    run, _, _ = done
    timeline = run.figures["timeline"]
    assert list(timeline.legend) == ["downlink", "training", "uplink", "server"]
    shown = timeline._repr_html_()
    assert "<b>timeline of a round</b>" in shown
    for kind, colour in timeline.legend.items():
        assert f'<span style="color:{colour}">■</span> {kind}' in shown


def test_a_script_with_a_mapping_finds_kinds_of_ones_own_in_its_folder(tmp_path):
    mapping = tree(garments(tmp_path, {"aggregation": {"kind": "my_rules:Largest"}, "training.rounds": 1}))
    (tmp_path / "my_rules.py").write_text(RULE)
    (tmp_path / "script.py").write_text(SCRIPT.format(mapping=mapping))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["1", "[1]"]
    assert fedray.open(tmp_path / "out").path.is_dir()


def test_importing_fedray_imports_neither_torch_nor_ray_nor_pydantic(tmp_path):
    code = (
        "import sys, fedray\n"
        "assert not {'torch', 'ray', 'pydantic', 'numpy'} & set(sys.modules), sorted(sys.modules)\n"
        "assert {'load', 'run', 'Callback'} <= set(dir(fedray))\n"
        "fedray.check('quickstart')\n"
        "assert not {'torch', 'ray', 'diffusers'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_every_public_name_is_there_and_no_other():
    assert {name for name in fedray.__all__ if getattr(fedray, name) is not None} == set(fedray.__all__)
    with pytest.raises(AttributeError, match="module 'fedray' has no attribute 'nonsense'"):
        fedray.nonsense  # noqa: B018


def test_ray_tune_that_is_not_whole_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr("fedray.executors.ray.tune.find_spec", lambda name: None)
    with pytest.raises(fedray.ScenarioError, match=r"expected pip install 'ray\[tune\]'"):
        fedray.trainable("quickstart")


def test_ray_tune_makes_the_variants_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("fedray.executors.ray.tune.require_tune", lambda: None)
    file = garments(tmp_path, {"sweep": {"variants": {"one": {"seed": 1}}}})
    with pytest.raises(fedray.ScenarioError, match=r"sweep: got one for fedray\.trainable, expected none"):
        fedray.trainable(file)


def test_ray_tune_runs_trials_with_other_values_and_sees_every_round(cluster, tmp_path):
    from ray import tune

    tuner = tune.Tuner(
        fedray.trainable(garments(tmp_path)),
        param_space={"training.optimizer.learning_rate": tune.grid_search([0.05, 0.01])},
        # one trial after the other in one process, which imports torch once
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "trials"), name="two"),
    )
    results = tuner.fit()
    assert not results.errors
    expected = {
        rate: fedray.run(
            fedray.load(garments(tmp_path), {"training.optimizer.learning_rate": rate}),
            tmp_path / f"alone-{rate}",
            progress=False,
        ).result["final"]["loss"]
        for rate in (0.05, 0.01)
    }
    got = {r.config["training.optimizer.learning_rate"]: r.metrics["loss"] for r in results}
    assert got == expected
    assert {r.metrics["training_iteration"] for r in results} == {2}
