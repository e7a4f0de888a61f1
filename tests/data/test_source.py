"""Sources, partitions and samples of a user's own, without a change to the package."""

import ast
import json
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import fedray
from fedray import data
from fedray.checks import check
from fedray.data.clients import holdings, partition
from fedray.data.partition import Partition
from fedray.data.samples import DatasetSamples, Samples
from fedray.data.source import Source
from fedray.data.sources import source
from fedray.runs.fingerprint import of_data
from fedray.scenario import Refused, load
from tests.helpers import garments, run

PUBLIC = SimpleNamespace(
    DatasetInfo=data.DatasetInfo, DatasetSamples=DatasetSamples, Partition=Partition, Source=Source
)


def example(base):
    """What the example in a class's docstring defines."""
    lines = base.__doc__.split("Args:")[0].split(":\n\n", 1)[1]
    names = {"fedray": PUBLIC, "torch": torch, "np": np}
    exec(textwrap.dedent(lines), names)
    return names


def module(folder, text):
    (folder / "own_data.py").write_text(
        "import numpy as np\nfrom fedray import data\n" + textwrap.dedent(text)
    )


ROUND_ROBIN = """
    from fedray.data.partition import Partition

    class Own(Partition):
        def deal(self, samples, clients, rng):
            return [np.arange(client, len(samples), clients) for client in range(clients)]
"""
SQUARES = """
    from typing import ClassVar
    from fedray.scenario.data import DataSection

    class Squares(data.Source):
        class Section(DataSection):
            grey: float = 0.5
            has_test_set: ClassVar[bool] = False

        def open(self, split):
            images = np.linspace(0, self.section.grey, 12 * 784, dtype=np.float32).reshape(12, 1, 28, 28)
            return data.DatasetSamples([(image, i % 2) for i, image in enumerate(images)], ["even", "odd"])

        @property
        def info(self):
            return data.DatasetInfo(1, 28, ["even", "odd"])
"""


def test_the_source_of_the_docstring_opens_its_images_and_labels():
    made = example(Source)["StripesSource"](None, Path())
    samples = made.open("train")
    assert len(samples) == 60
    assert samples.labels.tolist() == [0, 1, 2] * 20
    pixels = samples.pixels(np.array([0, 1]), made.info.size)
    assert pixels.shape == (2, made.info.channels, 8, 8)
    assert [pixels[0, 0, :, 0].tolist(), pixels[1, 0, :, 0].tolist()] == [
        [255, 0] * 4,
        [255, 0, 0, 255, 0, 0, 255, 0],
    ]
    assert made.to_download is None


def test_the_partition_of_the_docstring_deals_in_turns():
    parts = example(Partition)["RoundRobin"](None).deal(np.zeros(7), 3, np.random.default_rng())
    assert [part.tolist() for part in parts] == [[0, 3, 6], [1, 4], [2, 5]]


def own_squares(folder, grey=0.25):
    module(folder, SQUARES + ROUND_ROBIN)
    own = {"kind": "own_data:Squares", "grey": grey, "partition": {"kind": "own_data:Own"}}
    return garments(folder, {"data": own, "population": {"clients": 4, "per_round": 4}})


def test_a_users_source_and_partition_beside_the_scenario_give_the_clients_their_samples(tmp_path):
    loaded = check(own_squares(tmp_path))
    samples, client_indices = holdings(loaded.scenario, loaded.folder)
    assert [part.tolist() for part in client_indices.values()] == [[k, k + 4, k + 8] for k in range(4)]
    assert samples.pixels(np.array([11]), 28).max() == 64
    assert not source(loaded.scenario.data, loaded.folder).has_test_set
    assert not list(samples.unreadable(client_indices))
    assert of_data(samples, client_indices) == of_data(*holdings(loaded.scenario, loaded.folder))
    brighter = loaded.scenario.data.model_copy(update={"grey": 1.0})
    other = of_data(source(brighter, loaded.folder).open("train"), client_indices)
    assert {key for key, value in of_data(samples, client_indices).items() if other[key] != value} == {
        "contents of samples"
    }


