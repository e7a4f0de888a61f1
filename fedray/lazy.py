"""Names of things that are imported only once somebody needs them."""

from importlib import import_module
from typing import Any


def resolve(path: str) -> Any:
    """What `package.module:attribute` names.

    Raises:
        ImportError: for a module that is not there or does not import.
        AttributeError: for a module without that attribute.
    """
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)
