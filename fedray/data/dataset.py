"""A scenario's data set, each of its halves opened once."""

from functools import cached_property
from pathlib import Path

from fedray.data.samples import DatasetInfo, Samples
from fedray.data.sources import dataset_info, open_source
from fedray.scenario.data import Data, ImageFolder
from fedray.scenario.scenario import Scenario


class Dataset:
    """The samples of a `data` section, opened when they are first asked for and kept from then on: one is
    made a process and passed to whoever needs it. Each property raises Refused where files are missing or do
    not fit together."""

    def __init__(self, section: Data, folder: Path) -> None:
        """`folder`: where the section's relative paths start."""
        self.section, self.folder = section, folder

    @classmethod
    def of(cls, scenario: Scenario, folder: Path) -> "Dataset":
        """A scenario's: images need no captions where nobody reads them."""
        section = scenario.data
        if isinstance(section, ImageFolder) and section.caption is None and not scenario.model.reads_captions:
            section = section.model_copy(update={"caption": ""})
        return cls(section, folder)

    def is_of(self, other: "Dataset") -> bool:
        """Whether both are the same data."""
        return (self.section, self.folder) == (other.section, other.folder)

    def __reduce__(self) -> tuple[type["Dataset"], tuple[Data, Path]]:
        return Dataset, (self.section, self.folder)  # another process opens it itself

    @cached_property
    def info(self) -> DatasetInfo:
        return dataset_info(self.section, self.folder, lambda: self.train)

    @cached_property
    def train(self) -> Samples:
        return open_source(self.section, self.folder, "train")

    @cached_property
    def test(self) -> Samples:
        return open_source(self.section, self.folder, "test")

    @property
    def has_test_set(self) -> bool:
        return self.section.has_test_set

    @property
    def real(self) -> Samples:
        """What results are compared with: the test set, or all samples where there is none."""
        return self.test if self.has_test_set else self.train
