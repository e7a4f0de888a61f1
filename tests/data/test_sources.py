"""Data sets as their authors and torchvision leave them: read right, never run, and refused by name where
they are damaged."""

import gzip
import itertools
import os
import pickle
import struct
import sys
import tracemalloc
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from fedray.data import dataset_info, open_source
from fedray.data.cifar import NAMES
from fedray.data.sources import to_download
from fedray.scenario import Refused
from fedray.scenario.data import Data

SECTIONS = TypeAdapter(Data)


def section(kind, **options):
    return SECTIONS.validate_python({"kind": kind, "partition": {"kind": "iid"}, **options})


def opened(kind, folder, split="train", **options):
    return open_source(section(kind, path="data", **options), folder, split)


def numbers(*shape, below=256, seed=0):
    return np.random.default_rng(seed).integers(0, below, shape, dtype=np.uint8)


def put(file, data):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


# --- Fashion-MNIST


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def garments(place, n=12, gz=True, seed=0):
    """Its four files, n to train on and n + 1 to test on: {split: (images, labels)}."""
    made = {}
    for split, prefix, size in (("train", "train", n), ("test", "t10k", n + 1)):
        images, labels = numbers(size, 28, 28, seed=seed + size), numbers(size, below=10, seed=seed + size)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            name, data = f"{prefix}-{kind}-ubyte", idx(array)
            put(place / (f"{name}.gz" if gz else name), gzip.compress(data) if gz else data)
        made[split] = images, labels
    return made


@pytest.mark.parametrize("where", [".", "FashionMNIST/raw"])
@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("split", ["train", "test"])
def test_fashion_mnist_is_read_from_debians_or_torchvisions_folder_gzipped_or_not(where, gz, split, tmp_path):
    images, labels = garments(tmp_path / "data" / where, gz=gz)[split]
    found = opened("fashion_mnist", tmp_path, split)
    assert len(found) == len(labels)
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == labels.tolist()
    assert np.array_equal(found.pixels(np.arange(len(labels)), None), images[:, None])
    assert found.pixels(np.array([3, 1]), 28).shape == (2, 1, 28, 28)
    assert list(found.label_names) == list(dataset_info(section("fashion_mnist"), tmp_path).label_names)


def test_a_path_may_be_absolute(tmp_path):
    _, labels = garments(tmp_path / "data")["train"]
    found = open_source(section("fashion_mnist", path=str(tmp_path / "data")), tmp_path / "elsewhere")
    assert found.labels.tolist() == labels.tolist()


def test_a_garment_of_32_pixels_is_one_of_28_with_a_black_border(tmp_path):
    images, labels = garments(tmp_path / "data")["train"]
    found = opened("fashion_mnist", tmp_path)
    padded = found.pixels(np.arange(12), 32)
    assert padded.shape == (12, 1, 32, 32)
    assert np.array_equal(padded[:, 0, 2:-2, 2:-2], images)
    assert padded.sum(dtype=int) == images.sum(dtype=int)
    picture = found.image(5)
    assert (picture.mode, picture.size) == ("RGB", (32, 32))
    assert np.array_equal(np.asarray(picture), np.repeat(padded[5, 0, :, :, None], 3, 2))
    assert found.pixels(np.arange(2), 14).shape == (2, 1, 14, 14)
    assert found.captions[0] == f"a photo of {'an' if labels[0] == 9 else 'a'} {found.label_names[labels[0]]}"


def test_the_shipped_garments_are_2500_and_500_others_all_kinds_alike():
    train, test = (open_source(section("fashion_mnist_mini"), None, split) for split in ("train", "test"))
    assert np.bincount(train.labels).tolist() == [250] * 10
    assert np.bincount(test.labels).tolist() == [50] * 10
    seen = {picture.tobytes() for picture in train.pixels(np.arange(2500), 28)}
    assert not any(picture.tobytes() in seen for picture in test.pixels(np.arange(500), 28))


