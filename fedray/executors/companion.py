"""What a scenario has the server do beside its clients' round: generate images, train a model of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from fedray.executors.reports import TrainReport

# What it keeps between rounds, in the server's state: its model, and what that weighed.
COMPANION_STATE = "augmented"
COMPANION_KAPPA = "augmented kappa_2"


class CompanionRound(NamedTuple):
    """What is done beside one round. `Any` stands for what the companion itself understands."""

    client_samples: Any = None  # ExtraSamples that join each client's own, known beforehand
    prepare: Any = None  # of what the server makes such samples
    train: Any = None  # on what the server trains a model of its own


class Companion(Protocol):
    """Lives where the server does, and keeps its models resident."""

    def prepare(self, task: Any) -> Any:
        """Samples that join each client's own (see local_training.ExtraSamples)."""

    def train(
        self, round_number: int, task: Any, buffer: np.ndarray, state: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, TrainReport]:
        """The server's own local update from the global model: its numbers [numel] fp32, and the report.

        Args:
            round_number: from 1.
            task: what the planner gave for this round.
            buffer: the global one.
            state: the server's.
        """

    def mix(
        self,
        layout: Any,
        round_number: int,
        buffer: np.ndarray,
        state: dict[str, np.ndarray],
        trained: tuple[np.ndarray, TrainReport],
    ) -> tuple[np.ndarray, dict[str, np.ndarray], TrainReport]:
        """The next global buffer and server state, of what the clients' round made and of what `train` did;
        and the server's report.

        Args:
            layout: of what travels.
            round_number: from 1.
            buffer: that the clients' round made.
            state: the server's, after it.
            trained: what `train` gave.
        """

    def audit(self, buffer: np.ndarray, task: Any, grid: Path, audited: Sequence[Any]) -> dict[str, Any]:
        """How good the data of the last round's clients, and the companion's own, are for the global
        model.

        Args:
            buffer: the global one.
            task: what the planner gave for the audit.
            grid: where a sheet of images is written.
            audited: each client's data; None for one whose data cannot be read.
        """
