"""Whose data: sources of captioned images, and the partition that says which client holds which."""

from fedray.data.partition import holdings
from fedray.data.sources import Samples, open_source

__all__ = ["Samples", "holdings", "open_source"]
