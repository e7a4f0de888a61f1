"""A scenario's data set, each of its halves opened once."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

from fedray.data.samples import Array, DatasetInfo, Samples
from fedray.data.sources import source
from fedray.scenario.base import Refused
from fedray.scenario.data import DataSection
from fedray.scenario.scenario import Scenario


class Dataset:
    """The samples of a `data` section, opened when they are first asked for and kept from then on: one is
    made a process and passed to whoever needs it. Each property raises Refused where files are missing or do
    not fit together."""

    def __init__(
        self, section: DataSection, folder: Path, condition_column: str | None = None, seed: int = 0
    ) -> None:
        """
        Args:
            section: the scenario's `data`.
            folder: where its relative paths start.
            condition_column: of metadata.jsonl, that names a condition picture of each sample; None: there is
                none.
            seed: the scenario's, of what is drawn in clients' environments.
        """
        self.section = section
        self.folder = folder
        self.condition_column = condition_column
        self.source = source(section, folder)
        self.source.condition_column = condition_column
        self.seed = seed
        self.source.seed = seed

    @classmethod
    def of(cls, scenario: Scenario, folder: Path) -> "Dataset":
        """A scenario's: images need no captions where the model reads none."""
        section = scenario.data if scenario.model.reads_captions else scenario.data.without_captions()
        seed = scenario.seed if section.has_environments else 0  # of other data, none of it depends on it
        return cls(section, folder, scenario.model.condition_column, seed)

    def is_of(self, other: "Dataset") -> bool:
        """Whether both are the same data."""
        return self._made_of == other._made_of

    @property
    def _made_of(self) -> tuple[DataSection, Path, str | None, int]:
        return self.section, self.folder, self.condition_column, self.seed

    def __reduce__(self) -> tuple[type["Dataset"], tuple[DataSection, Path, str | None, int]]:
        return Dataset, self._made_of  # another process opens it itself

    @cached_property
    def info(self) -> DatasetInfo:
        return self.source.info

    @cached_property
    def train(self) -> Samples:
        samples = self.source.train
        names = self.section.names_of_labels
        for name in names:
            if name not in samples.label_names:
                expected = f"a label: {', '.join(samples.label_names)}"
                raise Refused("data.caption_names", repr(name), expected)
        if not names:
            return samples
        assert isinstance(samples, Array), "captions of others are the user's own"
        return replace(samples, called=[names.get(name, name) for name in samples.label_names])

    @property
    def test(self) -> Samples:
        return self.source.test

    @property
    def has_test_set(self) -> bool:
        return self.source.has_test_set

    @property
    def real(self) -> Samples:
        """What results are compared with: the test set, or all samples where there is none."""
        return self.test if self.has_test_set else self.train
