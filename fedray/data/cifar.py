"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), as torchvision leaves them or in the binary version."""

import io
import pickle
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedray.data.downloads import DownloadedSource
from fedray.data.samples import Array, DatasetInfo, Split
from fedray.errors import reason
from fedray.scenario.base import Refused
from fedray.scenario.data import Cifar

FINE = (  # CIFAR-100's fine labels, in their order
    "apple,aquarium fish,baby,bear,beaver,bed,bee,beetle,bicycle,bottle,bowl,boy,bridge,"
    "bus,butterfly,camel,can,castle,caterpillar,cattle,chair,chimpanzee,clock,cloud,"
    "cockroach,couch,crab,crocodile,cup,dinosaur,dolphin,elephant,flatfish,forest,fox,girl,"
    "hamster,house,kangaroo,keyboard,lamp,lawn mower,leopard,lion,lizard,lobster,man,"
    "maple tree,motorcycle,mountain,mouse,mushroom,oak tree,orange,orchid,otter,palm tree,"
    "pear,pickup truck,pine tree,plain,plate,poppy,porcupine,possum,rabbit,raccoon,ray,road,"
    "rocket,rose,sea,seal,shark,shrew,skunk,skyscraper,snail,snake,spider,squirrel,"
    "streetcar,sunflower,sweet pepper,table,tank,telephone,television,tiger,tractor,train,"
    "trout,tulip,turtle,wardrobe,whale,willow tree,wolf,woman,worm"
)
NAMES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "cifar100": tuple(FINE.split(",")),
}
STEM = {"cifar10": "cifar-10", "cifar100": "cifar-100"}
# of the folders of torchvision's files, and of the binary version
VERSIONS = {"cifar10": ("batches-py", "batches-bin"), "cifar100": ("python", "binary")}
FILES = {
    "cifar10": {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]},
    "cifar100": {"train": ["train"], "test": ["test"]},
}
LABELS = {"cifar10": b"labels", "cifar100": b"fine_labels"}


class CifarSource(DownloadedSource):
    """CIFAR-10 or CIFAR-100, by the section's kind."""

    section: Cifar
    training_samples = 50_000

    def open(self, split: Split) -> Array:
        self.ensure(split)
        kind = self.section.kind
        python, binary = self._files(split)
        reader, files = (_python, python) if _are_files(python) else (_binary, binary)
        try:
            labels = np.concatenate([reader(file, kind)[1] for file in files])
        except ValueError as e:
            raise Refused("data.path", str(e), f"whole files of {STEM[kind]}") from None
        return Array(partial(_images, reader, files, kind), labels, NAMES[kind])

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo(3, 32, NAMES[self.section.kind])

    @property
    def advice(self) -> str:
        python, _ = self._files("train")
        return (
            f"torchvision's {python[0].parent.name} in it, or {STEM[self.section.kind]}-binary.tar.gz "
            "of cs.toronto.edu/~kriz/cifar.html unpacked"
        )

    def is_complete(self, split: Split) -> bool:
        return any(_are_files(files) for files in self._files(split))

    def download(self) -> None:
        from torchvision.datasets import CIFAR10, CIFAR100
        from torchvision.datasets.utils import download_and_extract_archive

        source = CIFAR10 if self.section.kind == "cifar10" else CIFAR100
        download_and_extract_archive(source.url, str(self.root), filename=source.filename, md5=source.tgz_md5)

    def _files(self, split: Split) -> tuple[list[Path], list[Path]]:
        """Where torchvision's files are, and those of the binary version."""
        kind = self.section.kind
        names = FILES[kind][split]
        python, binary = (self.root / f"{STEM[kind]}-{version}" for version in VERSIONS[kind])
        return [python / name for name in names], [binary / f"{name}.bin" for name in names]


def _are_files(files: list[Path]) -> bool:
    return all(file.is_file() for file in files)


def _images(reader, files: list[Path], kind: str) -> np.ndarray:
    return np.concatenate([reader(file, kind)[0] for file in files])


def _binary(file: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the label (of CIFAR-100 the coarse one, then the fine one) and 3,072 bytes of a picture."""
    head = 1 if kind == "cifar10" else 2
    try:
        raw = np.fromfile(file, np.uint8)
    except OSError as e:
        raise ValueError(f"{file}, which cannot be read: {reason(e)}") from None
    if not len(raw) or len(raw) % (head + 3072):
        raise ValueError(f"{file}, which has {len(raw)} bytes, no multiple of {head + 3072}")
    rows = raw.reshape(-1, head + 3072)
    return rows[:, head:].reshape(-1, 3, 32, 32), _checked(file, rows[:, head - 1].astype(np.int64), kind)


class _Named:
    """Stands for whatever a pickle names, which is never imported: it keeps what that would be made from."""

    given: tuple[Any, ...] = ()

    def __init__(self, *arguments: Any) -> None:
        self.given = arguments

    def __setstate__(self, state: Iterable[Any]) -> None:
        self.given += tuple(state)


# In Python, since the C implementation allocates as much memory as the memo index in a damaged file says.
class _Unpickler(pickle._Unpickler):
    """Makes dictionaries, lists, numbers and strings, and runs nothing that a file names."""

    def find_class(self, module: str, name: str) -> type[_Named]:
        return _Named


def _bytes_of(value: Any) -> bytes:
    """A string as Python 2 or 3 pickles it, or `_codecs.encode(text, "latin1")`, as Python 3 writes bytes for
    Python 2; nothing of another value."""
    if isinstance(value, _Named):
        value = value.given[0]
    if isinstance(value, str):
        return value.encode("latin-1")
    return bytes(value) if isinstance(value, bytes | bytearray) else b""


def _python(file: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A pickled dictionary with a list of labels and, at `data`, a NumPy array, whose bytes are the longest
    string that it is made from."""
    try:
        content = _Unpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
        if not isinstance(content, dict):
            raise ValueError(f"a pickled {type(content).__name__}, no dictionary")
        batch = {_bytes_of(key): value for key, value in content.items()}
        for key in (LABELS[kind], b"data"):
            if key not in batch:
                raise ValueError(f"no {key.decode()!r} in it")
        if not isinstance(batch[b"data"], _Named):
            raise ValueError("'data', which is no array")
        images = np.frombuffer(max(map(_bytes_of, batch[b"data"].given), key=len), np.uint8)
        images = images.reshape(-1, 3, 32, 32)
        if not all(isinstance(label, int) for label in batch[LABELS[kind]]):
            raise ValueError("labels that are no integers")
        labels = np.array(batch[LABELS[kind]], np.int64)
    except Exception as e:  # a damaged pickle raises anything
        raise ValueError(f"{file}, which cannot be read: {reason(e)}") from None
    if not len(images) or len(images) != len(labels):
        raise ValueError(f"{file}, which has {len(images)} pictures and {len(labels)} labels")
    return images, _checked(file, labels, kind)


def _checked(file: Path, labels: np.ndarray, kind: str) -> np.ndarray:
    if not 0 <= labels.min() <= labels.max() < len(NAMES[kind]):
        raise ValueError(
            f"{file}, which has labels from {labels.min()} to {labels.max()}, "
            f"not of {len(NAMES[kind])} classes"
        )
    return labels
