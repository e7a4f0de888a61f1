import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fedray.report.page import write
from tests import helpers
from tests.helpers import garments

PROMPT = "a photo of a bag in ink style"


def pixels(file):
    return np.array(Image.open(file)).astype(int)


def test_a_picture_knows_its_prompt_seed_and_settings(fedray, unbroken, tmp_path):
    out = tmp_path / "bag.png"
    code, said, err = fedray("generate", unbroken[1], "--prompt", PROMPT, "--seed", 7, "--steps", 3, "--guidance", 2, "--out", out)
    assert (code, said.strip()) == (0, str(out)), err
    text = Image.open(out).text
    assert text["prompt"] == PROMPT
    assert text["parameters"].startswith(f"{PROMPT}\nSteps: 3, CFG scale: 2, Seed: 7, Size: ")
    assert json.loads(text["fedray"])["images"] == [{"model": "this run", "prompt": PROMPT, "seed": 7}]


def test_single_files_are_the_models_own_pixels_each_from_its_own_seed(fedray, unbroken, tmp_path):
    options = ["--num", 2, "--steps", 2, "--json"]
    code, said, _ = fedray("generate", unbroken[1], "-p", PROMPT, "-p", "a photo of a coat", *options, "--out", tmp_path / "many")
    assert code == 0
    found = json.loads(said)
    assert [(row["prompt"], row["seed"]) for row in found["images"]] == [
        (PROMPT, 0), (PROMPT, 1), ("a photo of a coat", 0), ("a photo of a coat", 1)
    ]  # fmt: skip
    assert found["files"] == sorted(str(f) for f in (tmp_path / "many").iterdir())
    assert all(Image.open(f).size == (32, 32) for f in found["files"])
    fedray("generate", unbroken[1], "-p", PROMPT, "--seed", 1, "--steps", 2, "--out", tmp_path / "one")
    assert np.array_equal(pixels(next((tmp_path / "one").iterdir())), pixels(found["files"][1]))


def test_a_run_in_progress_shows_what_its_newest_whole_checkpoint_holds(fedray, unbroken, tmp_path):
    folder = shutil.copytree(unbroken[1], tmp_path / "run")
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "model")
    for name, run in (("finished", unbroken[1]), ("going", folder)):
        assert fedray("generate", run, "-p", PROMPT, "--steps", 2, "--out", tmp_path / f"{name}.png")[0] == 0
    # The finished model has its adapter merged: the same but for rounding.
    assert np.abs(pixels(tmp_path / "finished.png") - pixels(tmp_path / "going.png")).max() <= 2
    newest = folder / "checkpoints" / "round-0003" / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert fedray("generate", folder, "-p", PROMPT, "--steps", 2, "--out", tmp_path / "before.png")[0] == 0
    assert not np.array_equal(pixels(tmp_path / "before.png"), pixels(tmp_path / "going.png"))
    shutil.rmtree(folder / "checkpoints")
    code, _, err = fedray("generate", folder, "-p", PROMPT, "--out", tmp_path / "none.png")
    assert (code, err) == (2, f"{folder}: got a run without a whole checkpoint, expected one that has trained a round\n")


def test_compare_puts_the_base_model_beside_it_from_the_same_noise(fedray, unbroken, tmp_path):
    out = tmp_path / "both.png"
    assert fedray("generate", unbroken[1], "-p", PROMPT, "--num", 2, "--steps", 2, "--compare", "--out", out)[0] == 0
    rows = json.loads(Image.open(out).text["fedray"])["images"]
    assert [(row["model"], row["seed"]) for row in rows] == [("base model", 0), ("base model", 1), ("this run", 0), ("this run", 1)]
    page = pixels(out)
    left, right = page[34:, : (page.shape[1] - 24) // 2], page[34:, (page.shape[1] + 24) // 2 :]
    assert left.shape == right.shape
    assert not np.array_equal(left, right)


@pytest.mark.parametrize("words", [["--num", "0"], ["--guidance", "-1"], ["--steps", "0"], ["--seed", "-1"]])
def test_numbers_that_make_no_picture_are_usage_errors(fedray, unbroken, words):
    assert fedray("generate", unbroken[1], "-p", PROMPT, *words)[0] == 2


def test_without_out_a_new_file_of_the_runs_folder_whatever_the_prompt_is(fedray, unbroken, tmp_path):
    folder = shutil.copytree(unbroken[1], tmp_path / "run")
    for prompt, name in (("../../etc/passwd", "etc-passwd.png"), ("../../etc/passwd", "etc-passwd-2.png"), ("墨", "image.png")):
        code, said, _ = fedray("generate", folder, "-p", prompt, "--steps", 1)
        assert (code, said.strip()) == (0, str(folder / "generated" / name))


@pytest.fixture(scope="module")
def speakers(tmp_path_factory):
    """A whole serial run of two rounds of a small GPT."""
    folder = tmp_path_factory.mktemp("speakers")
    changes = {
        "data": {"kind": "text", "path": "shipped:shakespeare", "length": 16, "partition": {"kind": "folder"}},
        "model": {"kind": "transformer", "objective": "causal_language", "width": 16, "layers": 1, "heads": 2},
        "population": {"clients": 10, "per_round": 2},
        "training": {"rounds": 2, "local_steps": 6, "batch_size": 16, "optimizer": {"kind": "adamw", "learning_rate": 0.02}},
        "evaluation": {"every": 1, "prompts": ["To be", "<b>Exit"], "new_tokens": 12},
    }  # fmt: skip
    helpers.run(garments(folder, changes), folder / "run")
    return folder / "run"


def test_a_run_keeps_what_its_model_writes_after_the_scenarios_prompts(speakers, tmp_path):
    written = [(speakers / "samples" / f"round-000{t}.txt").read_text() for t in range(3)]
    for text in written:
        first, second = text.split("\n---\n")
        assert (first[:5], second[:7]) == ("To be", "<b>Exit")
    assert len(set(written)) == 3
    page = write([speakers], tmp_path / "report.html").read_text()
    assert page.count("&lt;b&gt;Exit") == 2
    assert "<b>Exit" not in page
    assert "samples/round-0002.txt" in json.loads((speakers / "result.json").read_text())["artifacts"]


def test_texts_are_told_and_kept_each_from_its_own_seed(fedray, speakers, tmp_path):
    asked = ["generate", speakers, "--prompt", "To be", "--num", 2, "--steps", 9]
    code, said, err = fedray(*asked, "--json", "--compare", "--out", tmp_path / "both.txt")
    assert code == 0, err
    rows = json.loads(said)["texts"]
    assert [(row["model"], row["seed"]) for row in rows] == [("base model", 0), ("base model", 1), ("this run", 0), ("this run", 1)]
    assert len({row["text"] for row in rows}) == 4
    assert (tmp_path / "both.txt").read_text() == "\n---\n".join(row["text"] for row in rows) + "\n"
    _, said, _ = fedray(*asked[:4], "--steps", 9, "--seed", 1, "--out", tmp_path)
    assert said.startswith(f"--- this run, seed 1\n{rows[3]['text']}\n")
    assert said.endswith(f"{tmp_path / 'to-be.txt'}\n")


def test_a_model_that_writes_has_no_guidance(fedray, speakers):
    code, _, err = fedray("generate", speakers, "-p", "To be", "--guidance", 2)
    assert (code, err) == (2, f"{speakers}: got --guidance or --negative for a model that writes, expected --steps alone\n")
