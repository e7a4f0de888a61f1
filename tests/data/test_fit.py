"""Images of any shape: cut, padded, or in buckets of shapes, whose batches have one shape; captions beside
them."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedray.data import open_source
from fedray.data.fitting import buckets, nearest
from fedray.data.image_folder import read
from fedray.data.sources import source
from fedray.executors.turn import batches, in_chunks
from fedray.learners.families.sdxl import StableDiffusionXL
from fedray.learners.latents import LatentBuckets
from fedray.learners.learners import load as loaded_learner
from fedray.scenario import Refused, ScenarioError, load
from fedray.scenario.huggingface import HuggingFace
from fedray.terminal import Quiet
from tests.data.test_image_folder import captions, picture
from tests.helpers import UNSEEN, job_of, run, tiny, unevaluated

# --- captions beside images


def write_csv(folder, rows):
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", "text"])
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(folder, rows):
    pq.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_captions_of_csv_and_parquet_are_those_that_datasets_reads(tmp_path, write, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "p"
    for name in ("1.png", "a/2.png"):
        picture(folder / name)
    rows = [{"file_name": "1.png", "text": 'a "red",\ntwo-lined'}, {"file_name": "a/2.png", "text": "two"}]
    write(folder, rows)
    columns = {"image": "image", "caption": "text"}
    data = {"kind": "huggingface", "path": "p", "columns": columns, "partition": {"kind": "iid"}}
    theirs = source(HuggingFace.model_validate(data), tmp_path).open("train").captions
    assert (
        list(read("p", tmp_path, "data", "text", None).captions) == list(theirs) == [r["text"] for r in rows]
    )


def test_a_text_beside_an_image_is_its_caption_unless_metadata_has_one(tmp_path):
    for name in ("1.png", "2.jpg", "a/3.png"):
        picture(tmp_path / "p" / name)
    captions(tmp_path / "p", [("2.jpg", "of metadata")])
    (tmp_path / "p" / "1.txt").write_text("a cat,\n  on a mat\n", encoding="utf-8-sig")
    (tmp_path / "p" / "2.txt").write_text("of a text")
    (tmp_path / "p" / "a" / "3.txt").write_text("in a folder")
    found = read("p", tmp_path, "data", "text", None)
    assert list(found.captions) == ["a cat, on a mat", "of metadata", "in a folder"]
    assert set(read("p", tmp_path, "data", "text", "").captions) == {"", "of metadata"}  # none is needed


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", b"file_name,text\n1.png\n", r"metadata\.csv:2: .*expected \{"),
        ("metadata.csv", b'file_name,text\n1.png,"a"b"\n', r"metadata\.csv:2: .* expected comma-separated"),
        ("metadata.csv", b"file_name,text\n9.png,a\n", r"metadata\.csv:2: '9\.png', which is missing"),
        (
            "metadata.csv",
            b"\xff\xfe",
            r"metadata\.csv, which cannot be read: .*expected comma-separated",
        ),
        ("metadata.parquet", b"PAR1", r"metadata\.parquet, which cannot be read: .*expected a parquet file"),
        ("1.txt", b" \n", r"1\.txt without a caption, expected text in it"),
        ("1.txt", b"\xff", r"1\.txt, which cannot be read: .*expected a caption in UTF-8"),
    ],
)
def test_captions_that_cannot_be_read_are_refused_by_file_and_line(tmp_path, name, content, message):
    picture(tmp_path / "p" / "1.png")
    (tmp_path / "p" / name).write_bytes(content)
    with pytest.raises(Refused, match=message):
        read("p", tmp_path, "data", "text", None)


def test_two_files_of_captions_in_one_folder_are_refused(tmp_path):
    picture(tmp_path / "p" / "1.png")
    captions(tmp_path / "p", [("1.png", "one")])
    write_csv(tmp_path / "p", [{"file_name": "1.png", "text": "two"}])
    with pytest.raises(Refused, match=r"metadata\.csv and metadata\.jsonl beside it, expected one of them"):
        read("p", tmp_path, "data", "text", None)


# --- shapes


class Killing(Quiet):
    """Ends a run after its first round."""

    def on_round(self, report):
        raise KeyboardInterrupt


def test_padding_shows_all_of_an_image_on_white(tmp_path):
    (tmp_path / "p").mkdir()
    Image.new("RGB", (40, 20), "black").save(tmp_path / "p" / "1.png")
    changes = {"data": {"kind": "image_folder", "path": "p", "caption": "x", "partition": {"kind": "iid"}}}
    changes["population"] = {"clients": 1}
    changes["data"]["fit"] = "pad"
    loaded = load(tiny(tmp_path, changes))
    (pixels,) = open_source(loaded.scenario.data, tmp_path).pixels(np.array([0]), 8)
    assert (pixels[:, 2:6] == 0).all()
    assert (pixels[:, :2] == 255).all()
    assert (pixels[:, 6:] == 255).all()
    rows = StableDiffusionXL.image_conditions(FakeFamily, [(40, 20)], 8, None, True)["time_ids"]
    assert rows.tolist() == [[20, 40, 0, 0, 8, 8]]


class FakeFamily:
    device = torch.device("cpu")


# Podell et al. 2023, Appendix I: short sides by the long one
TABLE = {2048: [512], 1984: [512], 1920: [512], 1856: [512], 1792: [576], 1728: [576], 1664: [576]}
TABLE |= {1600: [640], 1536: [640], 1472: [704], 1408: [704], 1344: [704, 768], 1280: [768], 1216: [832]}
TABLE |= {1152: [832, 896], 1088: [896, 960], 1024: [960, 1024]}
SDXL = {(short, long) for long, shorts in TABLE.items() for short in shorts}


def test_buckets_of_1024_pixels_are_among_those_of_sdxl_and_have_no_more_pixels():
    ours = buckets(1024, 64)
    assert {tuple(sorted(shape)) for shape in ours} < SDXL
    assert max(w * h for w, h in ours) == 1024 * 1024
    assert min(w * h for w, h in ours) > 0.89 * 1024 * 1024
    assert ours[nearest((100, 100), ours)] == (1024, 1024)
    assert ours[nearest((3000, 2000), ours)] == (1216, 832)
    assert ours[nearest((100, 1000), ours)] == (512, 2048)


@given(
    groups=st.lists(st.integers(0, 3), min_size=1, max_size=30).map(np.array),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=20),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_a_batch_has_samples_of_one_group_each_equally_often(groups, sizes, seed):
    order = batches(sizes, len(groups), np.random.default_rng(seed), groups)
    assert [len(batch) for batch in order] == sizes
    for batch in order:
        assert len(set(groups[batch])) == 1
    for group in set(groups):  # the samples of a group are used up before one is used again
        used = np.concatenate([batch for batch in order if groups[batch[0]] == group] or [np.empty(0, int)])
        counts = np.bincount(used, minlength=len(groups))[groups == group]
        assert counts.max() - counts.min() <= 1
    alike = np.zeros(len(groups), int)
    plain = batches(sizes, len(groups), np.random.default_rng(seed))
    one = batches(sizes, len(groups), np.random.default_rng(seed), alike)
    assert all(np.array_equal(a, b) for a, b in zip(one, plain, strict=True))
    chunks = list(in_chunks(LatentBuckets([], groups, groups), len(groups), 4))
    assert sorted(np.concatenate(chunks).tolist()) == list(range(len(groups)))
    assert all(len(chunk) <= 4 and len(set(groups[chunk])) == 1 for chunk in chunks)


@pytest.fixture
def shapes(tmp_path):
    """Two clients of wide, square and high pictures."""
    colours = np.random.default_rng(0)
    for client in ("a", "b"):
        (tmp_path / "shapes" / client).mkdir(parents=True)
        for i, size in enumerate([(96, 32), (90, 32), (40, 40), (30, 64)]):
            pixels = colours.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "shapes" / client / f"{i}.png")
    data = {"kind": "image_folder", "path": "shapes", "caption": "a shape", "partition": {"kind": "folder"}}
    return {
        "data": data | {"fit": "bucket"},
        "population": {"clients": 2},
        "training.batch_size": 2,
        "training.local_steps": 2,
        **UNSEEN,
    }


def test_each_image_is_encoded_in_the_shape_that_is_nearest_to_its_own(tmp_path, shapes):
    _, job = job_of(tiny(tmp_path, shapes | {"data.augment": ["flip"]}))
    learner = loaded_learner(job.scenario, job.folder, torch.device("cpu"), torch.float32, job.dataset)
    shard = learner.encode_client(0, job.dataset.train, np.arange(4))
    factor = learner.family.latent_factor
    shapes_of = [tuple(s * factor for s in one.mean.shape[:1:-1]) for one in shard.shards]
    assert set(shapes_of) <= set(learner.buckets)
    assert [shapes_of[group] for group in shard.groups] == [
        learner.buckets[nearest(size, learner.buckets)] for size in [(96, 32), (90, 32), (40, 40), (30, 64)]
    ]
    draws = torch.Generator().manual_seed(0)
    batch = learner.draw_training(shard, np.array([1, 0]), draws)
    assert batch.latents.shape[2] < batch.latents.shape[3]
    assert torch.isfinite(learner.loss(batch))
    square = learner.encode(job.dataset.train, np.arange(4))
    assert square.mean.shape[1:] == learner.latent_shape  # evaluation's


def test_buckets_train_the_same_weights_whole_and_resumed(tmp_path, shapes):
    file = tiny(tmp_path, shapes | {"topology": {"kind": "parallel"}})
    with unevaluated():
        whole = run(file, tmp_path / "whole")
        with pytest.raises(KeyboardInterrupt):
            run(file, tmp_path / "killed", callback=Killing())
        resumed = run(file, tmp_path / "killed", resume=True)
    assert resumed["weights_sha256"] == whole["weights_sha256"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.prior": {"prompt": "a shape", "images": 2}}, "data.fit: got bucket for a text_to_image"),
        ({"runtime": {"executor": "serial", "gang": 2}}, "data.fit: got bucket with runtime.gang 2"),
        (
            {"topology": {"kind": "split", "cut": "auto"}},
            "data.fit: got bucket in a split, expected crop",
        ),
        ({"data.fit": "stretch"}, "data.fit: got 'stretch', expected 'crop', 'pad' or 'bucket'"),
    ],
)
def test_buckets_are_refused_where_all_images_have_one_size(tmp_path, shapes, changes, message):
    with pytest.raises(ScenarioError) as caught:
        load(tiny(tmp_path, shapes | changes))
    assert any(message in problem for problem in caught.value.problems), caught.value.problems


def test_a_resolution_whose_latents_a_u_net_cannot_halve_is_refused_buckets(tmp_path, shapes):
    _, job = job_of(tiny(tmp_path, shapes | {"model.resolution": 36}))
    with pytest.raises(Refused, match=r"model\.resolution: got 36 with buckets, expected a multiple of"):
        loaded_learner(job.scenario, job.folder, torch.device("meta"), torch.float32, job.dataset)
