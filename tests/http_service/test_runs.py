import shutil

import pytest
from ruamel.yaml import YAML

from fedray.cli import service
from fedray.http_service.runs import read_runs
from fedray.scenario import ScenarioError


def changed(run, folder, **values):
    """A copy of a run whose scenario says something else; None takes a key away."""
    shutil.copytree(run, folder)
    yaml = YAML()
    file = folder / "scenario.resolved.yaml"
    tree = yaml.load(file.read_text())
    for path, value in values.items():
        section, key = path.split("__")
        tree[section][key] = value
    with file.open("w") as f:
        yaml.dump(tree, f)
    return folder


def refusal(*folders):
    with pytest.raises(ScenarioError) as refused:
        read_runs(folders)
    (line,) = refused.value.problems
    return line


def test_runs_are_called_by_their_folders_and_the_first_is_the_default(unbroken, other, tmp_path):
    runs = read_runs([unbroken[1], other])
    assert [(run.name, run.takes_prompts) for run in runs] == [("run", True), ("other", True)]
    assert (runs[0].steps, runs[0].guidance) == (2, 3.0)
    twin = shutil.copytree(other, tmp_path / "other")
    assert [run.name for run in read_runs([other, twin])] == [str(other), str(twin)]


def test_a_run_is_not_served_twice(unbroken):
    assert refusal(unbroken[1], unbroken[1]) == "RUN: got one run twice, expected each once"


def test_runs_over_different_bases_are_refused_by_both_names(unbroken, other, tmp_path):
    run = changed(other, tmp_path / "second", model__base="tiny-sd2")
    shutil.rmtree(run / "checkpoints")
    line = refusal(unbroken[1], run)
    assert line.startswith(f"{run}: got model.base tiny-sd2 (")
    assert f"beside {unbroken[1]} with model.base tiny-sd (" in line


def test_runs_of_different_resolutions_do_not_share_a_base(unbroken, other, tmp_path):
    run = changed(other, tmp_path / "large", model__resolution=64)
    expected = f"{run}: got model.resolution 64, beside {unbroken[1]} with model.resolution None"
    assert refusal(unbroken[1], run).startswith(expected)


def test_a_base_that_is_not_the_one_of_the_run_any_more_is_refused(unbroken, other, tmp_path):
    run = changed(other, tmp_path / "moved", model__base="tiny-sd2")  # whose checkpoint says tiny-sd
    line = refusal(unbroken[1], run)
    assert "model.base: got 'tiny-sd2', whose files are others than when the run was made" in line


def test_a_run_without_a_model_is_refused_with_what_to_do(unbroken, tmp_path):
    run = shutil.copytree(unbroken[1], tmp_path / "empty")
    shutil.rmtree(run / "checkpoints")
    (run / "result.json").unlink()
    expected = f"{run}: got a run without a model, expected one that is done: fedray run --resume {run}"
    assert refusal(run) == expected
    assert refusal(tmp_path).startswith(f"{tmp_path}: got a folder that holds no run")


def test_a_run_on_the_way_is_served_alone_but_not_beside_others(unbroken, other, tmp_path):
    run = shutil.copytree(other, tmp_path / "going")
    (run / "result.json").unlink()
    assert [one.name for one in read_runs([run])] == ["going"]
    assert refusal(unbroken[1], run).startswith(f"{run}: got a run that is not done, beside other runs")


def test_what_is_no_adapter_over_a_base_is_served_alone(unbroken, other, tmp_path):
    whole = changed(other, tmp_path / "whole")
    (whole / "model" / "pytorch_lora_weights.safetensors").unlink()
    assert f"served alone: fedray serve {whole}" in refusal(unbroken[1], whole)


def test_a_model_that_makes_no_images_is_refused_by_its_kind(tmp_path):
    from tests import helpers

    helpers.run(helpers.garments(tmp_path), tmp_path / "run")
    expected = f"{tmp_path / 'run'}: got a classifier, expected the run of a model that generates images"
    assert refusal(tmp_path / "run") == expected


def test_the_command_refuses_in_a_line_before_ray_starts(fedray, unbroken, monkeypatch):
    code, _, err = fedray("serve", unbroken[1], "--host", "0.0.0.0")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("--host: got 0.0.0.0 without a token, expected 127.0.0.1, or FEDRAY_SERVE_TOKEN")
    assert fedray("serve", unbroken[1], "--route", "ink")[0] == 2
    assert fedray("serve")[0] == 2
    monkeypatch.setattr(service, "NEEDS", ("starlette", "a_package_that_is_not_there"))
    code, _, err = fedray("serve", unbroken[1])
    assert (code, err.count("\n")) == (2, 1)
    assert "without a_package_that_is_not_there, expected pip install 'fedray[serve]'" in err
