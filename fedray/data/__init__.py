"""Whose data: sources of captioned images, and the partition that says which client holds which."""

from fedray.data.partition import partition
from fedray.data.sources import Samples, open_source

__all__ = ["Samples", "open_source", "partition"]
