"""Sources: the samples that a `data` section names, and what they are like without opening one."""

from pathlib import Path

from fedray.data import celeba, cifar, fashion_mnist, image_folder, text
from fedray.data.samples import DatasetInfo, Samples, Split
from fedray.scenario.data import (
    ByFolder,
    CelebA,
    Cifar,
    Data,
    Downloaded,
    FashionMnist,
    FashionMnistMini,
    ImageFolder,
    Text,
)


def open_source(data: Data, folder: Path, split: Split = "train") -> Samples:
    """The samples a `data` section names; relative paths start at `folder`.

    Raises:
        Refused: where files are missing or do not fit together.
    """
    if isinstance(data, ImageFolder):
        assert split == "train", "an image folder has no test split"
        clients = isinstance(data.partition, ByFolder)
        return image_folder.read(
            data.path, folder, "data", data.caption_key, data.caption, data.folders, clients=clients
        )
    if isinstance(data, Text):
        return text.read(data, folder, split)
    if isinstance(data, CelebA):
        return celeba.read(data, folder, split)
    if isinstance(data, Cifar):
        return cifar.read(data, folder, split)
    return fashion_mnist.read(data, folder, split)


def has_test_set(data: Data) -> bool:
    """Whether a source has samples that nobody trains on."""
    return not isinstance(data, ImageFolder)


def dataset_info(data: Data, folder: Path) -> DatasetInfo:
    """What a source's samples are like.

    Raises:
        Refused: where that needs files which are missing.
    """
    if isinstance(data, Text):
        texts = text.read(data, folder, "train")
        return DatasetInfo(0, None, texts.label_names, data.length, texts.tokenizer)
    if isinstance(data, FashionMnist | FashionMnistMini):
        return DatasetInfo(1, 28, fashion_mnist.LABELS)
    if isinstance(data, Cifar):
        return DatasetInfo(3, 32, cifar.NAMES[data.kind])
    if isinstance(data, CelebA):
        return DatasetInfo(3, None, celeba.label_names(data))
    return DatasetInfo(3, None, open_source(data, folder).label_names)


def to_download(data: Data, folder: Path) -> int | None:
    """How many training samples a set will have that is not there yet, and that the scenario lets us
    fetch."""
    if not isinstance(data, Downloaded) or not data.download:
        return None
    if isinstance(data, CelebA):
        return None if celeba.there(data, folder) else 162_770
    if isinstance(data, Cifar):
        return None if cifar.there(data, folder) else 50_000
    assert isinstance(data, FashionMnist)
    return None if fashion_mnist.there(data, folder) else 60_000
