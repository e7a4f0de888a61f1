"""What every source offers: its samples, and what they are like. The base class of every kind of source."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fedray.data.samples import DatasetInfo, Samples, Split
from fedray.scenario.data import DataSection


class Source(ABC):
    """Where samples come from. A source of one's own that wraps a torch Dataset of images and labels:

        NAMES = ["wide", "wider", "widest"]

        class Stripes(torch.utils.data.Dataset):
            def __len__(self):
                return 60

            def __getitem__(self, i):
                image = torch.zeros(1, 8, 8)
                image[:, :: 2 + i % 3] = 1
                return image, i % 3

        class StripesSource(fedray.Source):
            def open(self, split):
                return fedray.DatasetSamples(Stripes(), NAMES)

            @property
            def info(self):
                return fedray.DatasetInfo(channels=1, size=8, label_names=NAMES)

    Args:
        section: the scenario's `data`.
        folder: where the section's relative paths start.

    Attributes:
        condition_column: of metadata.jsonl, that names a condition picture of each sample, where the section
            `names_columns`; None: there is none.
        seed: the scenario's, where the section `has_environments`.
    """

    Section: ClassVar[type[DataSection]] = DataSection
    condition_column: str | None = None
    seed: int = 0

    def __init__(self, section: Any, folder: Path) -> None:
        self.section = section
        self.folder = folder

    @abstractmethod
    def open(self, split: Split) -> Samples:
        """The samples to train on, or to test on; "test" only where there is a test set.

        Raises:
            Refused: where files are missing or do not fit together.
        """

    @cached_property
    def train(self) -> Samples:
        """The samples to train on, opened once."""
        return self.open("train")

    @cached_property
    def test(self) -> Samples:
        """The samples to test on, opened once."""
        return self.open("test")

    @property
    def info(self) -> DatasetInfo:
        """What the samples are like; colour images of any size, where a source says nothing else.

        Raises:
            Refused: where that needs files which are missing.
        """
        return DatasetInfo(3, None, self.train.label_names)

    @property
    def has_test_set(self) -> bool:
        """Whether there are samples that nobody trains on."""
        return self.section.has_test_set

    @property
    def to_download(self) -> int | None:
        """How many training samples there will be, where they are not there yet and `open` downloads them."""
        return None

    def open_at_site(self, site: str) -> tuple[Samples, Mapping[int, np.ndarray]]:
        """The samples that lie at a site, and which of them each of its clients has; for a source whose
        section has `clients_at_sites`.

        Raises:
            Refused: where files are missing or do not fit together.
        """
        raise NotImplementedError(f"{type(self).__name__} has no sites")