def test_a_model_trains_on_a_users_source(tmp_path):
    result = run(own_squares(tmp_path), tmp_path / "out")
    assert result["rounds"] == 2
    census = json.loads((tmp_path / "out" / "partition.json").read_text())
    assert census["labels"] == ["even", "odd"]
    assert census["counts"] == [[3, 0], [0, 3], [3, 0], [0, 3]]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("[np.arange(len(samples))]", r"own_data:Own', which deals 1 parts, expected 5, one a client"),
        (
            "[np.arange(0 if client == 3 else 5) for client in range(clients)]",
            r"client 3 without samples, expected some for each, or a Section whose leaves_empty is true",
        ),
        (
            "[np.array([0, len(samples) + client]) for client in range(clients)]",
            r"gives client 0 samples 0 to 2500, expected indices from 0 to 2499",
        ),
    ],
)
def test_a_users_partition_that_deals_wrongly_is_refused_by_its_kind(parts, message, tmp_path):
    dealt = "[np.arange(client, len(samples), clients) for client in range(clients)]"
    module(tmp_path, ROUND_ROBIN.replace(dealt, parts))
    loaded = load(garments(tmp_path, {"data.partition": {"kind": "own_data:Own"}}))
    samples = source(loaded.scenario.data, loaded.folder).open("train")
    with pytest.raises(Refused, match=message):
        partition(loaded.scenario, samples)


def picture(value, mode="RGB"):
    return Image.new(mode, (4, 2), value)


@pytest.mark.parametrize(
    ("image", "channels"),
    [
        (picture((9, 9, 9)), 3),
        (picture(9, "L"), 1),
        (picture((9, 9, 9, 255), "RGBA"), 3),
        (np.full((2, 4), 9, np.uint8), 1),
        (np.full((3, 2, 4), 9, np.uint8), 3),
        (torch.full((1, 2, 4), 9 / 255), 1),
    ],
)
def test_images_of_a_torch_dataset_may_be_pils_or_arrays_of_bytes_or_fractions(image, channels):
    samples = DatasetSamples([(image, 0)], ["nine"])
    assert samples.pixels(np.array([0]), 2).tolist() == np.full((1, channels, 2, 2), 9).tolist()
    assert samples.pixels(np.array([0]), None).shape == (1, channels, 2, 4)
    assert samples.image(0).mode == "RGB"
    assert np.asarray(samples.image(0)).tolist() == np.full((2, 4, 3), 9).tolist()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 5, 4), np.uint8), r"array \[5, 5, 4\], expected \[1 or 3 channels, height, width\]"),
        (np.full((1, 2, 2), 255.0), r"floats from 255 to 255, expected them in 0..1"),
        (np.full((1, 2, 2), np.nan), r"floats from nan to nan, expected them in 0..1"),
        (np.zeros((1, 2, 2), np.int64), r"array of int64, expected uint8 or floats in 0..1"),
    ],
)
def test_what_is_no_image_of_a_torch_dataset_is_refused_with_its_client_before_training(image, message):
    samples = DatasetSamples([(np.zeros((2, 2), np.uint8), 0), (image, 0)], ["a"])
    (refused,) = samples.unreadable({0: np.array([0]), 7: np.array([1])})
    assert refused.got.startswith("client 7: sample 1: got ")
    with pytest.raises(ValueError, match=message):
        samples.image(1)


def test_labels_of_a_torch_dataset_are_its_targets_where_it_has_some():
    class Closed:
        targets = torch.tensor([2, 0, 1])

        def __getitem__(self, i):
            raise AssertionError("no sample needs to be opened")

    samples = DatasetSamples(Closed(), ["a", "ox", "c"])
    assert samples.labels.tolist() == [2, 0, 1]
    assert samples.captions == ["a photo of a c", "a photo of an a", "a photo of an ox"]
    assert samples.groups == ["", "", ""]


def test_samples_that_are_no_images_need_none_to_be_compared_and_checked():
    class Numbers(Samples):
        has_images = False

        def __init__(self, rows):
            self.rows = rows
            self.labels = np.zeros(len(rows), np.int64)
            self.label_names = ["number"]

        def contents(self):
            yield self.rows.tobytes()

    one, other = Numbers(np.arange(3.0)), Numbers(np.arange(1, 4.0))
    clients = {0: np.arange(3)}
    assert not list(one.unreadable(clients))
    assert of_data(one, clients) == of_data(Numbers(np.arange(3.0)), clients)
    assert of_data(one, clients) != of_data(other, clients)
    with pytest.raises(ValueError, match="Numbers has no images"):
        one.pixels(np.arange(2), 8)


def test_no_room_but_data_and_scenario_knows_a_section_of_data():
    root = Path(fedray.__file__).parent
    importing = [
        file.relative_to(root).as_posix()
        for file in sorted(root.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "fedray.scenario.data"
    ]
    assert {path.split("/")[0] for path in importing} == {"data", "scenario"}
