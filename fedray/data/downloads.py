"""Data sets that can be downloaded where their files are not there."""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from fedray.data.samples import Split
from fedray.data.source import Source
from fedray.errors import reason
from fedray.scenario.base import Refused
from fedray.scenario.data import Downloaded


class DownloadedSource(Source):
    """A set in torchvision's layout, below `root`."""

    section: Downloaded
    training_samples: ClassVar[int]  # how many the whole set has

    @property
    def root(self) -> Path:
        return self.folder / self.section.path

    @property
    @abstractmethod
    def advice(self) -> str:
        """What to install, or to put there, instead of a download."""

    @abstractmethod
    def is_complete(self, split: Split) -> bool:
        """Whether a split's files are there."""

    @abstractmethod
    def download(self) -> None:
        """Downloads the set; raises whatever the network, the server or the archive does."""

    @property
    def to_download(self) -> int | None:
        return self.training_samples if self.section.download and not self.is_complete("train") else None

    def ensure(self, split: Split) -> None:
        """Makes sure that a split's files are there, by a download where the scenario allows it.

        Raises:
            Refused: saying what to install or to download.
        """
        if self.is_complete(split):
            return
        if not self.section.download:
            got = f"{str(self.root)!r} without the files of {self.section.kind}"
            raise Refused("data.path", got, f"{self.advice}, or data: {{download: true}}")
        try:
            self.download()
        except Exception as e:
            got = f"{type(e).__name__}: {reason(e)}"
            raise Refused("data.download", got, f"a way to its files; or {self.advice}") from None
