"""What a checkpoint's files should be."""

from dataclasses import dataclass
from pathlib import Path


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

    def _numbered(self, prefix: str) -> dict[int, str]:
        own = [name for name in self.files if name.startswith(prefix)]
        return {int(Path(name).stem.removeprefix(prefix)): name for name in own}
