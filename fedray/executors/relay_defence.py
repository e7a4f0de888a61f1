"""What a client of a relay does with a model that another one hands it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor

from fedray.scenario.kinds import implementation
from fedray.scenario.relay_defence import RelayDefenceSection


@dataclass(frozen=True)
class Hop:
    """What a receiver has of a model that it is handed.

    Attributes:
        accepted: the numbers of the last accepted model [n] fp32, which the sender began with.
        change: what the sender changed of them [n] fp32.
        norms: of the changes that were accepted before in the chain.
        measure: the mean loss of numbers [n] over the receiver's own samples, as `loss`, and what the model
            measures beside it, such as `accuracy`.
    """

    accepted: Tensor
    change: Tensor
    norms: Sequence[float]
    measure: Callable[[Tensor], Mapping[str, float]]


class RelayDefence(ABC):
    """Judges what comes over a hop. One of one's own that rejects changes longer than a limit:

        class Short(fedray.RelayDefence):
            def receive(self, hop):
                return hop.change if hop.change.norm() < 1 else None

    Args:
        section: the scenario's `topology.defence`.
    """

    Section = RelayDefenceSection

    def __init__(self, section: Any) -> None:
        self.section = section

    @abstractmethod
    def receive(self, hop: Hop) -> Tensor | None:
        """The change [n] fp32 that the receiver goes on with, on top of the accepted model; None: it rejects
        it, and goes on with the accepted model as it is."""


class Validation(RelayDefence):
    """Clips by the median of the norms before, then compares loss and accuracy."""

    def receive(self, hop: Hop) -> Tensor | None:
        change = self._clipped(hop)
        before = hop.measure(hop.accepted)
        after = hop.measure(hop.accepted + change)
        if not after["loss"] <= before["loss"] * (1 + self.section.max_loss_growth):
            return None
        drop = self.section.max_accuracy_drop
        if drop is not None and before.get("accuracy", 0.0) - after.get("accuracy", 0.0) > drop:
            return None
        return change

    def _clipped(self, hop: Hop) -> Tensor:
        if self.section.max_norm is None or not hop.norms:
            return hop.change
        bound = self.section.max_norm * median(hop.norms)
        norm = float(hop.change.norm())
        return hop.change * (bound / norm) if norm > bound else hop.change


@dataclass(frozen=True)
class HandedOn:
    """What travels in a hop of a relay whose receivers judge what they get.

    Attributes:
        model: the buffer that the sender made.
        accepted: the buffer that it began with.
        sender: who made the model; None: nobody did since it was accepted.
        norms: of the chain's accepted changes.
    """

    model: np.ndarray
    accepted: np.ndarray
    sender: int | None = None
    norms: tuple[float, ...] = ()

    def copy(self) -> "HandedOn":
        """The same, with a model in memory of its own."""
        return replace(self, model=self.model.copy())


def relay_defence(section: RelayDefenceSection | None) -> RelayDefence | None:
    """The one that a scenario names, if it names one."""
    return None if section is None else implementation(section)(section)
