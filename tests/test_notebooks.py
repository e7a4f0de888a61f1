"""The notebooks in examples/notebooks/ run as a reader would run them, and show what they say."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import fedray

FOLDER = Path(__file__).parent.parent / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def read(file):
    return nbformat.read(file, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def executed(name, folder, monkeypatch):
    """A notebook of the repository, run in a folder of its own."""
    monkeypatch.setenv("PYTHONPATH", str(Path(fedray.__file__).parent.parent))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    work = folder / "work"
    work.mkdir()
    notebook = read(shutil.copy(FOLDER / name, work))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(work)}}).execute()
    assert all(output.get("name") != "stderr" for cell in code_cells(notebook) for output in cell.outputs)
    return notebook, work


def cell_of(notebook, start):
    """The one cell whose code is this, or begins like this."""
    cells = code_cells(notebook)
    same = [cell for cell in cells if cell.source == start]
    (cell,) = same or [cell for cell in cells if cell.source.startswith(start)]
    return cell


def shown(notebook, start):
    """The value of a cell's last expression as the notebook shows it, by MIME type."""
    outputs = cell_of(notebook, start).outputs
    (output,) = (output for output in outputs if output.output_type == "execute_result")
    return output.data


def printed(notebook, start):
    cell = cell_of(notebook, start)
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_committed_valid_and_without_outputs(file):
    notebook = read(file)
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
        assert cell.metadata == {}


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_says_why_before_each_step(file):
    """No more than two cells of code follow one another without a word."""
    kinds = "".join(cell.cell_type[0] for cell in read(file).cells)
    assert kinds.startswith("mm")
    assert "ccc" not in kinds


def test_fedavg_takes_thirty_lines_up_to_its_result_and_shows_it(tmp_path, monkeypatch):
    notebook, work = executed("fedavg.ipynb", tmp_path, monkeypatch)
    cells = [cell.source for cell in code_cells(notebook)]
    lines = "\n".join(cells[: cells.index("run") + 1]).split("\n")
    assert len([line for line in lines if line.strip()]) <= 35
    run = fedray.open(work / "runs" / "fedavg")
    assert run.metrics["round"].to_pylist() == [1, 2, 3, 4, 5, 6]
    last = run.metrics.to_pylist()[-1]
    assert f"'bytes_uplink': {last['bytes_uplink']}" in shown(notebook, "plan = ")["text/plain"]
    assert "round 6/6" in printed(notebook, "run = fedray.run")
    itself = shown(notebook, "run")["text/html"]
    assert "<b>fedavg</b>" in itself
    assert f"<td>{last['loss']:.4g}</td>" in itself
    assert f"{last['bytes_uplink']:,}" in shown(notebook, "from rich.table")["text/html"]
    for start in ('run.figures["eval_accuracy"]', 'run.figures["partition"]', "one_step = "):
        assert "<svg" in shown(notebook, start)["text/html"], start


def test_the_case_study_compares_plans_and_real_rounds(tmp_path, monkeypatch):
    notebook, work = executed("case_study.ipynb", tmp_path, monkeypatch)
    planned = shown(notebook, "from rich.table")["text/html"]
    for scheme in ("relay, LoRA", "parallel, LoRA", "relay, whole U-Net"):
        assert scheme in planned
    # 600 transfers of 9,437,184 bytes, of which 400 are handed on (shared/papers/README.md)
    assert "3,774.9 MB" in planned
    assert "1,719.0 MB" in shown(notebook, "{scheme:")["text/plain"]
    for scheme in ("relay", "parallel"):
        run = fedray.open(work / "runs" / scheme)
        assert run.metrics["round"].to_pylist() == [1, 2, 3]
        cost = fedray.plan(run.scenario)["total"]
        for key in ("bytes_uplink", "bytes_downlink", "bytes_sidelink", "sim_time_s", "energy_j"):
            assert run.result["final"][key] == pytest.approx(cost[key]), key
        assert "<svg" in shown(notebook, f'{scheme}_run.figures["timeline"]')["text/html"]
        assert (run.path / "model" / "pytorch_lora_weights.safetensors").is_file()
    for axis in ("bytes", "seconds"):
        figure = f'fedray.compare(list(runs.values()))["loss by {axis}"]'
        assert "parallel" in shown(notebook, figure)["text/html"]
    assert "image/png" in shown(notebook, "relay_run.generate")


def test_a_model_and_data_of_ones_own_train_are_measured_and_saved(tmp_path, monkeypatch):
    notebook, work = executed("own_model_and_data.ipynb", tmp_path, monkeypatch)
    assert printed(notebook, "try:") == "model.code=0: model.code: got 0, expected at least 1\n"
    run = fedray.open(work / "runs" / "own-model")
    assert run.metrics["round"].to_pylist()[-1] == 15
    quality = [value for value in run.metrics["eval_psnr"].to_pylist() if value is not None]
    assert len(quality) == 5
    assert quality[-1] > quality[0]
    printed_quality = printed(notebook, "class Quality").splitlines()
    assert printed_quality[-1] == f"round 15: {quality[-1]:.1f} dB"
    assert "PSNR" in shown(notebook, "class Quality")["text/html"]
    assert "image/png" in shown(notebook, "import numpy")
    assert "shapes" in (run.path / "env.json").read_text()