@pytest.mark.parametrize("gone", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "everything"])
def test_fashion_mnist_that_is_not_there_is_refused_with_the_package_that_has_it(gone, tmp_path):
    if gone != "everything":
        garments(tmp_path / "data")
        (tmp_path / "data" / gone).unlink()
    with pytest.raises(
        Refused, match=r"apt install dataset-fashion-mnist, or data: \{download: true\}"
    ) as refused:
        opened("fashion_mnist", tmp_path)
    assert refused.value.key == "data.path"
    assert str(tmp_path / "data") in refused.value.got


def damaged(data):
    """A file's bytes, damaged in many ways."""
    yield b""
    yield b"<html>not found</html>"
    for cut in (1, 3, 4, 7, 8, 11, len(data) // 2, len(data) - 1):
        yield data[:cut]


def test_damaged_labels_are_refused_and_damaged_images_raise_when_they_are_loaded(tmp_path):
    garments(tmp_path / "data", gz=False)
    for kind in ("labels-idx1", "images-idx3"):
        file = tmp_path / "data" / f"train-{kind}-ubyte"
        whole = file.read_bytes()
        wrong_type, too_long = whole[:2] + b"\x0d" + whole[3:], whole + b"\0"
        for data in [*damaged(whole), wrong_type, too_long]:
            file.write_bytes(data)
            if kind == "labels-idx1":
                with pytest.raises(
                    Refused, match=r"which cannot be read: .*whole files of Fashion-MNIST"
                ) as caught:
                    opened("fashion_mnist", tmp_path)
                assert caught.value.key == "data.path"
            else:
                found = opened("fashion_mnist", tmp_path)
                with pytest.raises(ValueError, match="which cannot be read: ") as caught:
                    found.load()
            assert str(file) in str(caught.value)
        file.write_bytes(whole)


def test_gzipped_files_that_end_early_or_are_no_gzip_are_refused(tmp_path):
    garments(tmp_path / "data")
    file = tmp_path / "data" / "train-labels-idx1-ubyte.gz"
    whole = file.read_bytes()
    wrong_sum = whole[:-8] + bytes(b ^ 255 for b in whole[-8:-4]) + whole[-4:]
    for data in [*damaged(whole), gzip.decompress(whole), gzip.compress(b"short"), wrong_sum]:
        file.write_bytes(data)
        with pytest.raises(Refused, match="which cannot be read: ") as refused:
            opened("fashion_mnist", tmp_path)
        assert str(file) in str(refused.value)


def test_the_form_of_a_set_is_known_without_its_files(tmp_path):
    known = {
        "fashion_mnist": (1, 28, 10),
        "fashion_mnist_mini": (1, 28, 10),
        "cifar10": (3, 32, 10),
        "cifar100": (3, 32, 100),
        "celeba": (3, None, 2),
    }
    for kind, expected in known.items():
        found = dataset_info(section(kind, **{} if kind.endswith("mini") else {"path": "data"}), tmp_path)
        assert (found.channels, found.size, len(found.label_names)) == expected


# --- CIFAR

FILES = {
    ("cifar10", "train"): [f"cifar-10-batches-py/data_batch_{i}" for i in (1, 2, 3, 4, 5)],
    ("cifar10", "test"): ["cifar-10-batches-py/test_batch"],
    ("cifar100", "train"): ["cifar-100-python/train"],
    ("cifar100", "test"): ["cifar-100-python/test"],
}


def binary(name):
    return name.replace("batches-py", "batches-bin").replace("100-python", "100-binary") + ".bin"


def batch(kind, n, seed=0):
    """What a file holds: pictures [n, 3072] and, of cifar100, two labels each; all of its keys, in the order
    they stand in."""
    pictures = numbers(n, 3072, seed=seed)
    filenames = [f"some_picture_s_{i:06}.png" for i in range(n)]
    if kind == "cifar10":
        labels = numbers(n, below=10, seed=seed + 1).tolist()
        return {
            "batch_label": "training batch 1 of 5",
            "labels": labels,
            "data": pictures,
            "filenames": filenames,
        }
    fine, coarse = (numbers(n, below=below, seed=seed + below).tolist() for below in (100, 20))
    return {
        "filenames": filenames,
        "batch_label": "training batch 1 of 1",
        "fine_labels": fine,
        "coarse_labels": coarse,
        "data": pictures,
    }


def python2(content):
    """The pickle that Python 2 and numpy made of it: protocol 2, byte strings, lists in batches of 1,000."""
    memo = iter(range(1, 1 << 30))

    def put():
        i = next(memo)
        return b"q" + bytes([i]) if i < 256 else b"r" + struct.pack("<I", i)

    def string(text):
        return b"U" + bytes([len(text)]) + text.encode() + put()

    def listed(items, one):
        batches = [items[i : i + 1000] for i in range(0, len(items), 1000)]
        return b"]" + put() + b"".join(b"(" + b"".join(map(one, part)) + b"e" for part in batches)

    def array(x):
        made = (
            b"cnumpy.core.multiarray\n_reconstruct\n"
            + put()
            + b"cnumpy\nndarray\n"
            + put()
            + b"K\0\x85U\x01b\x87R"
            + put()
        )
        shape = b"M" + struct.pack("<H", len(x)) + b"M" + struct.pack("<H", 3072) + b"\x86"
        kind = (
            b"cnumpy\ndtype\n"
            + put()
            + b"U\x02u1K\0K\x01\x87R"
            + put()
            + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        )
        return made + b"(K\x01" + shape + kind + b"\x89T" + struct.pack("<I", x.nbytes) + x.tobytes() + b"tb"

    def value(v):
        if isinstance(v, np.ndarray):
            return array(v)
        if isinstance(v, str):
            return string(v)
        return listed(v, string if isinstance(v[0], str) else lambda i: b"K" + bytes([i]))

    return b"\x80\x02}" + put() + b"(" + b"".join(string(k) + value(v) for k, v in content.items()) + b"u."


def python3(content, protocol=2, keys=str):
    def text(v):
        return v.encode() if keys is bytes and isinstance(v, str) else v

    return pickle.dumps(
        {text(k): list(map(text, v)) if isinstance(v, list) else text(v) for k, v in content.items()},
        protocol,
    )


def rows(content):
    """The binary version."""
    labels = [content[k] for k in ("coarse_labels", "fine_labels", "labels") if k in content]
    return b"".join(
        bytes(row) + picture.tobytes() for *row, picture in zip(*labels, content["data"], strict=True)
    )


def labels_of(content):
    return content["labels"] if "labels" in content else content["fine_labels"]


def test_the_files_these_tests_make_are_what_python_2_made():
    content = batch("cifar100", 300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core has another name now
        read = pickle.loads(python2(content), encoding="latin1")
    assert np.array_equal(read.pop("data"), content.pop("data"))
    assert read == content


WRITERS = {
    "Python 2's": python2,
    "text, protocol 2": python3,
    "bytes, protocol 2": lambda content: python3(content, keys=bytes),
    "text, protocol 0": lambda content: python3(content, 0),
    "bytes, protocol 3": lambda content: python3(content, 3, bytes),
    "text, protocol 4": lambda content: python3(content, 4),
    "binary": rows,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("kind", "split"), FILES)
def test_cifar_is_read_as_its_authors_pickled_it_and_in_its_binary_version(kind, split, writer, tmp_path):
    contents = [batch(kind, n, seed=n) for n in (1, 300, 2, 17, 64)[: len(FILES[kind, split])]]
    for name, content in zip(FILES[kind, split], contents, strict=True):
        put(tmp_path / "data" / (binary(name) if writer == "binary" else name), WRITERS[writer](content))
    found = opened(kind, tmp_path, split)
    pictures = np.concatenate([content["data"] for content in contents]).reshape(-1, 3, 32, 32)
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == list(itertools.chain(*map(labels_of, contents)))
    assert len(found) == len(pictures)
    assert np.array_equal(found.pixels(np.arange(len(pictures)), None), pictures)
    assert np.array_equal(np.asarray(found.image(0)), pictures[0].transpose(1, 2, 0))
    assert found.pixels(np.array([0]), 16).shape == (1, 3, 16, 16)


def test_cifars_classes_are_its_authors():
    assert NAMES["cifar10"] == (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    fine = NAMES["cifar100"]
    assert len(set(fine)) == 100
    assert list(fine) == sorted(fine)
    assert [fine[i] for i in (0, 1, 50, 99)] == ["apple", "aquarium fish", "mouse", "worm"]


class Attack:
    """Unpickled, it makes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch '{self.file}'",)


@pytest.mark.parametrize("at", ["first", "last", "for data"])
def test_a_pickle_that_would_run_something_runs_nothing(at, tmp_path):
    touched, content = tmp_path / "touched", batch("cifar10", 3)
    if at == "for data":
        content["data"] = Attack(touched)
    else:
        content = {"x": Attack(touched)} | content if at == "first" else content | {"x": Attack(touched)}
    data = pickle.dumps(content, 2)
    file = put(tmp_path / "data" / "cifar-10-batches-py" / "test_batch", data)
    if at == "for data":
        with pytest.raises(Refused, match="test_batch"):
            opened("cifar10", tmp_path, "test")
    else:
        found = opened("cifar10", tmp_path, "test")
        assert found.labels.tolist() == content["labels"]
        assert np.array_equal(found.load().reshape(3, 3072), content["data"])
    assert not touched.exists()
    pickle.loads(file.read_bytes())
    assert touched.exists()  # it would have


@pytest.mark.parametrize(
    "data",
    [
        b"(S'touch {}'\nios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nU\x00o.",  # OBJ
        b"\x80\x02cos\nsystem\n)\x81}U\x00NsN\x86b.",  # NEWOBJ, BUILD with slots
        b"\x80\x02cos\nsystem\n}b.",  # BUILD on what is named itself
        b"\x80\x02cos\nsystem\n)R]q\x01h\x01a\x85b.",  # a list that contains itself
        b"\x80\x02cos\nsystem\n)Rq\x01h\x01\x85b}(h\x01Nu.",  # a key made from itself
        b"Pnumber\n.",  # a persistent id
        b"\x80\x02\x82\x01.",  # an extension code
        b"\x80\x02}(U\x06labels](K\x01N\x88eU\x04datacos\nsystem\n)Ru.",
        b"\x80\x02}(U\x06labels]I99999999999999999999\naU\x04datacos\nsystem\nU\x01x\x85Ru.",
    ],
)
def test_no_opcode_runs_anything_and_a_pickle_of_something_else_is_refused(data, tmp_path):
    touched = tmp_path / "touched"
    put(
        tmp_path / "data" / "cifar-10-batches-py" / "test_batch",
        data.replace(b"{}", str(touched).encode()),
    )
    with pytest.raises(Refused, match=r"test_batch, which cannot be read"):
        opened("cifar10", tmp_path, "test")
    assert not touched.exists()


def test_a_damaged_pickle_takes_no_memory_that_it_has_no_bytes_for(tmp_path):
    put(
        tmp_path / "data" / "cifar-10-batches-py" / "test_batch",
        b"\x80\x02Nr\xff\xff\xff\x07.",  # the memo's place 134,217,727
    )
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match=r"test_batch, which cannot be read"):
            opened("cifar10", tmp_path, "test")
        assert tracemalloc.get_traced_memory()[1] < 1e7
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_that_is_not_there_is_refused_with_what_to_download(kind, tmp_path):
    stem = {"cifar10": "cifar-10", "cifar100": "cifar-100"}[kind]
    with pytest.raises(
        Refused, match=rf"{stem}-binary.tar.gz of cs.toronto.edu/~kriz/cifar.html.*data: {{download: true}}"
    ) as refused:
        opened(kind, tmp_path)
    assert refused.value.key == "data.path"
    assert FILES[kind, "train"][0].split("/")[0] in refused.value.expected


def test_one_missing_batch_is_refused_and_the_binary_version_stands_in(tmp_path):
    content = batch("cifar10", 2)
    for name in FILES["cifar10", "train"]:
        put(tmp_path / "data" / name, python2(content))
    (tmp_path / "data" / FILES["cifar10", "train"][2]).unlink()
    with pytest.raises(Refused, match=r"cifar-10-binary\.tar\.gz"):
        opened("cifar10", tmp_path)
    other = batch("cifar10", 3, seed=5)
    for name in FILES["cifar10", "train"]:
        put(tmp_path / "data" / binary(name), rows(other))
    assert opened("cifar10", tmp_path).labels.tolist() == other["labels"] * 5


@pytest.mark.parametrize(
    "writer", ["Python 2's", "text, protocol 2", "text, protocol 0", "bytes, protocol 3", "binary"]
)
@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_a_damaged_cifar_file_is_refused_by_name(kind, writer, tmp_path):
    whole = WRITERS[writer](batch(kind, 5))
    name = FILES[kind, "test"][0]
    file = tmp_path / "data" / (binary(name) if writer == "binary" else name)
    others = [whole + b"\0"] if writer == "binary" else [pickle.dumps({"labels": [1, 2]}), pickle.dumps([1])]
    for data in [*damaged(whole), *others]:
        put(file, data)
        with pytest.raises(Refused, match="whole files of cifar-10") as refused:
            opened(kind, tmp_path, "test")
        assert refused.value.key == "data.path"
        assert str(file) in refused.value.got


def test_as_many_labels_as_pictures_are_asked_for(tmp_path):
    content = batch("cifar10", 5)
    for labels in (content["labels"][:4], [*content["labels"], 1], []):
        put(tmp_path / "data" / FILES["cifar10", "test"][0], python3(content | {"labels": labels}))
        with pytest.raises(Refused, match=rf"test_batch, which has 5 pictures and {len(labels)} labels"):
            opened("cifar10", tmp_path, "test")


def test_a_cifar_file_that_is_gone_when_it_is_loaded_is_an_error_that_names_it(tmp_path):
    file = put(tmp_path / "data" / FILES["cifar10", "test"][0], python2(batch("cifar10", 5)))
    found = opened("cifar10", tmp_path, "test")
    file.unlink()
    with pytest.raises(ValueError, match=r"test_batch, which cannot be read: No such file"):
        found.load()


# --- CelebA

ATTRIBUTES = ["Bald", "Male", "Smiling", "Wavy_Hair"]
FACES = {  # its part, and what it has
    "000001.jpg": ("0", [1, 1, -1, -1]),
    "000002.jpg": ("0", [-1, -1, 1, 1]),
    "000003.jpg": ("1", [1, 1, 1, 1]),
    "000004.jpg": ("2", [-1, 1, -1, 1]),
    "000005.jpg": ("0", [-1, 1, 1, -1]),
    "000006.jpg": ("2", [-1, -1, -1, -1]),
}


def celeba(root):
    """torchvision's layout; those who have "Male" are white, the others black."""
    place = root / "celeba"
    (place / "img_align_celeba").mkdir(parents=True, exist_ok=True)
    for name, (_, has) in FACES.items():
        Image.new("RGB", (178, 218), (255,) * 3 if has[1] == 1 else 0).save(place / "img_align_celeba" / name)
    lines = [f"{name} {' '.join(f'{value:>2}' for value in has)}" for name, (_, has) in FACES.items()]
    (place / "list_attr_celeba.txt").write_text(
        "\n".join([str(len(FACES)), " ".join(ATTRIBUTES) + " ", *lines]) + "\n"
    )
    (place / "list_eval_partition.txt").write_text(
        "".join(f"{name} {part}\n" for name, (part, _) in FACES.items())
    )
    return place


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize(("split", "part"), [("train", "0"), ("test", "2")])
def test_celebas_faces_are_labelled_by_whether_they_have_the_attribute(attribute, split, part, tmp_path):
    celeba(tmp_path / "data")
    found = opened("celeba", tmp_path, split, attribute=attribute)
    mine = [(name, has) for name, (p, has) in FACES.items() if p == part]
    assert [file.name for file in found.files] == [name for name, _ in mine]
    assert found.labels.tolist() == [int(has[ATTRIBUTES.index(attribute)] == 1) for _, has in mine]
    word = attribute.replace("_", " ").lower()
    assert list(found.label_names) == [f"not {word}", word]
    assert list(found.captions) == [f"a photo of a face, {found.label_names[k]}" for k in found.labels]


def test_celebas_images_are_the_faces_they_are_named_by(tmp_path):
    celeba(tmp_path / "data")
    found = opened("celeba", tmp_path)
    assert found.image(0).size == (178, 218)
    pixels = found.pixels(np.arange(3), 16)
    assert pixels.shape == (3, 3, 16, 16)
    assert pixels.dtype == np.uint8
    assert [round(x.mean() / 255) for x in pixels] == found.labels.tolist() == [1, 0, 1]
    assert dataset_info(section("celeba", path="data"), tmp_path).channels == 3


def test_an_unknown_attribute_is_answered_with_those_there_are(tmp_path):
    celeba(tmp_path / "data")
    with pytest.raises(Refused, match=r"'Beard'.* one of Bald, Male, Smiling, Wavy_Hair"):
        opened("celeba", tmp_path, attribute="Beard")


@pytest.mark.parametrize(
    "gone", ["list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba", "everything"]
)
def test_celeba_that_is_not_there_is_refused_with_its_layout(gone, tmp_path):
    if gone != "everything":
        (celeba(tmp_path / "data") / gone).rename(tmp_path / "away")
    with pytest.raises(
        Refused,
        match=r"celeba/img_align_celeba/, list_eval_partition.txt, list_attr_celeba.txt, or data: {download",
    ) as refused:
        opened("celeba", tmp_path)
    assert refused.value.key == "data.path"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("list_attr_celeba.txt", ""),
        ("list_attr_celeba.txt", "6\n"),
        ("list_attr_celeba.txt", "6\nMale\n000001.jpg 1\n"),  # not every face
        # a short line
        ("list_attr_celeba.txt", "2\nBald Male\n000001.jpg 1 1\n000002.jpg 1\n000005.jpg 1 1\n"),
        ("list_attr_celeba.txt", b"\xff\xfe\x00"),
        ("list_eval_partition.txt", ""),
        ("list_eval_partition.txt", "000001.jpg\n"),
        ("list_eval_partition.txt", "no_such.jpg 0\n"),
        ("list_eval_partition.txt", "000001.jpg 0\n000002.jpg three\n"),
        ("list_eval_partition.txt", "000001.jpg 0\n000001.jpg 0\n"),
        ("list_eval_partition.txt", "../list_attr_celeba.txt 0\n"),
        ("list_eval_partition.txt", b"\xff\xfe\x00"),
    ],
)
def test_celebas_lists_that_do_not_fit_are_refused(file, text, tmp_path):
    put(celeba(tmp_path / "data") / file, text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Refused, match="whole files of CelebA") as refused:
        opened("celeba", tmp_path)
    assert refused.value.key == "data.path"
    assert str(tmp_path / "data" / "celeba") in refused.value.got


def test_a_line_whose_face_is_gone_is_refused_by_number_and_a_bom_is_read(tmp_path):
    place = celeba(tmp_path / "data")
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        put(place / name, b"\xef\xbb\xbf" + (place / name).read_bytes())
    assert len(opened("celeba", tmp_path)) == 3
    (place / "img_align_celeba" / "000005.jpg").unlink()
    with pytest.raises(
        Refused, match=r"list_eval_partition\.txt:5: '000005\.jpg', which is missing in .*img_align_celeba"
    ):
        opened("celeba", tmp_path)


@pytest.mark.parametrize("damage", ["text", "truncated"])
def test_a_face_that_cannot_be_read_raises_by_name(damage, tmp_path):
    file = celeba(tmp_path / "data") / "img_align_celeba" / "000005.jpg"
    file.write_bytes(file.read_bytes()[:400] if damage == "truncated" else b"no picture")
    found = opened("celeba", tmp_path)
    assert found.image(0).mode == "RGB"
    with pytest.raises(ValueError, match=r"000005\.jpg cannot be read as an image"):
        found.pixels(np.array([0, 2]), 16)


# --- downloads


@pytest.fixture
def torchvision(monkeypatch):
    """A torchvision whose downloads are these tests' files; it says what was asked of it."""
    asked = []

    def kind_of(make):
        def download(root, download):
            asked.append((str(root), download))
            make(root)

        return download

    datasets, utils = types.ModuleType("torchvision.datasets"), types.ModuleType("torchvision.datasets.utils")
    datasets.FashionMNIST = kind_of(lambda root: garments(Path(root) / "FashionMNIST" / "raw"))
    datasets.CelebA = kind_of(lambda root: celeba(Path(root)))
    for name, kind in (("CIFAR10", "cifar10"), ("CIFAR100", "cifar100")):
        setattr(
            datasets,
            name,
            types.SimpleNamespace(
                url=f"https://x/{kind}", filename=f"{kind}.tar.gz", tgz_md5=f"sum of {kind}"
            ),
        )

    def extract(url, download_root, filename, md5):
        asked.append((download_root, True))
        kind = url.split("/")[-1]
        assert (filename, md5) == (f"{kind}.tar.gz", f"sum of {kind}")
        for (of, _), names in FILES.items():
            for name in names if of == kind else []:
                put(Path(download_root) / name, python2(batch(kind, 3)))

    utils.download_and_extract_archive = extract
    datasets.utils = utils
    package = types.ModuleType("torchvision")
    package.datasets = datasets
    for module in (package, datasets, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    datasets.asked = asked
    return datasets


@pytest.mark.parametrize("kind", ["fashion_mnist", "cifar10", "cifar100", "celeba"])
def test_what_is_missing_is_downloaded_once_where_the_scenario_allows_it(kind, tmp_path, torchvision):
    with pytest.raises(Refused, match="download: true"):
        opened(kind, tmp_path)
    assert torchvision.asked == []
    first = opened(kind, tmp_path, download=True)
    assert torchvision.asked == [(str(tmp_path / "data"), True)]
    assert len(first) >= 3
    for again in (opened(kind, tmp_path, download=True), opened(kind, tmp_path)):
        assert again.labels.tolist() == first.labels.tolist()
    assert len(torchvision.asked) == 1


@pytest.mark.parametrize(
    ("kind", "n"), [("fashion_mnist", 60_000), ("cifar10", 50_000), ("cifar100", 50_000), ("celeba", 162_770)]
)
def test_what_will_be_downloaded_is_known_beforehand_and_nothing_where_it_is_there(
    kind, n, tmp_path, torchvision
):
    assert to_download(section(kind, path="data", download=True), tmp_path) == n
    assert to_download(section(kind, path="data"), tmp_path) is None
    opened(kind, tmp_path, download=True)
    assert to_download(section(kind, path="data", download=True), tmp_path) is None
    assert to_download(section("fashion_mnist_mini"), tmp_path) is None


def test_a_download_that_fails_is_refused_with_its_reason_and_another_way(tmp_path, torchvision, monkeypatch):
    def fail(root, download):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(torchvision, "FashionMNIST", fail)
    with pytest.raises(
        Refused, match=r"ConnectionError: no route to host.*apt install dataset-fashion-mnist"
    ) as refused:
        opened("fashion_mnist", tmp_path, download=True)
    assert refused.value.key == "data.download"


def test_a_pickle_of_protocol_5_holds_its_pictures_in_a_bytearray(tmp_path):
    (tmp_path / "data" / "cifar-10-batches-py").mkdir(parents=True)
    pictures = np.arange(3 * 3072, dtype=np.uint8).reshape(3, 3072)
    for name in FILES["cifar10", "train"]:
        (tmp_path / "data" / name).write_bytes(
            pickle.dumps({b"labels": [1, 2, 3], b"data": pictures}, protocol=5)
        )
    samples = opened("cifar10", tmp_path)
    assert samples.labels.tolist() == [1, 2, 3] * 5
    assert np.array_equal(samples.pixels(np.arange(3), None), pictures.reshape(3, 3, 32, 32))


@pytest.mark.parametrize("how", ["gone", "cut off"])
def test_a_test_set_that_cannot_be_read_is_refused_before_anything_trains(how, tmp_path, fedray):
    from tests.helpers import garments as scenario

    garments(tmp_path / "train", 50)
    for file in (tmp_path / "train").glob("t10k*"):
        if how == "gone":
            file.unlink()
        elif "images" in file.name:
            file.write_bytes(file.read_bytes()[:100])
    file = scenario(
        tmp_path, {"data": {"kind": "fashion_mnist", "path": "train", "partition": {"kind": "iid"}}}
    )
    for verb in ["check", "plan", "run"][how != "gone" :]:
        code, _, err = fedray(verb, file, *(["--out", tmp_path / "run"] if verb == "run" else []))
        assert code == 2
        assert "garments.yaml:" in err
        assert "data.path: got" in err
    assert not (tmp_path / "run").exists()
