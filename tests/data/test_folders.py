"""What is found below a folder: links, loops of them, what systems leave behind, names that read the same."""

import os
import time
import unicodedata

import pytest

from fedray.checks import check
from fedray.data import holdings, open_source
from fedray.data.folders import Walk
from fedray.data.image_folder import read
from fedray.scenario import Refused
from fedray.scenario.data import ImageFolder, Text
from tests.data.test_image_folder import captions, picture, problem
from tests.helpers import tiny


def pictures(tmp_path, only=None, **options):
    return read("p", tmp_path, "data", "text", "x", only, **options)


def names(tmp_path, samples):
    return [file.relative_to(tmp_path / "p").as_posix() for file in samples.files]


def refused(match, tmp_path, *args, **options):
    with pytest.raises(Refused, match=match) as caught:
        pictures(tmp_path, *args, **options)
    assert caught.value.key == "data.path"


def link(place, target):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


# --- what systems leave behind


LEFT_BEHIND = [
    ".DS_Store",
    "._1.png",
    ".hidden.png",
    ".Trash/1.png",
    ".ipynb_checkpoints/1.png",
    "__MACOSX/a/1.png",
    "__macosx/1.png",
    "a/__MACOSX/._1.png",
    "@eaDir/1.png/SYNOFILE_THUMB_M.png",
    "$RECYCLE.BIN/1.png",
    "System Volume Information/1.png",
    "lost+found/1.png",
    "Thumbs.db",
    "desktop.ini",
    "a/.cache/b/1.png",
    ".git/1.png",
    "#recycle/1.png",
]


@pytest.mark.parametrize("left", LEFT_BEHIND)
def test_what_systems_leave_behind_is_neither_a_sample_nor_a_client(left, tmp_path):
    for client in "ab":
        picture(tmp_path / "p" / client / "1.png")
    junk = tmp_path / "p" / left
    junk.parent.mkdir(parents=True, exist_ok=True)
    junk.write_bytes((tmp_path / "p" / "a" / "1.png").read_bytes())
    (junk.parent / "metadata.jsonl").write_text(
        "no captions, in a folder that nobody reads" if junk.parent.name not in "pa" else ""
    )
    found = pictures(tmp_path)
    assert names(tmp_path, found) == ["a/1.png", "b/1.png"]
    loaded = check(tiny(tmp_path, {"data.path": "p", "data.caption": "x", "population": {"clients": 2}}))
    assert [part.tolist() for part in holdings(loaded.scenario, loaded.folder)[1].values()] == [[0], [1]]


def test_a_hidden_folder_is_read_where_it_is_asked_for_by_name_or_is_the_root(tmp_path):
    picture(tmp_path / "p" / ".a" / "1.png")
    picture(tmp_path / "p" / "b" / "1.png")
    assert names(tmp_path, pictures(tmp_path, [".a"])) == [".a/1.png"]
    assert len(read("p/.a", tmp_path, "data", "text", "x")) == 1


def test_hidden_texts_are_no_samples(tmp_path):
    for name in ("a.txt", "._a.txt", ".b/c.txt", "__MACOSX/d.txt"):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_text("word " * 40)
    section = Text.model_validate({"kind": "text", "path": "p", "length": 4, "partition": {"kind": "folder"}})
    assert open_source(section, tmp_path).label_names == ["a"]


# --- links


def test_links_within_the_root_are_followed_in_the_order_of_their_names(tmp_path):
    picture(tmp_path / "p" / "c" / "deep" / "1.png")
    link(tmp_path / "p" / "a", "c/deep")
    link(tmp_path / "p" / "b" / "2.png", "../c/deep/1.png")
    found = pictures(tmp_path)
    assert names(tmp_path, found) == ["a/1.png", "b/2.png", "c/deep/1.png"]
    assert list(found.groups) == ["a", "b", "c"]
    assert [found.label_names[k] for k in found.labels] == ["a", "b", "deep"]


def test_a_root_that_is_a_link_is_a_root(tmp_path):
    picture(tmp_path / "elsewhere" / "a" / "1.png")
    link(tmp_path / "p", "elsewhere")
    link(tmp_path / "elsewhere" / "b", tmp_path / "elsewhere" / "a")
    assert names(tmp_path, pictures(tmp_path)) == ["a/1.png", "b/1.png"]


@pytest.mark.parametrize("target", [".", "..", "../..", "../../a/b"])
def test_loops_of_links_are_cut(target, tmp_path):
    picture(tmp_path / "p" / "a" / "b" / "1.png")
    picture(tmp_path / "p" / "c" / "2.png")
    link(tmp_path / "p" / "a" / "b" / "loop", target)
    assert names(tmp_path, pictures(tmp_path)) == ["a/b/1.png", "c/2.png"]


