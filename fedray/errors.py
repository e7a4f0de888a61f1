"""The one kind of error that is not a defect of ours."""


class UserError(ValueError):
    """A user's mistake: its lines are all a command line says of it."""
