"""How much an update counts that was made from an older model."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from fedray.scenario.mode import StalenessSection


class Staleness(ABC):
    """A function of staleness. One of one's own, that halves with every step:

    >>> class Halving(Staleness):
    ...     def factor(self, staleness):
    ...         return 0.5**staleness
    >>> Halving(None).factor(2)
    0.25

    Args:
        section: the scenario's `topology.mode.staleness`.
    """

    Section: ClassVar[type[StalenessSection]] = StalenessSection

    def __init__(self, section: Any) -> None:
        self.section = section

    @abstractmethod
    def factor(self, staleness: int) -> float:
        """s(t), by which an update is multiplied.

        Args:
            staleness: t, at least 0: server steps between the model that the client received and the step
                that its update joins.
        """


class ConstantStaleness(Staleness):
    """s(t) = 1."""

    def factor(self, staleness: int) -> float:
        return 1.0


class PolynomialStaleness(Staleness):
    """s(t) = (1 + t)^-a (Xie et al. 2019, Sec. 5.2)."""

    def factor(self, staleness: int) -> float:
        return float((1.0 + staleness) ** -self.section.a)


class HingeStaleness(Staleness):
    """s(t) = 1 up to b, then 1 / (a (t - b) + 1) (Xie et al. 2019, Sec. 5.2)."""

    def factor(self, staleness: int) -> float:
        late = staleness - self.section.b
        return 1.0 if late <= 0 else 1.0 / (self.section.a * late + 1.0)
