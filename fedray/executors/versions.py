"""The models that clients begin with, where these are not all the newest global one: older versions of it,
and the models of nodes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fedray.runs.state import Saved
from fedray.schedule import Schedule


class Aged(NamedTuple):
    """How old the model is that some clients of a round began with.

    Attributes:
        staleness: how many server steps older than the newest.
        newest: the newest global buffer, where the mode asks how far it has moved; None: it does not.
    """

    staleness: int
    newest: Any


class Start(NamedTuple):
    """With what some clients of a round begin: with a global model so many server steps older than the
    newest, or with a node's own."""

    staleness: int = 0
    node: int | None = None


class Versions:
    """Buffers that clients begin with beside the newest global one, which in a Ray executor are references:
    those that clients under way had from the server, by how many server steps had made them, and those of
    nodes."""

    def __init__(self, initial: Any = None) -> None:
        self.initial = initial  # the buffer before the first round, with which every node begins
        self.buffers: dict[int, Any] = {}
        self.nodes: dict[int, Any] = {}

    def base(self, schedule: Schedule, start: Start, newest: Any) -> Any:
        """The buffer that a round's clients of this start began with.

        Args:
            schedule: of the round.
            start: of these clients.
            newest: the newest global buffer.
        """
        if start.node is not None:
            return self.node(start.node)
        return self.buffers[schedule.round - 1 - start.staleness] if start.staleness else newest

    def node(self, number: int) -> Any:
        """A node's buffer."""
        return self.nodes.get(number, self.initial)

    def own(self, clients: Sequence[int]) -> dict[int, Any]:
        """The buffers of clients that are nodes themselves, by client."""
        return {client: self.node(client) for client in clients}

    def keep(self, schedule: Schedule, before: Any) -> None:
        """What is still in use after a round, of which `before` was the newest."""
        known = self.buffers | {schedule.round - 1: before}
        self.buffers = {version: known[version] for version in sorted(schedule.versions_in_use)}

    def files(self) -> dict[str, Any]:
        """All of them, by the names of their files in a checkpoint."""
        versions = {f"version-{version}.safetensors": buffer for version, buffer in self.buffers.items()}
        return versions | {f"node-{node}.safetensors": buffer for node, buffer in self.nodes.items()}


def held_files(saved: Saved) -> Iterator[tuple[str, int, str]]:
    """What a checkpoint has of them: the attribute of Versions, the number and the file of each."""
    yield from (("buffers", version, name) for version, name in saved.versions.items())
    yield from (("nodes", node, name) for node, name in saved.nodes.items())


def by_start(schedule: Schedule, clients: Sequence[int]) -> list[tuple[Start, list[int]]]:
    """The clients of a round by what they begin with, the newest first; all of them in one where they begin
    together."""
    starts: dict[Start, list[int]] = {}
    for client in clients:
        models = schedule.models
        node = models.node_of[client] if models is not None and models.kept else None
        starts.setdefault(Start(schedule.staleness.get(client, 0), node), []).append(client)
    return sorted(starts.items())
