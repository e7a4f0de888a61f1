"""`runtime.report_to`: trackers by their names, and a user's own callbacks."""

from importlib.util import find_spec
from inspect import isclass

from fedray.callbacks import Callback
from fedray.scenario.base import Refused
from fedray.scenario.load import Loaded
from fedray.scenario.plugins import import_attribute
from fedray.scenario.runtime import TRACKERS

KEY = "runtime.report_to"


def reporters(loaded: Loaded) -> list[Callback]:
    """The callbacks that a scenario asks for.

    Raises:
        Refused: for a tracker that is not installed, a module that cannot be imported, or a class that is no
            callback.
    """
    return [_reporter(name, loaded) for name in loaded.scenario.runtime.report_to]


def _reporter(name: str, loaded: Loaded) -> Callback:
    if name in TRACKERS:
        if find_spec(name) is None:
            raise Refused(KEY, f"{name}, which is not installed", f"pip install {TRACKERS[name]}")
        from fedray.callbacks.trackers import Tracker

        return Tracker(name)
    kind = import_attribute(name, loaded, KEY)
    if not isclass(kind) or not issubclass(kind, Callback):
        raise Refused(KEY, f"{name}, which is no fedray.Callback", "module:Class of a subclass")
    try:
        callback: Callback = kind()
    except Exception as e:
        raise Refused(
            KEY, f"{name}, which cannot be made ({type(e).__name__}: {e})", "one without arguments"
        ) from None
    return callback