def test_a_loop_that_begins_behind_a_link_is_cut_too(tmp_path):
    picture(tmp_path / "p" / ".store" / "x" / "1.png")
    link(tmp_path / "p" / "a", ".store/x")
    link(tmp_path / "p" / ".store" / "x" / "up", "..")
    assert names(tmp_path, pictures(tmp_path)) == ["a/1.png"]


def test_folders_that_all_link_to_each_other_are_refused_before_a_factorial_of_ways(tmp_path):
    folders = [tmp_path / "p" / f"{i:02}" for i in range(14)]
    for folder in folders:
        picture(folder / "1.png", size=(1, 1))
        for other in folders:
            if other != folder:
                link(folder / f"to-{other.name}", other)
    began = time.perf_counter()
    refused("by which links lead to .* in more than 100 ways", tmp_path)
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("target", ["outside", "outside/1.png", "gone", "circle"])
def test_a_link_that_leaves_the_root_or_leads_nowhere_is_refused_by_its_name(target, tmp_path):
    picture(tmp_path / "outside" / "1.png")
    picture(tmp_path / "p" / "a" / "1.png")
    place = tmp_path / "p" / "b" / ("2.png" if target.endswith("png") else "linked")
    link(place, "linked" if target == "circle" else tmp_path / target)
    said = (
        "which leads nowhere"
        if target in ("gone", "circle")
        else f"a link to {tmp_path / target}, expected links that stay within"
    )
    refused(f"got {place}, a link to .*{said}" if "nowhere" in said else f"got {place}, {said}", tmp_path)


def test_a_link_out_of_the_root_to_what_is_no_image_is_nobodys_concern(tmp_path):
    (tmp_path / "LICENSE").write_text("")
    picture(tmp_path / "p" / "a" / "1.png")
    link(tmp_path / "p" / "LICENSE", "../LICENSE")
    link(tmp_path / "p" / ".latest", "/nowhere")
    assert names(tmp_path, pictures(tmp_path)) == ["a/1.png"]


@pytest.mark.parametrize("how", ["folder", "file", "client", "metadata", "hidden store", "root's file"])
def test_a_link_by_which_a_client_would_hold_anothers_file_is_refused(how, tmp_path):
    for client in "ab":
        picture(tmp_path / "p" / client / "1.png")
    place, target = {
        "folder": ("b/more", "../a"),
        "file": ("a/2.png", "../b/1.png"),
        "client": ("c", "a"),
        "metadata": ("b/metadata.jsonl", "../a/metadata.jsonl"),
        "hidden store": ("c", ".store"),
        "root's file": ("a/2.png", "../0.png"),
    }[how]
    if how == "metadata":
        captions(tmp_path / "p" / "a", [("1.png", "one")])
    if how == "root's file":
        picture(tmp_path / "p" / "0.png")
    if how == "hidden store":
        picture(tmp_path / "p" / ".store" / "1.png")
        link(tmp_path / "p" / "b" / "stored", "../.store")
    link(tmp_path / "p" / place, target)
    refused(f"got {tmp_path / 'p' / place}, a link by which '.*' and '.*' both hold ", tmp_path, clients=True)
    line = problem(tiny(tmp_path, {"data.path": "p", "data.caption": "x", "population": {"clients": 2}}))
    assert "tiny.yaml:" in line
    assert f"data.path: got {tmp_path / 'p' / place}, a link" in line


def test_a_link_within_a_clients_own_folder_or_to_one_that_nobody_asked_for_is_followed(tmp_path):
    picture(tmp_path / "p" / "a" / "b" / "1.png")
    link(tmp_path / "p" / "a" / "again", "b")
    picture(tmp_path / "p" / "store" / "1.png")
    link(tmp_path / "p" / "c", "store")
    found = pictures(tmp_path, ["c", "a"], clients=True)
    assert names(tmp_path, found) == ["c/1.png", "a/again/1.png", "a/b/1.png"]
    assert list(found.groups) == ["c", "a", "a"]


def test_no_link_leads_into_the_folder_of_a_client_at_another_site(tmp_path):
    for client in "ab":
        picture(tmp_path / "p" / client / "1.png")
    link(tmp_path / "p" / "a" / "more", "../b")
    changes = {
        "data": {
            "kind": "image_folder", "path": "p", "caption": "x", "partition": {"kind": "folder"},
            "sites": {"east": {"folders": ["a"]}, "west": {"folders": ["b"]}},
        },
        "population": {"clients": 2}, "runtime": {"executor": "ray"},
    }  # fmt: skip
    loaded = check(tiny(tmp_path, changes))
    with pytest.raises(
        Refused, match=r"data.sites.east.path: got .*p/a/more, a link into b, which is another client's"
    ):
        holdings(loaded.scenario, loaded.folder, "east")
    samples, held = holdings(loaded.scenario, loaded.folder, "west")
    assert (names(tmp_path, samples), held[1].tolist()) == (["b/1.png"], [0])


