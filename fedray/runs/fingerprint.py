"""What a run belongs to: scenario, data and code, so that a run that goes on with others is no silent
mixture."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedray import shipped
from fedray.data.clients import Holdings
from fedray.data.samples import Samples
from fedray.errors import shortened
from fedray.lazy import resolve
from fedray.runs.environment import environment
from fedray.scenario import plugins
from fedray.scenario.base import file_paths
from fedray.scenario.kinds import user_kinds
from fedray.scenario.scenario import Scenario
from fedray.scenario.tree import flat

Fingerprint = dict[str, dict[str, Any]]
# What may differ when a run goes on: names, where the work runs, what is looked at. Where data and base
# models lie may too, as long as they are the same; how many rounds there are is checked where that matters.
FREE = (
    "name",
    "description",
    "shows",
    "evaluation",
    "runtime",
    "sweep",
    "training.rounds",
    "data.path",
    "data.download",
    "model.base",
)
FILES = " (its files)"  # ends the key of a digest of files
BASE = f"model.base{FILES}"
USERS_CODE = "users' code"  # modules with kinds of a user's own
HEAD = 1 << 20  # bytes of each file that a scenario names that are compared, beside its size


def of_scenario(scenario: Scenario, folder: Path) -> Fingerprint:
    """Its keys that reach a weight or a cost, the base model, and the code."""
    keys = kept(scenario, folder) | of_files(scenario, folder)
    if (base := of_base(scenario, folder)) is not None:
        keys[BASE] = base
    facts = environment()
    source = _digest(file.read_bytes() for file in sorted(Path(__file__).parents[1].rglob("*.py")))
    return {
        "scenario": keys,
        USERS_CODE: of_users_code(scenario),
        "code": {"python": facts["python"], **facts["packages"], "fedray's source": source},
    }


def of_base(scenario: Scenario, folder: Path) -> str | None:
    """What is in the files of its base model; None where it has none. Raises Refused where that is not
    there."""
    model = scenario.model
    if model.base_source is None:
        return None
    source = resolve(model.base_source)(model, folder)
    return _of_folder(Path(source), source)


def of_users_code(scenario: Scenario) -> dict[str, Any]:
    """The modules that lie beside it, by their sha256, and the packages that it has kinds from."""
    kinds = list(user_kinds(scenario))
    modules = {f"{module.name}.py": module.sha256 for module in plugins.modules_of(kinds)}
    return modules | plugins.releases_of(kinds)


def kept(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """The values of its keys that may not differ, by their paths; of files that they name see `of_files`."""
    values = flat(scenario.model_dump(mode="json"))
    files = {field for field, _ in _named_files(scenario, folder)}
    return {key: value for key, value in values if not is_free(key) and key not in files} | {
        "runtime.threads": scenario.runtime.threads
    }


def of_files(scenario: Scenario, folder: Path) -> dict[str, str]:
    """What is in the files that its keys name, wherever they lie; but for its samples, see `of_data`."""
    digests: dict[str, list[str]] = {}
    for field, path in _named_files(scenario, folder):
        if field.startswith("data."):
            continue
        digests.setdefault(f"{field}{FILES}", []).append(_of_folder(folder / path, path))
    return {key: " ".join(each) for key, each in digests.items()}


def _named_files(scenario: Scenario, folder: Path) -> Iterator[tuple[str, str]]:
    """The keys that name files, and their paths. What ships, or is the name of a base model, is none."""
    for key, section in scenario.sections():
        for name, path in file_paths(section):
            field = re.sub(r"\.\d+$", "", f"{key}.{name}")  # of a list of paths
            is_file = Path(path).is_absolute() or (folder / path).exists()
            if is_file and not path.startswith(shipped.PREFIX) and not is_free(field):
                yield field, path


def of_data(samples: Samples, held: Mapping[int, np.ndarray]) -> dict[str, Any]:
    """How many samples there are, what is in them, and who holds which."""
    captions = [] if samples.captions_follow else list(samples.captions)
    described = json.dumps([list(samples.label_names), captions]).encode()
    return {
        "samples": len(samples),
        "contents of samples": _digest(samples.contents()),
        "labels and captions": _digest([samples.labels.tobytes(), described]),
        "partition": _digest(_parts(held)),
    }


def differences(before: Fingerprint, now: Fingerprint, part: str) -> list[str]:
    """What is other than it was, a line each."""
    old = before.get(part, {})
    new = now.get(part, {})
    changed = (key for key in {**old, **new} if old.get(key) != new.get(key))
    return [
        f"{key}: got {_shown(new.get(key))}, expected {_shown(old.get(key))}, as before" for key in changed
    ]


def _shown(value: Any) -> str:
    return "nothing" if value is None else shortened(str(value))


def is_free(key: str) -> bool:
    """Whether a key may differ when a run goes on."""
    return any(key == free or key.startswith(f"{free}.") for free in FREE) or (
        key.startswith("data.sites.") and key.endswith(".path")
    )


def _parts(held: Mapping[int, np.ndarray]) -> Iterator[bytes]:
    if isinstance(held, Holdings):
        yield from (held.indices.tobytes(), np.asarray(held.sizes, np.int64).tobytes())
    else:
        for client in sorted(held):
            yield from (str(client).encode(), np.asarray(held[client], np.int32).tobytes())


def _of_folder(folder: Path, name: str) -> str:
    """Names, sizes and beginnings of a folder's files, or of a file; of a base model on the hub its name."""
    if not folder.exists():
        return name
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    if folder.is_file():
        files = [folder]
    return _digest(part for file in files for part in _head(file, folder))


def _head(file: Path, folder: Path) -> Iterator[bytes]:
    with file.open("rb") as f:
        yield f"{file.relative_to(folder)} {file.stat().st_size}".encode()
        yield f.read(HEAD)


def _digest(parts: Any) -> str:
    result = hashlib.blake2b(digest_size=16)
    for part in parts:
        result.update(len(part).to_bytes(8, "little"))  # so that no two lists of parts are one text
        result.update(part)
    return result.hexdigest()
