"""What a checkpoint knows of itself."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedray.network.ledger import Ledger


@dataclass(frozen=True)
class Saved:
    """What a checkpoint's files should be."""

    weights_sha256: str  # of the global buffer
    files: dict[str, str]  # sha256 of every other file: the server's state, the clients'

    @property
    def clients(self) -> dict[int, str]:
        """The file of each client that has a state."""
        return self._numbered("client-")

    @property
    def versions(self) -> dict[int, str]:
        """The file of each older model that clients under way began with."""
        return self._numbered("version-")

    @property
    def nodes(self) -> dict[int, str]:
        """The file of the model of each node that has one of its own."""
        return self._numbered("node-")

    def _numbered(self, prefix: str) -> dict[int, str]:
        own = [name for name in self.files if name.startswith(prefix)]
        return {int(Path(name).stem.removeprefix(prefix)): name for name in own}


@dataclass(frozen=True)
class State:
    """What a checkpoint knows beside the weights."""

    round: int
    saved: Saved
    ledger: Ledger
    wall_time_s: float
    failures: int
    metrics_lines: int
    timeline_lines: int
    clients_lines: int = 0  # none of a checkpoint of before there was that file
    client_tests_lines: int = 0  # nor of one before these were tested
    # see fingerprint.py; none of a checkpoint of before there was one
    belongs: dict[str, Any] = field(default_factory=dict)
