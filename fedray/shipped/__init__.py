"""What ships inside the package: models, judges, data, devices, a trace, scenarios. Addressed as
shipped:NAME."""

import json
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PREFIX = "shipped:"


def names() -> list[str]:
    return sorted(p.name for p in HERE.iterdir() if not p.name.startswith("_"))


def resolve(path: str, folder: Path) -> Path:
    """`shipped:NAME`, or `shipped:NAME/FILE` in a shipped folder, inside the package; anything else relative
    to `folder`.

    Raises:
        FileNotFoundError: saying what ships, for a name that does not.
    """
    if path.startswith(PREFIX):
        name, *below = path.removeprefix(PREFIX).rstrip("/").split("/")
        for candidate in (name, name + ".safetensors"):
            place = HERE.joinpath(candidate, *below)
            if candidate in names() and not {"", ".."} & set(below) and place.exists():
                return place
        raise FileNotFoundError(
            f"one of {', '.join(PREFIX + n.removesuffix('.safetensors') for n in names())}"
        )
    return folder / path


def scenarios() -> dict[str, Path]:
    """The shipped scenarios by name: inside a wheel they lie in the package, in a checkout beside it."""
    for folder in (HERE.parent / "scenarios", HERE.parent.parent / "scenarios"):
        if folder.is_dir():
            files = sorted(folder.rglob("*.yaml"), key=lambda file: file.with_suffix(""))
            return {file.stem: file for file in files}
    raise FileNotFoundError("the shipped scenarios are missing: this installation is not whole")


@cache
def devices() -> dict[str, dict[str, Any]]:
    """Devices by name: peak_flops, active_w, memory_bytes, and the source of these figures."""
    result: dict[str, dict[str, Any]] = json.loads((HERE / "devices.json").read_text(encoding="utf-8"))
    return result
