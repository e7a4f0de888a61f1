"""`runtime.report_to`: trackers by their names, and a user's own callbacks."""

from importlib.util import find_spec

from fedray.callbacks import Callback
from fedray.scenario.base import Refused
from fedray.scenario.kinds import implementation
from fedray.scenario.load import Loaded
from fedray.scenario.runtime import TRACKERS, Reporter


def reporters(loaded: Loaded) -> list[Callback]:
    """The callbacks that a scenario asks for.

    Raises:
        Refused: for a tracker that is not installed, and for a callback that cannot be made.
    """
    named = loaded.scenario.runtime.report_to
    return [_reporter(f"runtime.report_to.{n}", reporter) for n, reporter in enumerate(named)]


def _reporter(key: str, reporter: Reporter) -> Callback:
    if isinstance(reporter, str):
        if find_spec(reporter) is None:
            raise Refused(key, f"{reporter}, which is not installed", f"pip install {TRACKERS[reporter]}")
        from fedray.callbacks.trackers import Tracker

        return Tracker(reporter)
    try:
        callback: Callback = implementation(reporter)(reporter)
    except Exception as e:
        got = f"{reporter.kind}, which cannot be made ({type(e).__name__}: {e})"
        raise Refused(key, got, "a class that takes its section") from None
    return callback
