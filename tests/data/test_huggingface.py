"""Data sets that the library `datasets` reads: formats, columns, partitions, what is refused; offline."""

import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import datasets
import numpy as np
import pytest
from PIL import Image

from fedray.checks import check, readable
from fedray.data import open_source
from fedray.data import tables as tables_module
from fedray.data.clients import partition
from fedray.data.sources import source
from fedray.runs.fingerprint import of_data
from fedray.scenario import Refused, ScenarioError, load
from fedray.scenario.huggingface import HuggingFace
from tests.helpers import garments, run

LABELS = ["cat", "dog"]
SHA = "a" * 40
N = 12
GREY = (12, 12)
COLOUR = (12, 12, 3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def pixels(i, shape=GREY):
    return np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)


def png(i, shape=GREY):
    file = io.BytesIO()
    Image.fromarray(pixels(i, shape)).save(file, "PNG")
    return file.getvalue()


def table(shape=GREY, n=N):
    features = {
        "img": datasets.Image(),
        "animal": datasets.ClassLabel(names=LABELS),
        "user": datasets.Value("int64"),
        "price": datasets.Value("float32"),
        "caption": datasets.Value("string"),
    }
    columns = {
        "img": [{"bytes": png(i, shape), "path": None} for i in range(n)],
        "animal": [i % 2 for i in range(n)],
        "user": [11 - i % 3 for i in range(n)],
        "price": [i / 2 for i in range(n)],
        "caption": [f"a caption of {i}" for i in range(n)],
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.fixture
def parquet(tmp_path):
    folder = tmp_path / "animals"
    folder.mkdir()
    table().to_parquet(str(folder / "train.parquet"))
    table(n=4).to_parquet(str(folder / "test.parquet"))
    return folder


def section(path="animals", columns=None, **options):
    columns = columns or {"image": "img", "label": "animal"}
    return {"kind": "huggingface", "path": path, "columns": columns, "partition": {"kind": "iid"}} | options


def opened(folder, **options):
    return source(HuggingFace.model_validate(section(**options)), folder).open("train")


def test_a_classifier_learns_a_parquet_folder_with_users_as_clients(tmp_path, parquet):
    changes = {
        "data": section(test_split="test", partition={"kind": "column", "column": "user"}),
        "population": {"clients": 3, "per_round": 3},
    }
    result = run(garments(tmp_path, changes), tmp_path / "out")
    assert result["final"]["eval_samples"] == 4
    counts = json.loads((tmp_path / "out" / "partition.json").read_text())
    assert counts["labels"] == LABELS
    loaded = check(tmp_path / "garments.yaml")
    samples = open_source(loaded.scenario.data, loaded.folder)
    held = partition(loaded.scenario, samples)
    # users 9, 10 and 11: by their size, as numbers
    assert [held[c].tolist() for c in range(3)] == [list(range(start, N, 3)) for start in (2, 1, 0)]


def test_images_are_as_they_are_stored_with_their_own_channels_and_size(tmp_path, parquet):
    samples = opened(tmp_path)
    info = source(HuggingFace.model_validate(section()), tmp_path).info
    assert (info.channels, info.size, info.label_names) == (1, 12, LABELS)
    assert np.array_equal(samples.pixels(np.arange(N), None)[:, 0], np.stack([pixels(i) for i in range(N)]))
    assert samples.labels.tolist() == [0, 1] * 6
    assert samples.captions[1] == "a photo of a dog"
    assert samples.image(0).mode == "RGB"
    table(COLOUR).to_parquet(str(parquet / "train.parquet"))
    assert np.array_equal(opened(tmp_path).pixels(np.array([3]), 12)[0].transpose(1, 2, 0), pixels(3, COLOUR))
    assert opened(tmp_path, channels=1).pixels(np.array([3]), 4).shape == (1, 1, 4, 4)


def test_a_part_of_a_split_and_captions_of_a_column(tmp_path, parquet):
    columns = {"image": "img", "caption": "caption"}
    samples = opened(tmp_path, columns=columns, split="train[2:4]")
    assert list(samples.captions) == ["a caption of 2", "a caption of 3"]


def image_folder(folder):
    for split in ("train", "test"):
        for label in LABELS:
            (folder / split / label).mkdir(parents=True)
            for i in range(2):
                (folder / split / label / f"{i}.png").write_bytes(png(i))


def json_lines(folder):
    folder.mkdir()
    (folder / "pictures").mkdir()
    lines = []
    for i in range(4):
        (folder / "pictures" / f"{i}.png").write_bytes(png(i))
        lines.append(json.dumps({"file": f"pictures/{i}.png", "label": LABELS[i // 2]}))
    (folder / "data.jsonl").write_text("\n".join(lines))


def web_dataset(folder):
    folder.mkdir()
    with tarfile.open(folder / "train-0.tar", "w") as tar:
        for i in range(4):
            for name, data in ((f"{i}.png", png(i % 2)), (f"{i}.cls", str(i // 2).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    ("make", "path", "columns", "names"),
    [
        (image_folder, "f", {"image": "image", "label": "label"}, LABELS),
        (json_lines, "f/data.jsonl", {"image": "file", "label": "label"}, LABELS),
        (web_dataset, "f", {"image": "png", "label": "cls"}, ["0", "1"]),
    ],
)
def test_folders_of_images_json_and_webdataset_are_read(tmp_path, make, path, columns, names):
    make(tmp_path / "f")
    samples = opened(tmp_path, path=path, columns=columns)
    assert samples.label_names == names
    assert samples.labels.tolist() == [0, 0, 1, 1]
    assert samples.pixels(np.arange(2), None).shape == (2, 1, 12, 12)
    assert np.array_equal(samples.pixels(np.array([0]), None)[0, 0], pixels(0))


def test_a_file_name_that_leads_out_of_its_folder_is_not_opened(tmp_path):
    json_lines(tmp_path / "f")
    (tmp_path / "f" / "data.jsonl").write_text('{"file": "../secret.png", "label": "cat"}\n')
    (tmp_path / "secret.png").write_bytes(png(0))
    samples = opened(tmp_path, path="f/data.jsonl", columns={"image": "file", "label": "label"}, channels=1)
    with pytest.raises(ValueError, match=r"sample 0 of column 'file': '\.\./secret\.png' leads out of"):
        samples.image(0)


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        ({"messages": "chat"}, {"chat": [["user", "2 + 2?"], ["assistant", "4"]]}),
        ({"prompt": "q", "completion": "a"}, {"q": "2 + 2?", "a": "4"}),
        ({"instruction": "q", "output": "a"}, {"q": "2 + 2?", "a": "4"}),
        ({"instruction": "q", "input": "x", "output": "a"}, {"q": "2 +", "x": "2?", "a": "4"}),
    ],
)
def test_columns_of_texts_are_conversations_with_their_category_and_user(tmp_path, columns, row):
    if "chat" in row:
        row = {"chat": [{"role": role, "content": content} for role, content in row["chat"]]}
    rows = [row | {"topic": topic, "user": user} for topic, user in (("sums", "b"), ("sums", "a"))]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    by_user = {"kind": "column", "column": "user"}
    columns = columns | {"label": "topic"}
    samples = opened(tmp_path, path="chats.jsonl", columns=columns, partition=by_user, input="append")
    assert samples.conversation(0) == (("user", "2 + 2?"), ("assistant", "4"))
    assert list(samples.label_names) == ["sums"]
    assert list(samples.column("user")) == ["b", "a"]


def test_texts_without_roles_are_the_assistants(tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "once"}\n{"text": " "}\n')

    def read(split):
        return opened(tmp_path, path="texts.jsonl", columns={"text": "text"}, split=split)

    assert read("train[:1]").conversation(0) == (("assistant", "once"),)
    with pytest.raises(Refused, match=r"data\.columns\.text: got row 1: no text, expected texts that say"):
        read("train")


# --- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"image": "photo"}}, "data.columns.image: got 'photo', expected a column: img, animal"),
        ({"columns": {"image": "imgs"}}, "got 'imgs', expected img (did you mean it?)"),
        (
            {"columns": {"image": "img", "label": "price"}},
            "'price', a column of fractions (float32), expected",
        ),
        ({"columns": {"image": "price"}}, "'price', a column of fractions (float32), expected images"),
        ({"columns": {"image": "img", "caption": "user"}}, "'user', a column of int64, expected a column of"),
        ({"split": "tran"}, "data.split: got 'tran' (Unknown split"),
        ({"config": "small"}, "data.config: got 'small', expected one of default"),
    ],
)
def test_columns_splits_and_configurations_that_do_not_fit_are_refused(tmp_path, parquet, options, message):
    with pytest.raises(Refused) as caught:
        opened(tmp_path, **options)
    assert message in str(caught.value)


def test_a_partition_by_an_unknown_column_or_one_of_fractions_is_refused(tmp_path, parquet):
    for column, message in (("users", r"expected user \(did you mean"), ("price", r"fractions \(float32\)")):
        by_column = {"kind": "column", "column": column}
        file = garments(tmp_path, {"data": section(partition=by_column)})
        loaded = check(file)
        with pytest.raises(Refused, match=rf"data\.partition\.column: got .*{message}"):
            readable(loaded)


def test_an_unreadable_parquet_is_named(tmp_path, parquet):
    (parquet / "test.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(Refused, match=r"data\.path: got .*test\.parquet, which cannot be read: .*Parquet"):
        opened(tmp_path)


def test_a_damaged_image_and_one_in_colour_among_grey_ones_are_named(tmp_path):
    folder = tmp_path / "animals"
    folder.mkdir()
    images = [{"bytes": png(i), "path": None} for i in range(N)]
    images[3]["bytes"] = b"none"
    images[5]["bytes"] = png(5, COLOUR)
    rows = table().remove_columns("img").add_column("img", images).cast_column("img", datasets.Image())
    rows.to_parquet(str(folder / "train.parquet"))
    with pytest.raises(ScenarioError) as caught:
        readable(check(garments(tmp_path, {"data": section()})))
    assert any("sample 3 of column 'img' cannot be read as an image" in p for p in caught.value.problems)
    assert any("sample 5 of column 'img' is in colour" in p for p in caught.value.problems)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "owner/animals"}, "data: got name and path"),
        ({"path": None}, "data: got neither name nor path"),
        ({"revision": "v1"}, "data.revision: got 'v1' of files at path"),
        ({"streaming": True}, "data.streaming: got True, expected false: which client has which sample is"),
        ({"columns": {"image": "img"}}, "data.columns.label: got none, expected a column of labels, which"),
        ({"columns": {"label": "animal"}}, "data.columns: got none of samples, expected one of image, mess"),
        ({"columns": {"prompt": "q"}}, "data.columns: got prompt without completion"),
        ({"columns": {"messages": "m", "caption": "c"}}, "data.columns.caption: got 'c' without image"),
        ({"input": "append"}, "data.input: got append, expected none without columns.instruction"),
        ({"partition": {"kind": "folder"}}, "data.partition.kind: got folder for a data set without folders"),
    ],
)
def test_combinations_are_refused_before_anything_is_opened(tmp_path, options, message):
    with pytest.raises(ScenarioError) as caught:
        load(garments(tmp_path, {"data": {k: v for k, v in section(**options).items() if v is not None}}))
    assert any(message in problem for problem in caught.value.problems), caught.value.problems


