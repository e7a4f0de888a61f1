import pickle
from collections import Counter

import pytest

from fedray import engine
from fedray.data import Dataset
from fedray.data.fashion_mnist import FashionMnistMiniSource
from fedray.data.image_folder import ImageFolderSource
from fedray.runs.folder import RunFolder
from fedray.terminal import Quiet
from tests.helpers import ARTISTS, garments, job_of


@pytest.fixture
def opened(monkeypatch):
    """How often each half has been opened."""
    opened = Counter()

    def counted(open_half):
        def open_counted(self, split):
            opened[split] += 1
            return open_half(self, split)

        return open_counted

    for source in (FashionMnistMiniSource, ImageFolderSource):
        monkeypatch.setattr(source, "open", counted(source.open))
    return opened


@pytest.mark.parametrize(
    ("changes", "expected"), [({}, {"train": 1, "test": 1}), (ARTISTS, {"train": 1})], ids=["array", "folder"]
)
def test_a_run_in_one_process_opens_its_data_once(changes, expected, opened, tmp_path):
    loaded, _ = job_of(garments(tmp_path, changes | {"evaluation.every": 1}))
    opened.clear()
    engine.run(loaded, RunFolder.create(tmp_path / "run", loaded), [Quiet()])
    assert opened == expected


def test_the_next_run_opens_them_again(opened, tmp_path):
    first, second = (job_of(garments(tmp_path))[1].dataset for _ in range(2))
    assert first.train is first.train
    assert first.train is not second.train


def test_another_process_gets_a_data_set_that_is_not_open(opened, tmp_path):
    _, job = job_of(garments(tmp_path))
    assert len(job.dataset.train) == 2500
    opened.clear()
    again = pickle.loads(pickle.dumps(job)).dataset
    assert not opened
    assert again.is_of(job.dataset)
    assert len(again.train) == 2500
    assert opened == {"train": 1}


def test_a_folder_of_images_is_its_own_test_set(tmp_path):
    _, job = job_of(garments(tmp_path, ARTISTS))
    dataset = Dataset(job.scenario.data, job.folder)
    assert not dataset.has_test_set
    assert dataset.real is dataset.train
    assert tuple(dataset.info.label_names) == tuple(dataset.train.label_names)
