import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from fedray.learners.base_families import FAMILIES
from fedray.learners.transformer import Transformer
from fedray.report.page import write
from fedray.scenario.text_to_image import TextToImage as Section
from tests import helpers
from tests.helpers import garments

PROMPT = "a photo of a bag in ink style"


def pixels(file):
    return np.array(Image.open(file)).astype(int)


def test_a_picture_knows_its_prompt_seed_and_settings(fedray, unbroken, tmp_path):
    out = tmp_path / "bag.png"
    code, said, err = fedray(
        "generate", unbroken[1], "--prompt", PROMPT, "--seed", 7, "--steps", 3, "--guidance", 2, "--out", out
    )
    assert (code, said.strip()) == (0, str(out)), err
    text = Image.open(out).text
    assert text["prompt"] == PROMPT
    assert text["parameters"].startswith(f"{PROMPT}\nSteps: 3, CFG scale: 2, Seed: 7, Size: 32x32")
    assert json.loads(text["fedray"])["images"] == [{"model": "this run", "prompt": PROMPT, "seed": 7}]


def test_one_image_is_itself_without_a_frame_in_a_grid_or_alone(fedray, unbroken, tmp_path):
    for out in (tmp_path / "one.png", tmp_path / "folder"):
        assert fedray("generate", unbroken[1], "-p", PROMPT, "--steps", 2, "--out", out)[0] == 0
    alone = next((tmp_path / "folder").iterdir())
    assert Image.open(tmp_path / "one.png").size == Image.open(alone).size == (32, 32)
    assert np.array_equal(pixels(tmp_path / "one.png"), pixels(alone))
    fedray("generate", unbroken[1], "-p", PROMPT, "--num", 2, "--steps", 2, "--out", tmp_path / "two.png")
    # of each, as in A1111's grids
    assert Image.open(tmp_path / "two.png").text["parameters"].endswith("Size: 32x32")


def test_a_negative_prompt_for_a_model_that_takes_none_is_refused(fedray, unbroken, monkeypatch):
    monkeypatch.setattr(Section, "takes_negative_prompt", False)
    code, _, err = fedray("generate", unbroken[1], "-p", PROMPT, "--negative", "blur")
    assert (code, err) == (2, "--negative: got 'blur' for a text_to_image, expected none\n")


def test_a_negative_prompt_that_the_base_would_ignore_is_refused(fedray, unbroken, monkeypatch):
    pipeline = "StableDiffusionPipeline"
    distilled = replace(FAMILIES[pipeline], takes_negative_prompt=False)
    monkeypatch.setitem(FAMILIES, pipeline, distilled)
    code, _, err = fedray("generate", unbroken[1], "-p", PROMPT, "--negative", "blur")
    assert code == 2
    assert f"--negative: got 'blur' for a {pipeline}, which has guidance distilled into it" in err


def without(run, folder, *keys):
    """A copy of a run whose scenario names files that are not there any more."""
    run, yaml = shutil.copytree(run, folder), YAML()
    tree = yaml.load((run / "scenario.resolved.yaml").read_text())
    for *sections, key in (path.split(".") for path in keys):
        section = tree
        for name in sections:
            section = section[name]
        section[key] = "gone/away/for/good"
    with (run / "scenario.resolved.yaml").open("w") as f:
        yaml.dump(tree, f)
    return run


def test_a_finished_run_generates_without_its_data_and_its_base(fedray, unbroken, tmp_path):
    run = without(unbroken[1], tmp_path / "run", "data.path", "model.base")
    shutil.rmtree(run / "checkpoints")
    for folder, name in ((unbroken[1], "before"), (run, "after")):
        code, _, err = fedray(
            "generate", folder, "-p", PROMPT, "--steps", 2, "--out", tmp_path / f"{name}.png"
        )
        assert code == 0, err
    assert np.array_equal(pixels(tmp_path / "before.png"), pixels(tmp_path / "after.png"))
    code, _, err = fedray("generate", run, "-p", PROMPT, "--compare", "--out", tmp_path / "both.png")
    assert code == 2  # for which the base is needed
    assert "model.base: got 'gone/away/for/good', which is not there" in err


