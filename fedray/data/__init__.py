"""Whose data: sources of captioned images, and the partition that says which client holds which."""

from fedray.data.dataset import Dataset
from fedray.data.partition import holdings
from fedray.data.samples import DatasetInfo, Samples
from fedray.data.sources import dataset_info, open_source

__all__ = ["Dataset", "DatasetInfo", "Samples", "dataset_info", "holdings", "open_source"]
