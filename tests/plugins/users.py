"""A user's folder outside the package: a scenario, and the files with kinds of their own beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.helpers import garments, quickstart

FILES = Path(__file__).parent / "files"
LINKS = {  # a user's link does not go with the quickstart's other keys
    "uplink": {"kind": "my_kinds:RateTable", "rates_bps": [1e6, 2e6, 4e6, 8e6, 16e6]},
}


def users_folder(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """A scenario in a folder with the modules that it may name; its file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("my_kinds.py", "my_learner.py", "my_network.py"):
        shutil.copy(FILES / name, folder / name)
    return garments(folder, changes)


def network(**sections: Any) -> dict[str, Any]:
    """The quickstart's network with other sections."""
    return {**quickstart()["network"], **sections}
