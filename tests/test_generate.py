import json
import shutil

import numpy as np
import pytest
from PIL import Image

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
