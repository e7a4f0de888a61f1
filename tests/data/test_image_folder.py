import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fedray import shipped
from fedray.checks import check
from fedray.data import open_source
from fedray.data.clients import partition
from fedray.data.image_folder import read
from fedray.scenario import Refused, ScenarioError
from tests.helpers import UNSEEN, tiny


def picture(file, mode="RGB", size=(32, 32)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 128).save(file)


def captions(folder, rows, key="text"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": f, key: t}) + "\n" for f, t in rows), encoding="utf-8"
    )


def two_clients(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / "pictures" / name / "one.png")
        captions(tmp_path / "pictures" / name, [("one.png", f"a photo of {name}")])
    return {"data.path": "pictures", "population": {"clients": 2}}


def problem(file):
    with pytest.raises(ScenarioError) as caught:
        check(file)
    (line,) = caught.value.problems
    return line


def test_a_users_folders_are_clients_in_their_sorted_order(tmp_path):
    loaded = check(tiny(tmp_path, two_clients(tmp_path)))
    samples = open_source(loaded.scenario.data, loaded.folder)
    assert [samples.captions[int(p[0])] for p in partition(loaded.scenario, samples).values()] == [
        "a photo of a",
        "a photo of b",
    ]


def test_captions_may_lie_in_the_folder_itself_under_any_key(tmp_path):
    picture(tmp_path / "p" / "x" / "1.png")
    picture(tmp_path / "p" / "y" / "2.jpg")
    captions(tmp_path / "p", [("x/1.png", "one"), ("y/2.jpg", "two")], key="caption")
    found = read("p", tmp_path, "data", "caption", None)
    assert list(found.captions) == ["one", "two"]
    assert list(found.groups) == ["x", "y"]


def test_a_caption_for_all_is_for_images_without_their_own(tmp_path):
    picture(tmp_path / "p" / "1.png")
    picture(tmp_path / "p" / "2.png")
    captions(tmp_path / "p", [("2.png", "its own")])
    assert list(read("p", tmp_path, "data", "text", "for all").captions) == ["for all", "its own"]
    with pytest.raises(Refused, match=r"1\.png without a caption, expected a line for it in metadata\.jsonl"):
        read("p", tmp_path, "data", "text", None)


@pytest.mark.parametrize("text", ["two\u2028lines", "a\x85b", "ünïcödé ✓", 'tab\tand "quotes"'])
def test_any_caption_json_can_hold_is_read(text, tmp_path):
    picture(tmp_path / "p" / "1.png")
    (tmp_path / "p" / "metadata.jsonl").write_text(
        json.dumps({"file_name": "1.png", "text": text}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert list(read("p", tmp_path, "data", "text", None).captions) == [text]


def test_a_caption_file_that_names_a_missing_image_is_named_with_its_line(tmp_path):
    changes = two_clients(tmp_path)
    captions(tmp_path / "pictures" / "b", [("one.png", "here"), ("gone.png", "not here")])
    file = tiny(tmp_path, changes)
    line = problem(file)
    assert line.startswith(f"{file}:")
    assert f"{tmp_path / 'pictures/b/metadata.jsonl'}:2: 'gone.png', which is missing" in line


@pytest.mark.parametrize(
    "text", ["no json\n", '["a list"]\n', '{"file_name": "one.png"}\n', '{"file_name": 3, "text": "x"}\n']
)
def test_a_caption_line_that_is_none_is_named(text, tmp_path):
    changes = two_clients(tmp_path)
    (tmp_path / "pictures" / "a" / "metadata.jsonl").write_text(text)
    assert f"{tmp_path / 'pictures/a/metadata.jsonl'}:1: " in problem(tiny(tmp_path, changes))


def test_a_caption_file_in_another_encoding_is_a_line(tmp_path):
    changes = two_clients(tmp_path)
    (tmp_path / "pictures" / "a" / "metadata.jsonl").write_bytes(
        '{"file_name": "one.png", "text": "caf\xe9"}\n'.encode("latin-1")
    )
    assert str(tmp_path / "pictures/a/metadata.jsonl") in problem(tiny(tmp_path, changes))


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_an_image_that_cannot_be_read_is_named_with_its_client_before_anything_trains(
    damage, verb, tmp_path, fedray
):
    ink = shutil.copytree(shipped.HERE / "ink", tmp_path / "ink")
    bad = ink / "artist-3" / "bag-1.png"
    bad.write_bytes({"truncated": bad.read_bytes()[:300], "text": b"no picture", "empty": b""}[damage])
    file = tiny(tmp_path, UNSEEN | {"data.path": "ink"})
    code, _, err = fedray(verb, file, *(["--out", "run"] if verb == "run" else []))
    assert code == 2
    assert not (tmp_path / "run").exists()
    (line,) = err.splitlines()
    assert line.startswith(f"{file}:")
    assert f"data.path: got client 2: {bad} cannot be read as an image: " in line


def test_every_mode_of_picture_comes_as_rgb_upright(tmp_path):
    for i, mode in enumerate(["L", "RGBA", "P", "1", "CMYK", "I;16"]):
        picture(tmp_path / "p" / f"{i}.{'tif' if mode in ('CMYK', 'I;16') else 'png'}", mode)
    turned = Image.new("RGB", (40, 20))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "p" / "9.jpg", exif=exif)
    found = read("p", tmp_path, "data", "text", "x")
    assert [found.image(i).mode for i in range(len(found))] == ["RGB"] * 7
    assert found.image(6).size == (20, 40)


def test_a_folder_without_images_and_a_file_for_a_folder_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for path, said in (
        ("empty", "without images"),
        ("file", "a folder of images, not a file"),
        ("gone", "a folder of images"),
    ):
        with pytest.raises(Refused, match=said):
            read(path, tmp_path, "data", "text", None)


def test_one_folder_needs_a_partition(tmp_path):
    picture(tmp_path / "p" / "1.png")
    line = problem(tiny(tmp_path, {"data.path": "p", "data.caption": "x", "population": {"clients": 1}}))
    assert (
        "data.partition: got folder, with all images in one, expected one folder a client, or partition"
        " {kind: iid}" in line
    )


@pytest.mark.parametrize("clients", [1, 2, 3, 7, 20])
def test_an_iid_partition_deals_every_sample_once_in_even_parts(clients, tmp_path):
    loaded = check(tiny(tmp_path, {"data.partition": {"kind": "iid"}, "population": {"clients": clients}}))
    samples = open_source(loaded.scenario.data, loaded.folder)
    parts, again = (list(partition(loaded.scenario, samples).values()) for _ in range(2))
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(20))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_an_iid_partition_is_the_seeds(tmp_path):
    def parts(seed):
        loaded = check(tiny(tmp_path, {"data.partition": {"kind": "iid"}, "seed": seed}))
        return [
            p.tolist()
            for p in partition(loaded.scenario, open_source(loaded.scenario.data, loaded.folder)).values()
        ]

    assert parts(0) != parts(1)


def test_more_clients_than_samples_are_refused(tmp_path):
    line = problem(tiny(tmp_path, {"data.partition": {"kind": "iid"}, "population": {"clients": 21}}))
    assert (
        "population.clients: got 21 parts of 20 samples, expected at most as many clients (or shards, or"
        " min_samples a client) as samples" in line
    )
