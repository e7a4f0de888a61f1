"""What a scenario has the server do beside its clients' round: generate images, train a model of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from fedray.executors.reports import TrainReport

# What it keeps between rounds, in the server's state: its model, what that weighed, and what clients said of
# what it made.
COMPANION_STATE = "augmented"
COMPANION_KAPPA = "augmented kappa_2"
COMPANION_SCORES = "companion.scores"
COMPANION_KEPT = (COMPANION_STATE, COMPANION_KAPPA, COMPANION_SCORES)


class CompanionRound(NamedTuple):
    """What is done beside one round. `Any` stands for what the companion itself understands."""

    # ExtraSamples that join each client's own, known beforehand, or UsedSamples
    client_samples: Any = None
    prepare: Any = None  # of what the server makes such samples, or some that clients only score
    choose: Any = None  # what the server needs to make something of their scores
    train: Any = None  # on what the server trains a model of its own


class Companion(Protocol):
    """Lives where the server does, and keeps its models resident."""

    def prepare(self, task: Any, state: dict[str, np.ndarray]) -> Any:
        """Samples for each client (see round_samples.ExtraSamples).

        Args:
            task: what the planner gave for this round.
            state: the server's.
        """

    def choose(
        self, task: Any, state: dict[str, np.ndarray], reports: Sequence[TrainReport]
    ) -> dict[str, np.ndarray]:
        """The server's state with what clients' scores say.

        Args:
            task: what the planner gave for this round.
            state: the server's.
            reports: of the round's clients, with their scores.
        """

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

    def audit(
        self,
        buffer: np.ndarray,
        state: dict[str, np.ndarray],
        task: Any,
        grid: Path,
        audited: Sequence[Any],
    ) -> dict[str, Any]:
        """How good the data of the last round's clients, and the companion's own, are for the global
        model.

        Args:
            buffer: the global one.
            state: the server's.
            task: what the planner gave for the audit.
            grid: where a sheet of images is written.
            audited: each client's data; None for one whose data cannot be read.
        """
