"""Data: sources of captioned images or texts, and the partition that says which client has which."""

from fedray.data.clients import held_out, holdings, holdings_for_tests
from fedray.data.dataset import Dataset
from fedray.data.samples import DatasetInfo, DatasetSamples, Samples
from fedray.data.source import Source
from fedray.data.sources import dataset_info, open_source

__all__ = [
    "Dataset",
    "DatasetInfo",
    "DatasetSamples",
    "Samples",
    "Source",
    "dataset_info",
    "held_out",
    "holdings",
    "holdings_for_tests",
    "open_source",
]
