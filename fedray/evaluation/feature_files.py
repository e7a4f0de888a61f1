"""Where the weights of `evaluation.features` are. No torch here, so that `check` can look."""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

from fedray.data.places import located
from fedray.lazy import resolve
from fedray.scenario.base import Refused
from fedray.scenario.features import FeaturesSection, Garments, Inception, Pretrained

KEY = "evaluation.features"
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS = ("*.safetensors", "*.bin", "*.pth")  # names of files of numbers
CONFIG = "config.json"  # that a folder of transformers has beside them
PROCESSORS = ("preprocessor_config.json", "processor_config.json")  # and one of these
CHUNK = 1 << 20  # bytes


def locate(section: FeaturesSection, folder: Path) -> Path | None:
    """The file or folder of its weights; None where it has none. Raises Refused where that is not there."""
    if section.located_by is None:
        return None
    place: Path = resolve(section.located_by)(section, folder)
    return place


def judge(section: Garments, folder: Path) -> Path:
    """A classifier's file. Raises Refused where it is not there."""
    file: Path = located(section.judge, folder, f"{KEY}.judge")
    if not file.is_file():
        raise Refused(f"{KEY}.judge", repr(section.judge), "a safetensors file of a judge")
    return file


def inception(section: Inception, folder: Path) -> Path:
    """The file of Inception's weights. Raises Refused where it is not there, or torch-fidelity is not."""
    if find_spec("torch_fidelity") is None:
        raise Refused(KEY, "inception without torch-fidelity", "pip install 'fedray[inception]'")
    if section.weights is not None:
        file = folder / section.weights
        if not file.is_file():
            raise Refused(f"{KEY}.weights", f"{section.weights!r}, which is not there", f"{INCEPTION}")
        return file
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    file = Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints" / INCEPTION
    if not file.is_file():
        expected = f"{INCEPTION} of torch-fidelity's release v0.2.0 there, or its path as weights"
        raise Refused(f"{KEY}.weights", f"none, and no {file}", expected)
    return file


def pretrained(section: Pretrained, folder: Path) -> Path:
    """A folder of transformers' files: the scenario's, or one in the hub's cache. Raises Refused where
    neither is whole."""
    place = folder / Path(section.weights).expanduser()
    if not place.is_dir():
        place = _cached(section)
    parts = {
        CONFIG: (place / CONFIG).is_file(),
        PROCESSORS[0]: any((place / name).is_file() for name in PROCESSORS),
        "weights": bool(_files(place)),
    }
    if missing := [name for name, there in parts.items() if not there]:
        got = f"{section.weights!r} without {missing[0]}"
        raise Refused(
            f"{KEY}.weights", got, "model and processor as transformers' save_pretrained writes them"
        )
    return place


def _cached(section: Pretrained) -> Path:
    """Where the hub's cache has a repository."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(section.weights, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        got = f"{section.weights!r}, which is no folder and not in the hub's cache"
        expected = f"a folder of transformers' files, or what `hf download {section.weights}` has fetched"
        raise Refused(f"{KEY}.weights", got, expected) from None


def stamp(place: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes where a file of numbers does: names, sizes and times."""
    stats = [(file.name, file.stat()) for file in _files(place)]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _files(place: Path) -> list[Path]:
    """A file, or all files of numbers in a folder, by their names."""
    if not place.is_dir():
        return [place]
    return sorted(file for pattern in WEIGHTS for file in place.glob(pattern))


def sha256(place: Path) -> str:
    """Of a file, or of all files of numbers in a folder, one behind another."""
    digest = hashlib.sha256()
    for file in _files(place):
        with file.open("rb") as content:
            while chunk := content.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
