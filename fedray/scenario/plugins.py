"""Classes of a user's own: `module:Class`, beside the scenario or installed."""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from fedray.scenario.base import Refused
from fedray.scenario.load import Loaded

RESOLVED = "scenario.resolved.yaml"


def import_attribute(reference: str, loaded: Loaded, key: str) -> Any:
    """What `module:Class` names: in a file beside the scenario, or in an installed module.

    A run folder may be a stranger's: beside a resolved scenario nothing is looked for, but in the folder that
    the user is in.

    Args:
        reference: module and attribute, which may have dots.
        loaded: the scenario that names it.
        key: where it does, for errors.

    Raises:
        Refused: where there is no such module or attribute, or the module cannot be imported, with the last
            line of its traceback.
    """
    folder = Path.cwd() if loaded.file.name == RESOLVED else loaded.folder.resolve()
    name, _, attribute = reference.partition(":")
    found: Any = _import(name, folder, reference, key)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise Refused(key, f"{reference}, but {name} has no {part}", "module:Class of a class in it")
        found = getattr(found, part)
    return found


def _import(name: str, folder: Path, reference: str, key: str) -> ModuleType:
    file = folder / (name.replace(".", "/") + ".py")
    sys.path.insert(0, str(folder))
    try:
        known = sys.modules.get(name)
        if file.is_file() and known is not None and Path(getattr(known, "__file__", None) or "") != file:
            del sys.modules[name]  # another scenario's module of the same name
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name is None or not (name == e.name or name.startswith(f"{e.name}.")):
            raise _failed(e, reference, key) from None
        expected = f"{file.name} in {folder}, or an installed package"
        raise Refused(key, f"{reference}, whose module is not there", expected) from None
    except Exception as e:
        raise _failed(e, reference, key) from None
    finally:
        sys.path.remove(str(folder))


def _failed(error: Exception, reference: str, key: str) -> Refused:
    """The last line of a user's own traceback, with its file and line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{frame.filename}:{frame.lineno}: {type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}"
    return Refused(key, f"{reference}, which cannot be imported ({where})", "a module without errors")
