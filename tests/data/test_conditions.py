"""Condition pictures that a column of metadata.jsonl names: read, or refused by file and line."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from fedray.checks import check, readable
from fedray.data import Dataset
from fedray.data.image_folder import read
from fedray.scenario import Refused, ScenarioError
from tests.data.test_image_folder import picture
from tests.helpers import UNSEEN, tiny

COLUMN = "conditioning_image"
CONTROL = {
    "model.control": {"condition": {"column": COLUMN}},
    "tuning": {"kind": "full", "parts": ["controlnet"]},
}


def lines(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def row(condition="drawn/1.png", file_name="1.png"):
    return {"file_name": file_name, "text": "a photo", COLUMN: condition}


def clients(tmp_path, *rows, colour="white"):
    """Two clients of an image with a condition picture each; client b has these lines, if any."""
    for name in "ab":
        picture(tmp_path / "p" / name / "1.png")
        drawn = tmp_path / "p" / name / "drawn" / "1.png"
        drawn.parent.mkdir(parents=True)
        Image.new("RGB", (16, 16), colour).save(drawn)
        lines(tmp_path / "p" / name, row())
    if rows:
        lines(tmp_path / "p" / "b", *rows)
    return UNSEEN | CONTROL | {"data.path": "p", "population": {"clients": 2}}


def found(tmp_path, **options):
    return read("p", tmp_path, "data", "text", None, condition_column=COLUMN, **options)


def test_a_line_names_the_condition_picture_which_is_no_sample_itself(tmp_path):
    clients(tmp_path)
    samples = found(tmp_path)
    assert [file.parent.name for file in samples.files] == ["a", "b"]
    assert [file.relative_to(tmp_path / "p").as_posix() for file in samples.conditions] == [
        "a/drawn/1.png",
        "b/drawn/1.png",
    ]
    assert np.all(np.asarray(samples.condition(1)) == 255)


def test_a_picture_with_a_line_of_its_own_is_a_sample_and_anothers_condition(tmp_path):
    clients(tmp_path, row(), row(file_name="drawn/1.png", condition="drawn/1.png"))
    assert len(found(tmp_path)) == 3


def test_a_run_goes_on_only_with_the_same_condition_pictures(tmp_path):
    clients(tmp_path)
    before = list(found(tmp_path).contents())
    Image.new("RGB", (16, 16), "red").save(tmp_path / "p" / "a" / "drawn" / "1.png")
    assert list(found(tmp_path).contents()) != before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"file_name": "1.png", "text": "a photo"}, '"conditioning_image": ...}'),
        (row(condition=1), '"conditioning_image": ...}'),
        (row(condition="gone.png"), "'gone.png', which is missing"),
        (row(condition="../a/drawn/1.png"), "leads out of its folder"),
        (row(condition="/etc/passwd"), "leads out of its folder"),
        (row(condition="drawn"), "is a folder"),
        (row(condition="link.png"), "is hidden, or a link that is not followed|a link to"),
        (row(condition="metadata.jsonl"), "cannot be read as an image"),
    ],
    ids=["none", "no_name", "missing", "out", "absolute", "folder", "link", "no_image"],
)
def test_a_condition_picture_that_is_not_there_is_refused_at_check_by_file_and_line(tmp_path, line, said):
    file = tiny(tmp_path, clients(tmp_path, line))
    if line.get(COLUMN) == "link.png":
        (tmp_path / "p" / "b" / "link.png").symlink_to("/etc/hostname")
    with pytest.raises(ScenarioError, match=said) as e:
        check(file)
    (problem,) = e.value.problems
    assert problem.startswith(f"{file}:")
    assert str(tmp_path / "p" / "b") in problem


def test_a_line_of_the_roots_may_not_give_a_client_the_condition_picture_of_another(tmp_path):
    clients(tmp_path)
    for name in "ab":
        (tmp_path / "p" / name / "metadata.jsonl").unlink()
    (tmp_path / "p" / "b" / "drawn" / "1.png").unlink()
    rows = [{"file_name": f"{name}/1.png", "text": name, COLUMN: "a/drawn/1.png"} for name in "ab"]
    lines(tmp_path / "p", *rows)
    with pytest.raises(Refused, match="expected condition pictures in the folder of their client"):
        found(tmp_path, clients=True)


def test_an_image_without_a_line_has_no_condition_picture_whatever_caption_there_is_for_all(tmp_path):
    clients(tmp_path)
    picture(tmp_path / "p" / "a" / "2.png")
    with pytest.raises(Refused, match=r"a/2\.png without a condition picture"):
        read("p", tmp_path, "data", "text", "a photo", condition_column=COLUMN)


@pytest.mark.parametrize("shape", [(64, 16), None], ids=["wide", "damaged"])
def test_before_training_every_condition_picture_opens_and_has_its_images_shape(tmp_path, shape):
    loaded = check(tiny(tmp_path, clients(tmp_path)))
    bad = tmp_path / "p" / "b" / "drawn" / "1.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n") if shape is None else Image.new("L", shape).save(bad)
    with pytest.raises(ScenarioError, match=r"client 1: .*drawn/1\.png"):
        readable(loaded)


def test_data_without_columns_are_refused(tmp_path):
    data = {"kind": "fashion_mnist_mini", "partition": {"kind": "iid"}}
    with pytest.raises(ScenarioError, match="a column for fashion_mnist_mini, expected edges"):
        check(tiny(tmp_path, UNSEEN | CONTROL | {"data": data}))


def test_another_process_opens_the_same_condition_pictures(tmp_path):
    loaded = check(tiny(tmp_path, clients(tmp_path)))
    dataset = Dataset.of(loaded.scenario, loaded.folder)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.is_of(dataset)
    assert again.train.conditions == dataset.train.conditions
