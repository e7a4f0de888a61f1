"""A user's folder outside the package: a scenario, and the files with kinds of their own beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.helpers import garments, quickstart

FILES = Path(__file__).parent / "files"
RATES = [1e6, 2e6, 4e6, 8e6, 16e6]  # of the five clients' uplinks, in bit/s


def users_folder(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """A scenario in a folder with the modules that it may name; its file."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES.glob("my_*.py"):
        shutil.copy(file, folder / file.name)
    return garments(folder, changes)


def network(**sections: Any) -> dict[str, Any]:
    """The quickstart's network with other sections."""
    return {**quickstart()["network"], **sections}
