"""Whose data: sources of captioned images, and the partition that says which client holds which."""

from fedray.data.partition import holdings
from fedray.data.samples import Form, Samples
from fedray.data.sources import form, open_source

__all__ = ["Form", "Samples", "form", "holdings", "open_source"]