def test_a_run_in_progress_generates_without_its_data(fedray, unbroken, tmp_path):
    run = without(unbroken[1], tmp_path / "run", "data.path")
    (run / "result.json").unlink()
    code, _, err = fedray("generate", run, "-p", PROMPT, "--steps", 2, "--out", tmp_path / "going.png")
    assert code == 0, err


@pytest.mark.parametrize(
    "what", ["a link out of the folder", "weights cut off", "no tokenizer", "another sampler"]
)
def test_a_model_that_is_not_the_runs_own_is_refused(fedray, unbroken, tmp_path, what):
    run = shutil.copytree(unbroken[1], tmp_path / "runs" / "run")
    weights = run / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    if what == "a link out of the folder":
        (run / "model" / "unet").rename(tmp_path / "unet")
        (run / "model" / "unet").symlink_to(tmp_path / "unet")
    elif what == "weights cut off":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif what == "no tokenizer":
        shutil.rmtree(run / "model" / "tokenizer")
    else:
        (run / "model" / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "nobody"}')
    code, _, err = fedray("generate", run, "-p", PROMPT, "--out", tmp_path / "none.png")
    assert code == 2
    assert err.startswith(f"{run / 'model'}")
    assert err.count("\n") == 1
    assert ": got " in err
    assert not (tmp_path / "none.png").exists()


