"""`fedray`: a verb a function, over fedray.api. Anything slow to import is imported by the verb that needs
it."""

from fedray.cli import execution, results, scenarios
from fedray.cli.shared import app, fail
from fedray.errors import UserError

__all__ = ["app", "execution", "main", "results", "scenarios"]


def main() -> None:
    """The command line. A user's mistake is one line and exit code 2, never a traceback."""
    try:
        app()
    except UserError as e:
        fail(str(e).split("\n"), 2)