def test_check_says_what_to_install_and_that_a_folder_is_missing(tmp_path, monkeypatch):
    with pytest.raises(ScenarioError, match=r"data\.path: got 'animals', expected a file or a folder"):
        check(garments(tmp_path, {"data": section()}))
    monkeypatch.setattr(tables_module, "find_spec", lambda name: None)
    with pytest.raises(ScenarioError, match=r"without the package datasets, expected pip install 'fedray"):
        check(garments(tmp_path, {"data": section()}))


# --- the hub


class Hub(BaseHTTPRequestHandler):
    """It has a repository without the revision that is asked for."""

    def do_GET(self):
        self.send_response(404)
        self.send_header("X-Error-Code", "RevisionNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub

    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def of_hub(**options):
    return section(path=None, name="owner/animals", **options) | {"revision": "v9"}


def test_a_revision_that_the_hub_does_not_have_is_refused(tmp_path, hub):
    data = {k: v for k, v in of_hub().items() if v is not None}
    loaded = check(garments(tmp_path, {"data": data}))
    with pytest.raises(Refused, match=r"data\.revision: got 'v9', expected a branch, tag or commit of owner"):
        open_source(loaded.scenario.data, loaded.folder)


@pytest.fixture
def cached(tmp_path):
    """What `datasets` leaves in its cache of a data set of the hub."""
    place = tmp_path / "cache" / "owner___animals" / "default" / "0.0.0" / SHA
    place.mkdir(parents=True)
    rows = table()
    file = place / "animals-train.arrow"
    with datasets.arrow_writer.ArrowWriter(path=str(file), features=rows.features) as writer:
        writer.write_table(rows.data.table)
        writer.finalize()
    split = datasets.SplitInfo(name="train", num_examples=N, dataset_name="animals")
    info = datasets.DatasetInfo(
        features=rows.features,
        splits=datasets.SplitDict({"train": split}),
        dataset_name="animals",
        config_name="default",
        version="0.0.0",
    )
    info.write_to_directory(str(place))


def test_offline_the_cache_has_to_do_and_another_revision_is_refused(tmp_path, cached):
    def read(**revision):
        data = {k: v for k, v in of_hub().items() if k not in ("path", "revision")} | revision
        loaded = check(garments(tmp_path, {"data": data}))
        return open_source(loaded.scenario.data, loaded.folder)

    assert len(read()) == len(read(revision=SHA)) == N
    with pytest.raises(
        Refused, match=rf"data\.revision: got 'v2', where the hub .* the cache has commit {SHA}"
    ):
        read(revision="v2")
    with pytest.raises(Refused, match=r"data\.name: got 'owner/others' .*expected a data set of the hub"):
        read(name="owner/others")


def test_the_same_images_in_another_file_are_the_same_data_and_others_are_not(tmp_path, parquet):
    def digest():
        loaded = check(garments(tmp_path, {"data": section()}))
        return of_data(*readable(loaded))["contents of samples"]

    before = digest()
    (parquet / "train.parquet").rename(parquet / "train-00000-of-00001.parquet")
    assert digest() == before
    table().shuffle(seed=1).to_parquet(str(parquet / "train-00000-of-00001.parquet"))
    assert digest() != before
