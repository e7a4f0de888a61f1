"""Global buffers by version, while clients that began with them are under way."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fedray.schedule import Schedule


class Aged(NamedTuple):
    """How old the model is that some clients of a round began with.

    Attributes:
        staleness: how many server steps older than the newest.
        newest: the newest global buffer, where the mode asks how far it has moved; None: it does not.
    """

    staleness: int
    newest: Any


class Versions:
    """The buffers that clients under way had from the server, each by how many server steps had made it; in a
    Ray executor references to them."""

    def __init__(self) -> None:
        self.buffers: dict[int, Any] = {}

    def base(self, schedule: Schedule, staleness: int, newest: Any) -> Any:
        """The buffer that a round's clients of this staleness began with."""
        return self.buffers[schedule.round - 1 - staleness] if staleness else newest

    def keep(self, schedule: Schedule, before: Any) -> None:
        """What is still in use after a round, of which `before` was the newest."""
        known = self.buffers | {schedule.round - 1: before}
        self.buffers = {version: known[version] for version in sorted(schedule.versions_in_use)}


def by_staleness(schedule: Schedule, clients: Sequence[int]) -> list[tuple[int, list[int]]]:
    """The clients of a round by how old the models are that they began with, the newest first; all of them in
    one where they begin together."""
    ages: dict[int, list[int]] = {}
    for client in clients:
        ages.setdefault(schedule.staleness.get(client, 0), []).append(client)
    return sorted(ages.items())
