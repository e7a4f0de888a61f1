"""The source that a `data` section names."""

from pathlib import Path

from fedray.data.samples import DatasetInfo, Samples, Split
from fedray.data.source import Source
from fedray.scenario.data import DataSection
from fedray.scenario.kinds import implementation


def source(section: DataSection, folder: Path) -> Source:
    """The source of a section, whose relative paths start at `folder`."""
    made: Source = implementation(section)(section, folder)
    return made


def open_source(section: DataSection, folder: Path, split: Split = "train") -> Samples:
    """The samples of a section's source.

    Raises:
        Refused: where files are missing or do not fit together.
    """
    return source(section, folder).open(split)


def dataset_info(section: DataSection, folder: Path) -> DatasetInfo:
    """What the samples of a section's source are like.

    Raises:
        Refused: where that needs files which are missing.
    """
    return source(section, folder).info


def to_download(section: DataSection, folder: Path) -> int | None:
    """How many training samples a section's source will have that are not there yet, where the scenario lets
    us download them."""
    return source(section, folder).to_download
