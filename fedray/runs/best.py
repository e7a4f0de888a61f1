"""`checkpoints/best`: the checkpoint of the round with the best value of a metric, which later ones leave."""

import os
import shutil
from pathlib import Path

from fedray.files import naming
from fedray.runs.folder import RunFolder
from fedray.runs.state import State


class BestCheckpoint:
    """The one that a run keeps beside its last two.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.path = folder.checkpoints / "best"

    def keep(self, round_number: int) -> None:
        """Puts a round's checkpoint, which is there, in its place."""
        part = self.folder.checkpoints / ".best.part"
        shutil.rmtree(part, ignore_errors=True)
        with naming(part):
            source = self.folder.checkpoints / f"round-{round_number:04d}"
            shutil.copytree(source, part, copy_function=_linked)
            shutil.rmtree(self.path, ignore_errors=True)
            part.rename(self.path)

    def state(self) -> State | str:
        """What it knows of itself, or what is wrong with it."""
        return self.folder.state(self.path)


def _linked(source: str, target: str) -> Path:
    """A file in two places, or twice where the system knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return Path(target)
