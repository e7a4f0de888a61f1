"""The one kind of error that is not a defect of ours, and how the others are told in a line."""


class UserError(ValueError):
    """A user's mistake: its lines are all a command line says of it."""


def reason(e: Exception) -> str:
    """Why something failed, in one line."""
    return (getattr(e, "strerror", None) or str(e) or type(e).__name__).split("\n")[0]
