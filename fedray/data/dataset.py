"""A scenario's data set, each of its halves opened once."""

from functools import cached_property
from pathlib import Path

from fedray.data.samples import DatasetInfo, Samples
from fedray.data.sources import dataset_info, has_test_set, open_source
from fedray.scenario.data import Data


class Dataset:
    """The samples of a `data` section, opened when they are first asked for and kept from then on: one is
    made a process and passed to whoever needs it. Each property raises Refused where files are missing or do
    not fit together."""

    def __init__(self, section: Data, folder: Path) -> None:
        """`folder`: where the section's relative paths start."""
        self.section, self.folder = section, folder

    @cached_property
    def info(self) -> DatasetInfo:
        return dataset_info(self.section, self.folder)

    @cached_property
    def train(self) -> Samples:
        return open_source(self.section, self.folder, "train")

    @cached_property
    def test(self) -> Samples:
        return open_source(self.section, self.folder, "test")

    @property
    def has_test_set(self) -> bool:
        return has_test_set(self.section)

    @property
    def real(self) -> Samples:
        """What results are compared with: the test set, or all samples where there is none."""
        return self.test if self.has_test_set else self.train