def test_texts_are_followed_and_refused_alike(tmp_path):
    (tmp_path / "p" / "a").mkdir(parents=True)
    (tmp_path / "p" / "a" / "1.txt").write_text("word " * 40)
    link(tmp_path / "p" / "b", "a")

    def opened(kind):
        return open_source(
            Text.model_validate({"kind": "text", "path": "p", "length": 4, "partition": {"kind": kind}}),
            tmp_path,
        )

    assert opened("iid").label_names == ["a/1", "b/1"]
    with pytest.raises(Refused, match=r"got .*p/b, a link by which 'a' and 'b' both hold"):
        opened("folder")
    (tmp_path / "p" / "b").unlink()
    link(tmp_path / "p" / "c", "/")
    with pytest.raises(Refused, match=r"got .*p/c, a link to /, expected links that stay within"):
        opened("iid")


@pytest.mark.parametrize(
    ("one", "other", "kinds"), [("a.txt", "a/1.txt", ["folder"]), ("a.txt", "a.TXT", ["folder", "iid"])]
)
def test_two_texts_of_one_name_are_not_one_client(one, other, kinds, tmp_path):
    for name in (one, other):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_text("word " * 40)
    for kind in kinds:
        section = Text.model_validate({"kind": "text", "path": "p", "length": 4, "partition": {"kind": kind}})
        with pytest.raises(Refused, match="which are one name without"):
            open_source(section, tmp_path)


# --- folders and names


def test_a_folder_that_cannot_be_listed_and_an_image_that_is_no_file_are_refused(tmp_path, monkeypatch):
    picture(tmp_path / "p" / "a" / "1.png")
    os.mkfifo(tmp_path / "p" / "a" / "2.png")
    refused(r"a/2\.png, which is neither a file nor a folder", tmp_path)
    listed = os.scandir

    def forbidden(path):
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    refused(r"p/a, which cannot be listed: Permission denied", tmp_path)


NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


def test_names_that_differ_only_in_how_unicode_composes_them_are_refused(tmp_path):
    for name in (NFC, NFD):
        picture(tmp_path / "p" / name / "1.png")
    refused(r"'e\\u0301' and '\\xe9' in .*/p, which read the same", tmp_path)


@pytest.mark.parametrize(("on_disk", "asked"), [(NFC, NFD), (NFD, NFC)])
def test_folders_are_found_however_unicode_composes_their_names(on_disk, asked, tmp_path):
    picture(tmp_path / "p" / on_disk / "1.png")
    found = pictures(tmp_path, [asked])
    assert list(found.groups) == found.label_names == [NFC]
    section = ImageFolder.model_validate({
        "kind": "image_folder", "path": "p", "caption": "x", "partition": {"kind": "folder"},
        "sites": {"east": {"folders": [asked]}},
    })  # fmt: skip
    loaded = check(tiny(tmp_path, {"data.path": "p", "data.caption": "x", "population": {"clients": 1}}))
    _, held = holdings(loaded.scenario.model_copy(update={"data": section}), tmp_path, "east")
    assert held[0].tolist() == [0]


def test_a_folder_whose_name_is_in_another_encoding_is_refused(tmp_path):
    picture(tmp_path / "p" / "a" / "1.png")
    os.rename(tmp_path / "p" / "a", os.fsencode(tmp_path / "p") + b"/caf\xe9")
    refused(r"a folder of the name b'.*/p/caf\\xe9', expected folders' names in UTF-8", tmp_path)


def test_folders_as_deep_as_a_path_can_be_are_walked(tmp_path):
    place = str(tmp_path / "p")
    made = []
    while len(place) < 4000:
        os.mkdir(place)
        made.append(place)
        place += "/d"
    file = made[-1] + "/1.png"
    picture(tmp_path / "1.png", size=(1, 1))
    os.rename(tmp_path / "1.png", file)
    try:
        assert len(pictures(tmp_path)) == 1
    finally:  # pytest cannot remove so deep a folder
        os.unlink(file)
        for folder in reversed(made):
            os.rmdir(folder)


def test_thousands_of_files_are_found_within_a_second(tmp_path):
    for client in range(20):
        folder = tmp_path / "p" / str(client)
        folder.mkdir(parents=True)
        for i in range(250):
            (folder / f"{i}.png").touch()
        captions(folder, [(f"{i}.png", f"picture {i}") for i in range(250)])
    began = time.perf_counter()
    found = read("p", tmp_path, "data", "text", None, clients=True)
    assert time.perf_counter() - began < 1
    assert len(found) == 5000


def test_a_walk_looks_up_no_file_that_is_no_link(tmp_path, monkeypatch):
    for i in range(30):
        picture(tmp_path / "p" / "a" / f"{i}.png", size=(1, 1))
    looked_up = []
    for name in ("stat", "lstat", "readlink"):
        original = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, original=original, **k: looked_up.append(a[0]) or original(*a, **k)
        )
    assert len(Walk(tmp_path / "p", "data.path", lambda name: True).files()) == 30
    assert not [path for path in looked_up if str(path).endswith(".png")]
