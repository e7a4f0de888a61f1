"""What becomes of an update whose client began with an older model than the one that it joins."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from fedray.aggregation.staleness import Staleness
from fedray.scenario.kinds import implementation
from fedray.scenario.mode import ModeSection


class Mode(ABC):
    """A mode of asynchronous rounds. One of one's own, which takes stale updates as they are:

        class AsTheyAre(fedray.Mode):
            def contribution(self, change, staleness, drift):
                return change

    Args:
        section: the scenario's `topology.mode`.
    """

    Section: ClassVar[type[ModeSection]] = ModeSection

    needs_drift = False  # whether `contribution` asks how far the global model has moved meanwhile

    def __init__(self, section: Any) -> None:
        self.section = section
        self.staleness: Staleness = implementation(section.staleness)(section.staleness)

    @abstractmethod
    def contribution(self, change: Tensor, staleness: int, drift: Tensor | None) -> Tensor:
        """What is accumulated of an update [sent] fp32.

        Args:
            change: the client's model minus the one that it received [sent] fp32.
            staleness: server steps that were taken in between.
            drift: the model that it received minus the global one now [sent] fp32; None where `needs_drift`
                is False.
        """


class FedBuffMode(Mode):
    """s(t) (x_k - x_base): the mean of these is the server's step (Nguyen et al. 2022, Algorithm 1)."""

    def contribution(self, change: Tensor, staleness: int, drift: Tensor | None) -> Tensor:
        factor = self.staleness.factor(staleness)
        return change if factor == 1.0 else change * factor


class FedAsyncMode(Mode):
    """m (x_k - x) with m = mixing s(t), so that x becomes (1 - m) x + m x_k (Xie et al. 2019, Algorithm
    1)."""

    needs_drift = True

    def contribution(self, change: Tensor, staleness: int, drift: Tensor | None) -> Tensor:
        assert drift is not None
        return (change + drift) * (self.section.mixing * self.staleness.factor(staleness))
