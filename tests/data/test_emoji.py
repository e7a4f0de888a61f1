"""The emoji that ship, which tools/make_emoji.py made."""

import hashlib
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fedray import shipped
from fedray.checks import check
from fedray.data import open_source
from fedray.data.clients import partition
from fedray.data.image_folder import read
from tests.helpers import tiny

ROOT = Path(__file__).parents[2]
FOLDERS = ("emoji", "emoji-heldout", "emoji-subject")
KINDS = [
    "animals", "buildings", "clothes", "faces", "food", "music",
    "objects", "plants", "sky", "sports", "vehicles",
]  # fmt: skip


def emoji(folder):
    return read(f"shipped:{folder}", shipped.HERE, "data", "text", None)


def source(folder):
    return json.loads((shipped.HERE / folder / "source.json").read_text(encoding="utf-8"))


def pixels(samples):
    return np.stack([np.asarray(samples.image(i), np.float32).ravel() / 255 for i in range(len(samples))])


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_emoji_opens_as_32_pixels_of_rgb_on_white(folder):
    samples = emoji(folder)
    assert len(samples) == source(folder)["pictures"]
    for i in range(len(samples)):
        picture = samples.image(i)
        assert picture.size == (32, 32)
        assert picture.mode == "RGB"
        assert np.asarray(picture)[[0, 0, -1, -1], [0, -1, 0, -1]].mean() > 180, samples.files[i]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_pictures_and_captions_are_those_that_source_json_names(folder):
    root = shipped.HERE / folder
    digest = hashlib.sha256()
    files = [p for p in root.rglob("*") if p.suffix in (".png", ".jsonl")]
    for file in sorted(files, key=lambda p: p.relative_to(root).as_posix()):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    assert digest.hexdigest() == source(folder)["pictures_sha256"]


def test_emoji_are_at_most_1_mb_and_differ_from_each_other():
    files = [p for folder in FOLDERS for p in (shipped.HERE / folder).rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 1e6
    all_pixels = np.concatenate([pixels(emoji(folder)) for folder in ("emoji", "emoji-heldout")])
    square = (all_pixels**2).sum(1)
    apart = (square[:, None] + square - 2 * all_pixels @ all_pixels.T) / all_pixels.shape[1]
    np.fill_diagonal(apart, np.inf)
    assert apart.min() > 0.006


def test_a_caption_says_what_the_picture_is_by_name():
    captions = {
        file.stem: text for file, text in zip(emoji("emoji").files, emoji("emoji").captions, strict=True)
    }
    assert captions["red-apple"] == "a picture of a red apple"
    assert captions["owl"] == "a picture of an owl"
    assert captions["unicorn"] == "a picture of a unicorn"
    assert captions["grapes"] == "a picture of grapes"
    assert len(set(captions.values())) == len(captions)
    assert all(text.startswith("a picture of ") for text in captions.values())
    assert not set(captions) & {file.stem for file in emoji("emoji-heldout").files}


def test_each_kind_of_emoji_can_be_a_client(tmp_path):
    changes = {"data.path": "shipped:emoji", "population": {"clients": len(KINDS)}}
    loaded = check(tiny(tmp_path, changes))
    samples = open_source(loaded.scenario.data, loaded.folder)
    parts = partition(loaded.scenario, samples)
    assert [samples.groups[int(rows[0])] for rows in parts.values()] == KINDS
    assert min(map(len, parts.values())) >= 15


def test_a_subject_is_six_views_with_one_caption():
    samples = emoji("emoji-subject")
    assert sorted(set(samples.groups)) == ["bag", "cat", "dog", "t-shirt"]
    for group in set(samples.groups):
        captions = [text for text, g in zip(samples.captions, samples.groups, strict=True) if g == group]
        assert len(captions) == 6
        assert set(captions) <= {f"a photo of a sks {group}", f"a picture of a sks {group}"}


def test_the_licence_of_the_pictures_ships_with_them():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "Apache-2.0 AND MIT"
    licences = sorted(p.relative_to(ROOT).as_posix() for p in shipped.HERE.rglob("LICENSE"))
    assert sorted(project["license-files"]) == sorted(["LICENSE", *licences])
    assert "Microsoft Corporation" in (shipped.HERE / "emoji" / "LICENSE").read_text(encoding="utf-8")
    for folder in FOLDERS:
        assert source(folder)["licence"] == "MIT"
        assert len(source(folder)["package_sha256"]) == 64
