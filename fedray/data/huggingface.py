"""Data sets of the Hugging Face hub, and folders that its library reads."""

from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np

from fedray.data import tables
from fedray.data.samples import DatasetInfo, Samples, Split
from fedray.data.source import Source
from fedray.data.table_conversations import conversations
from fedray.data.table_images import TableImages
from fedray.scenario.huggingface import HuggingFace

if TYPE_CHECKING:
    from datasets import Dataset


class HuggingFaceSource(Source):
    """Splits of a data set: images with captions and labels, or conversations."""

    section: HuggingFace

    def open(self, split: Split) -> Samples:
        section = self.section
        key = "split" if split == "train" else "test_split"
        table = tables.open_table(section, self.folder, key)
        columns = section.columns
        labels, names = self._labels(table, split)
        if columns.image is None:
            return conversations(table, section, labels, names)
        captions = None
        if columns.caption is not None:
            captions = tables.texts(table, columns.caption, "data.columns.caption")
        channels = section.channels if split == "train" else self._images.channels
        root = tables.root_of(section, self.folder)
        return TableImages(table, columns.image, root, labels, names, captions, channels, section.pads)

    @property
    def info(self) -> DatasetInfo:
        if self.section.columns.image is None:
            return DatasetInfo(0, None, self.train.label_names)
        return DatasetInfo(self._images.channels, self._images.size, self._images.label_names)

    @property
    def _images(self) -> TableImages:
        return cast(TableImages, self.train)

    def _labels(self, table: "Dataset", split: Split) -> tuple[np.ndarray, list[str]]:
        """Those of a split; a test set has the labels of what is trained on."""
        column = self.section.columns.label
        if column is None:
            return np.zeros(len(table), np.int64), [self.section.called]
        names = None if split == "train" else self._label_names
        return tables.labels(table, column, "data.columns.label", names)

    @cached_property
    def _label_names(self) -> list[str]:
        column = self.section.columns.label
        assert column is not None
        return tables.labels(
            tables.open_table(self.section, self.folder, "split"), column, "data.columns.label"
        )[1]
