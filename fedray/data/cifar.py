"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), as torchvision leaves them or in the binary version."""

import pickletools
from functools import partial
from pathlib import Path

import numpy as np

from fedray.data.samples import Array, Split, fetched
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
FILES = {
    "cifar10": {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]},
    "cifar100": {"train": ["train"], "test": ["test"]},
}


def there(data: Cifar, folder: Path, split: Split = "train") -> bool:
    return any(_whole(files) for files in _places(data, folder, split))


def read(data: Cifar, folder: Path, split: Split) -> Array:
    """Raises Refused where its files are not there, or damaged."""
    root, stem = folder / data.path, STEM[data.kind]
    python, binary = _places(data, folder, split)

    def fetch() -> None:
        from torchvision.datasets import CIFAR10, CIFAR100
        from torchvision.datasets.utils import download_and_extract_archive

        source = CIFAR10 if data.kind == "cifar10" else CIFAR100
        download_and_extract_archive(source.url, str(root), filename=source.filename, md5=source.tgz_md5)

    advice = (
        f"torchvision's {python[0].parent.name} in it, or {stem}-binary.tar.gz "
        "of cs.toronto.edu/~kriz/cifar.html unpacked"
    )
    fetched(root, data, lambda: there(data, folder, split), fetch, advice)
    reader, files = (_python, python) if _whole(python) else (_binary, binary)
    try:
        labels = np.concatenate([reader(file, data.kind)[1] for file in files])
    except ValueError as e:
        raise Refused("data.path", str(e), f"whole files of {stem}") from None
    return Array(partial(_images, reader, files, data.kind), labels, NAMES[data.kind])


def _places(data: Cifar, folder: Path, split: Split) -> tuple[list[Path], list[Path]]:
    """Where torchvision's files are, and those of the binary version."""
    root, names = folder / data.path, FILES[data.kind][split]
    python, binary = {"cifar10": ("batches-py", "batches-bin"), "cifar100": ("python", "binary")}[data.kind]
    stem = STEM[data.kind]
    return [root / f"{stem}-{python}" / n for n in names], [
        root / f"{stem}-{binary}" / f"{n}.bin" for n in names
    ]


def _whole(files: list[Path]) -> bool:
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
    return rows[:, head:].reshape(-1, 3, 32, 32), _known(file, rows[:, head - 1].astype(np.int64), kind)


def _python(file: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A pickled dictionary, of which only the words are read and nothing is run: the numbers that stand
    behind the labels' key, and the longest string, which is the pictures."""
    labels: list[int] = []
    pictures, reading = b"", False
    wanted = b"labels" if kind == "cifar10" else b"fine_labels"
    try:
        for code, argument, _ in pickletools.genops(file.read_bytes()):
            if isinstance(argument, bytes | bytearray | str) and code.name != "GLOBAL":
                text = argument.encode("latin-1") if isinstance(argument, str) else bytes(argument)
                pictures = max(pictures, text, key=len)
                # The codec's name stands before any bytes that protocol 2 writes, also before the labels'
                # key.
                reading = text == wanted or (reading and not labels and text == b"latin1")
            elif (
                reading and isinstance(argument, int) and code.name in ("BININT", "BININT1", "BININT2", "INT")
            ):
                labels.append(argument)
            elif code.name in ("SETITEM", "SETITEMS"):
                reading = False
        array = np.frombuffer(pictures, np.uint8).reshape(-1, 3, 32, 32)
    except (OSError, ValueError, IndexError, UnicodeEncodeError) as e:
        raise ValueError(f"{file}, which cannot be read: {reason(e)}") from None
    if not len(array) or len(array) != len(labels):
        raise ValueError(f"{file}, which has {len(array)} pictures and {len(labels)} labels")
    return array, _known(file, np.array(labels, np.int64), kind)


def _known(file: Path, labels: np.ndarray, kind: str) -> np.ndarray:
    if not 0 <= labels.min() <= labels.max() < len(NAMES[kind]):
        raise ValueError(
            f"{file}, which has labels from {labels.min()} to {labels.max()}, "
            f"not of {len(NAMES[kind])} classes"
        )
    return labels
