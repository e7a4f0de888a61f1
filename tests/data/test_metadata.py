"""metadata.jsonl as strangers write it: read, or refused by file and line."""

import json
import unicodedata

import pytest
from PIL import Image

from fedray.checks import check
from fedray.data import holdings
from fedray.data.image_folder import read
from fedray.scenario import Refused
from tests.data.test_image_folder import captions, picture, problem
from tests.helpers import tiny

NFC, NFD = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))


def clients(tmp_path, *extra):
    """Two clients of an image, each with its own metadata.jsonl; extra lines stand in b's."""
    for name in "ab":
        picture(tmp_path / "p" / name / "1.png")
        captions(tmp_path / "p" / name, [("1.png", f"a photo of {name}")])
    captions(tmp_path / "p" / "b", [("1.png", "a photo of b"), *extra])
    return tiny(tmp_path, {"data.path": "p", "population": {"clients": 2}})


def found(tmp_path, caption=None):
    samples = read("p", tmp_path, "data", "text", caption)
    return {
        file.relative_to(tmp_path / "p").as_posix(): text
        for file, text in zip(samples.files, samples.captions, strict=True)
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../a/1.png", "leads out of its folder"),
        ("sub/../../a/1.png", "leads out of its folder"),
        ("sub/../1.png", "leads out of its folder"),
        ("{root}/a/1.png", "leads out of its folder"),
        ("{root}/b/1.png", "leads out of its folder"),
        ("/etc/passwd", "leads out of its folder"),
        ("", "is a folder"),
        (".", "is a folder"),
        ("folder", "is a folder"),
        ("gone.png", "is missing"),
        ("1.PNG", "is missing"),
        ("a\0b.png", "is missing"),
        ("\ud800.png", "is missing"),
        ("x" * 300 + ".png", "is missing"),
        ("x" * 100_000, r"x'\.\.\. of 100000 characters, which is missing"),
        ("d/" * 5000 + "1.png", "is missing"),
        (".1.png", "is hidden"),
        ("1.png", "line 1 names too"),
        ("./1.png", "line 1 names too"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_line_that_names_no_image_of_its_own_folder_is_refused_by_its_number(name, said, tmp_path):
    file = clients(tmp_path, (name.format(root=tmp_path / "p"), "stolen"))
    (tmp_path / "p" / "b" / "folder").mkdir()
    picture(tmp_path / "p" / "b" / ".1.png")
    with pytest.raises(Refused, match=rf"metadata\.jsonl:2: .*{said}"):
        found(tmp_path)
    line = problem(file)
    assert line.startswith(f"{file}:")
    assert f"data.path: got {tmp_path / 'p/b/metadata.jsonl'}:2: " in line
    assert len(line) < 1500


def test_a_line_of_the_roots_may_name_any_clients_image(tmp_path):
    clients(tmp_path)
    (tmp_path / "p" / "a" / "metadata.jsonl").unlink()
    captions(tmp_path / "p", [("a/1.png", "from the root")])
    assert found(tmp_path) == {"a/1.png": "from the root", "b/1.png": "a photo of b"}


@pytest.mark.parametrize("outer", ["", "z"])
def test_of_two_captions_the_nearest_to_the_image_counts(outer, tmp_path):
    """The outer folder's metadata.jsonl sorts after the inner one's where a folder of it is called a."""
    place = tmp_path / "p" / outer
    picture(place / "a" / "b" / "1.png")
    picture(place / "zz" / "1.png")
    captions(place, [("a/b/1.png", "far"), ("zz/1.png", "far")])
    captions(place / "a", [("b/1.png", "nearer")])
    captions(place / "a" / "b", [("1.png", "nearest")])
    captions(place / "zz", [("1.png", "nearest")])
    assert list(found(tmp_path).values()) == ["nearest", "nearest"]


@pytest.mark.parametrize(("on_disk", "in_line"), [(NFC, NFD), (NFD, NFC)])
def test_a_name_matches_however_unicode_composes_it(on_disk, in_line, tmp_path):
    picture(tmp_path / "p" / on_disk)
    captions(tmp_path / "p", [(in_line, "coffee")])
    assert list(found(tmp_path).values()) == ["coffee"]
    captions(tmp_path / "p", [(NFC, "coffee"), (NFD, "coffee")])
    with pytest.raises(Refused, match=r"metadata\.jsonl:2: .*which line 1 names too"):
        found(tmp_path)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    picture(tmp_path / "p" / "1.png")
    row = json.dumps({"file_name": "1.png", "text": "a bag"})
    (tmp_path / "p" / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + row.encode() + b"\r\n\r\n")
    assert found(tmp_path) == {"1.png": "a bag"}


@pytest.mark.parametrize(
    "line",
    [
        "[" * 200_000,
        '{"file_name": "1.png", "text": "x", "more": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"file_name": "1.png", "text": ' + "9" * 5000 + "}",
        '{"file_name": "1.png", "text": null}',
        '{"file_name": "1.png", "text": "half of a face \\ud83d"}',
        '{"file_name": "1.png", "text": "x"} {}',
    ],
    ids=["open brackets", "nested", "huge number", "no text", "half a character", "two objects"],
)
def test_a_line_that_is_no_object_of_a_name_and_a_text_is_refused_by_its_number(line, tmp_path):
    picture(tmp_path / "p" / "1.png")
    picture(tmp_path / "p" / "2.png")
    (tmp_path / "p" / "metadata.jsonl").write_text('{"file_name": "2.png", "text": "x"}\n' + line + "\n")
    with pytest.raises(Refused, match=r"metadata\.jsonl:2: ") as refused:
        found(tmp_path)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("name", ["1.jfif", "1.jpe", "1.heic", "1", "1.dat", "1.JPG"])
def test_as_many_samples_as_lines_whatever_the_suffix_of_an_image(name, tmp_path):
    picture(tmp_path / "p" / "0.png")
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "p" / name, "JPEG")
    captions(tmp_path / "p", [("0.png", "zero"), (name, "one")])
    samples = read("p", tmp_path, "data", "text", None)
    assert sorted(samples.captions) == ["one", "zero"]
    assert samples.image(list(samples.captions).index("one")).getpixel((0, 0))[0] > 250


@pytest.mark.parametrize("name", ["1.heic", "notes.txt", "film.mp4", "metadata.jsonl"])
def test_a_line_that_names_what_cannot_be_read_as_an_image_is_refused_by_its_number(name, tmp_path):
    file = clients(tmp_path, (name, "one"))
    if name != "metadata.jsonl":
        (tmp_path / "p" / "b" / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert (
        f"{tmp_path / 'p/b/metadata.jsonl'}:2: {tmp_path / 'p/b' / name} cannot be read as an image"
        in problem(file)
    )


def test_an_image_of_a_kind_that_is_not_read_is_refused_where_no_line_names_it(tmp_path):
    picture(tmp_path / "p" / "0.png")
    (tmp_path / "p" / "1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(Refused, match=r"got .*1\.HEIC, which Pillow cannot decode, expected PNG, JPEG"):
        found(tmp_path, "for all")


def test_a_line_about_a_link_that_is_not_followed_says_so(tmp_path):
    (tmp_path / "secret.dat").write_bytes(b"a password")
    file = clients(tmp_path, ("linked.dat", "one"))
    (tmp_path / "p" / "b" / "linked.dat").symlink_to(tmp_path / "secret.dat")
    assert "metadata.jsonl:2: 'linked.dat', which is hidden, or a link that is not followed" in problem(file)


def test_an_image_that_cannot_be_scaled_is_refused_with_its_client_before_anything_trains(tmp_path):
    file = clients(tmp_path, ("2.tif", "depth"))
    Image.new("F", (4, 4), 0.5).save(tmp_path / "p" / "b" / "2.tif")
    loaded = check(file)
    samples, client_indices = holdings(loaded.scenario, loaded.folder)
    (refused,) = samples.unreadable(client_indices)
    assert f"client 1: {tmp_path / 'p/b/2.tif'} cannot be read as an image: its pixels are " in refused.got


@pytest.mark.parametrize("folders", [["a", "a"], ["\u00e9", "e\u0301"]])
def test_a_site_names_each_of_its_folders_once(folders, tmp_path):
    sites = {"s": {"folders": folders}}
    data = {
        "kind": "image_folder",
        "path": "p",
        "caption": "x",
        "partition": {"kind": "folder"},
        "sites": sites,
    }
    file = tiny(tmp_path, {"data": data, "population": {"clients": 2}, "runtime": {"executor": "ray"}})
    assert "data.sites.s.folders: got " in problem(file)
    assert ", expected each folder once" in problem(file)
