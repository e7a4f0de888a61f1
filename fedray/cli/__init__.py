"""`fedray`: a verb a function, over fedray.api. Anything slow to import is imported by the verb that needs
it."""

import os

from fedray.cli import execution, publishing, results, scenarios, service
from fedray.cli.shared import app, fail
from fedray.errors import UserError, reason

__all__ = ["app", "execution", "main", "publishing", "results", "scenarios", "service"]


def main() -> None:
    """The command line. A user's mistake is one line and exit code 2, never a traceback; what a kind of the
    user's own raises is one line and exit code 1, unless FEDRAY_TRACEBACK asks for the traceback."""
    try:
        app()
    except UserError as e:
        fail(str(e).split("\n"), 2)
    except Exception as e:
        from fedray.scenario import plugins

        line = plugins.at_users_line(e)
        if not line or os.environ.get("FEDRAY_TRACEBACK"):
            raise
        fail([f"{type(e).__name__}: {reason(e)}{line}", "FEDRAY_TRACEBACK=1 shows the traceback"], 1)
