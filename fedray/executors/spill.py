"""What clients keep between their turns, where all are in one process: in memory up to a budget, past it on
disk. (On Ray these are objects in its store, which spills by itself.)"""

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fedray.transport.buffer import load_arrays, save_arrays

BUDGET = 1 << 30  # bytes
StateArrays = dict[str, np.ndarray]  # a state as it travels and is stored: the server's, or a client's


class ClientStates(MutableMapping[int, StateArrays]):
    """By client. Those that were used longest ago leave memory first."""

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = budget
        self._memory: dict[int, StateArrays] = {}
        self._disk: dict[int, str] = {}  # the sha256 of each one's file
        self._folder = TemporaryDirectory(prefix="fedray-clients-")

    def __getitem__(self, client: int) -> StateArrays:
        if client in self._disk:
            self[client] = load_arrays(self._file(client), self._disk[client])
        self._memory[client] = state = self._memory.pop(client)  # now the one used last
        return state

    def __setitem__(self, client: int, state: StateArrays) -> None:
        self._memory.pop(client, None)
        if self._disk.pop(client, None):
            self._file(client).unlink()
        self._memory[client] = state
        while len(self._memory) > 1 and sum(map(_nbytes, self._memory.values())) > self.budget:
            oldest = next(iter(self._memory))
            self._disk[oldest] = save_arrays(self._memory.pop(oldest), self._file(oldest))

    def __delitem__(self, client: int) -> None:
        self[client]
        del self._memory[client]

    def __iter__(self) -> Iterator[int]:
        return iter([*self._memory, *self._disk])

    def __len__(self) -> int:
        return len(self._memory) + len(self._disk)

    def _file(self, client: int) -> Path:
        return Path(self._folder.name) / str(client)


def _nbytes(state: StateArrays) -> int:
    return sum(array.nbytes for array in state.values())