def test_an_image_that_cannot_be_written_is_a_line(fedray, unbroken, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = fedray(
        "generate", unbroken[1], "-p", PROMPT, "--steps", 1, "--out", tmp_path / "file" / "bag.png"
    )
    assert (code, err.split(": got ")[0]) == (2, f"{tmp_path / 'file' / 'bag.png'}")


def test_single_files_are_the_models_own_pixels_each_from_its_own_seed(fedray, unbroken, tmp_path):
    options = ["--num", 2, "--steps", 2, "--json"]
    code, said, _ = fedray(
        "generate", unbroken[1], "-p", PROMPT, "-p", "a photo of a coat", *options, "--out", tmp_path / "many"
    )
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
    assert (code, err) == (
        2,
        f"{folder}: got a run without a whole checkpoint, expected one that has trained a round\n",
    )


def test_compare_puts_the_base_model_beside_it_from_the_same_noise(fedray, unbroken, tmp_path):
    out = tmp_path / "both.png"
    assert (
        fedray("generate", unbroken[1], "-p", PROMPT, "--num", 2, "--steps", 2, "--compare", "--out", out)[0]
        == 0
    )
    rows = json.loads(Image.open(out).text["fedray"])["images"]
    assert [(row["model"], row["seed"]) for row in rows] == [
        ("base model", 0),
        ("base model", 1),
        ("this run", 0),
        ("this run", 1),
    ]
    page = pixels(out)
    left, right = page[34:, : (page.shape[1] - 24) // 2], page[34:, (page.shape[1] + 24) // 2 :]
    assert left.shape == right.shape
    assert not np.array_equal(left, right)


@pytest.mark.parametrize("words", [["--num", "0"], ["--guidance", "-1"], ["--steps", "0"], ["--seed", "-1"]])
def test_numbers_that_make_no_picture_are_usage_errors(fedray, unbroken, words):
    assert fedray("generate", unbroken[1], "-p", PROMPT, *words)[0] == 2


def test_without_out_a_new_file_of_the_runs_folder_whatever_the_prompt_is(fedray, unbroken, tmp_path):
    folder = shutil.copytree(unbroken[1], tmp_path / "run")
    for prompt, name in (
        ("../../etc/passwd", "etc-passwd.png"),
        ("../../etc/passwd", "etc-passwd-2.png"),
        ("墨", "image.png"),
    ):
        code, said, _ = fedray("generate", folder, "-p", prompt, "--steps", 1)
        assert (code, said.strip()) == (0, str(folder / "generated" / name))


@pytest.fixture(scope="module")
def speakers(tmp_path_factory):
    """A whole serial run of two rounds of a small GPT."""
    folder = tmp_path_factory.mktemp("speakers")
    changes = {
        "data": {
            "kind": "text",
            "path": "shipped:shakespeare",
            "length": 16,
            "partition": {"kind": "folder"},
        },
        "model": {
            "kind": "transformer",
            "objective": "causal_language",
            "width": 16,
            "layers": 1,
            "heads": 2,
        },
        "population": {"clients": 10, "per_round": 2},
        "training": {
            "rounds": 2,
            "local_steps": 6,
            "batch_size": 16,
            "optimizer": {"kind": "adamw", "learning_rate": 0.02},
        },
        "evaluation": {"every": 1, "prompts": ["To be", "<b>Exit"], "new_tokens": 12},
    }
    helpers.run(garments(folder, changes), folder / "run")
    return folder / "run"


def test_a_run_keeps_what_its_model_writes_after_the_scenarios_prompts(speakers, tmp_path):
    written = [(speakers / "samples" / f"round-000{t}.txt").read_text() for t in range(3)]
    for text in written:
        first, second = text.split("\n---\n")
        assert (first[:5], second[:7]) == ("To be", "<b>Exit")
    assert len(set(written)) == 3
    page = write([speakers], tmp_path / "report.html").read_text()
    assert page.split("<h2>Texts")[1].split("</section>")[0].count("&lt;b&gt;Exit") == 2
    assert "<b>Exit" not in page
    assert "samples/round-0002.txt" in json.loads((speakers / "result.json").read_text())["artifacts"]


def test_texts_are_told_and_kept_each_from_its_own_seed(fedray, speakers, tmp_path):
    asked = ["generate", speakers, "--prompt", "To be", "--num", 2, "--steps", 9]
    code, said, err = fedray(*asked, "--json", "--compare", "--out", tmp_path / "both.txt")
    assert code == 0, err
    rows = json.loads(said)["texts"]
    assert [(row["model"], row["seed"]) for row in rows] == [
        ("base model", 0),
        ("base model", 1),
        ("this run", 0),
        ("this run", 1),
    ]
    assert len({row["text"] for row in rows}) == 4
    assert (tmp_path / "both.txt").read_text() == "\n---\n".join(row["text"] for row in rows) + "\n"
    _, said, _ = fedray(*asked[:4], "--steps", 9, "--seed", 1, "--out", tmp_path)
    assert said.startswith(f"--- this run, seed 1\n{rows[3]['text']}\n")
    assert said.endswith(f"{tmp_path / 'to-be.txt'}\n")


def test_a_finished_run_writes_without_its_data_what_its_last_checkpoint_would(fedray, speakers, tmp_path):
    asked = ["-p", "To be", "--num", 2, "--steps", 9, "--json", "--compare"]
    going = shutil.copytree(speakers, tmp_path / "going")
    (going / "result.json").unlink()
    run = without(speakers, tmp_path / "run", "data.path")
    shutil.rmtree(run / "checkpoints")
    told = []
    for folder in (going, run):
        code, said, err = fedray("generate", folder, *asked, "--out", tmp_path / f"{folder.name}.txt")
        assert code == 0, err
        told.append([(row["model"], row["seed"], row["text"]) for row in json.loads(said)["texts"]])
    assert told[0] == told[1]
    (run / "model" / "tokenizer.json").write_text("{}")
    code, _, err = fedray("generate", run, *asked)
    assert (code, err.split(": got ")[0]) == (2, f"{run / 'model' / 'tokenizer.json'}")


def test_what_a_model_writes_cannot_steer_the_terminal(fedray, speakers, tmp_path, monkeypatch):
    monkeypatch.setattr(Transformer, "sample", lambda *_: ["To be\n\x1b[2J\x07 é"])
    _, said, _ = fedray("generate", speakers, "-p", "To be", "--out", tmp_path / "text.txt")
    assert said.startswith("--- this run, seed 0\nTo be\n\\x1b[2J\\x07 é\n")
    assert (tmp_path / "text.txt").read_text() == "To be\n\x1b[2J\x07 é\n"  # the file has what was written


def test_a_model_that_writes_has_no_guidance(fedray, speakers):
    code, _, err = fedray("generate", speakers, "-p", "To be", "--guidance", 2)
    assert (code, err) == (
        2,
        f"{speakers}: got --guidance or --negative for a model that writes, expected --steps alone\n",
    )


def test_a_run_without_a_controlnet_takes_no_condition(fedray, unbroken, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "drawing.png")
    code, _, err = fedray("generate", unbroken[1], "-p", PROMPT, "--condition", tmp_path / "drawing.png")
    assert code == 2
    assert "got --condition for a text_to_image without a ControlNet, expected none" in err
