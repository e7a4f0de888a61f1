"""How much the clients' mean and the augmented model count in the next global model: kappa_1 and kappa_2 of
Eq. (1) (GenFL, Qiang et al. 2024, Sec. III-D and V-2)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from fedray.scenario.weighting import WeightingSection


@dataclass(frozen=True)
class WeightingContext:
    """What the server knows when it weighs the two models of a round."""

    round_number: int  # from 1
    rounds: int  # of the run
    clients: Tensor  # the clients' mean [numel] fp32
    augmented: Tensor  # the augmented model [numel] fp32
    kappa_2: float | None  # of the round before, where the Section keeps it; None: there was none
    # `accuracy` and `loss` (cross entropy, nats) of a model [numel] fp32 on the held-out images
    measure: Callable[[Tensor], Mapping[str, float]]
    augmented_flops: Callable[[], float]  # that the server spends on the augmented model in this round


class Weighting(ABC):
    """Weighs the two models of a round. Which steps a round has does not depend on it: the clock has counted
    them before. A weighting of one's own that trusts the augmented model half as much each round:

        class Halving(fedray.Weighting):
            class Section(fedray.Weighting.Section):
                keeps_kappa = True

            def kappas(self, context):
                second = 0.5 if context.kappa_2 is None else context.kappa_2 / 2
                return 1 - second, second

    Args:
        section: the scenario's `augmentation.weighting`.
    """

    Section: ClassVar[type[WeightingSection]] = WeightingSection

    def __init__(self, section: Any) -> None:
        self.section = section

    @abstractmethod
    def kappas(self, context: WeightingContext) -> tuple[float, float]:
        """kappa_1, the weight of the clients' mean, and kappa_2, that of the augmented model."""


class Scheduled(Weighting):
    """Weights that are known before the first round."""

    def kappas(self, context: WeightingContext) -> tuple[float, float]:
        known: tuple[float, float] = self.section.kappas(context.round_number, context.rounds)
        return known


class HeldOut(Weighting):
    """By the two models' accuracies on held-out images."""

    def kappas(self, context: WeightingContext) -> tuple[float, float]:
        models = (context.clients, context.augmented)
        scores = [context.measure(numbers)["accuracy"] ** self.section.power for numbers in models]
        second = scores[1] / sum(scores) if sum(scores) else 0.5
        return 1 - second, second


class LineSearch(Weighting):
    """The best of several mixes on held-out images."""

    def kappas(self, context: WeightingContext) -> tuple[float, float]:
        section = self.section
        before = context.kappa_2
        if before is not None and not section.searches(context.round_number):
            return 1 - before, before
        second = self._best(context)
        if before is not None:
            second = section.smoothing * before + (1 - section.smoothing) * second
        return 1 - second, second

    def _best(self, context: WeightingContext) -> float:
        """The kappa_2 of the mix that costs least; of equals the least kappa_2."""
        section = self.section
        price = 0.0
        if section.tflop_price:
            price = section.tflop_price * context.augmented_flops() / 1e12
        tried = np.linspace(0, 1, section.mixes)
        costs = [self._cost(context, float(kappa_2)) + price * float(kappa_2) for kappa_2 in tried]
        return float(tried[int(np.argmin(np.nan_to_num(costs, nan=np.inf)))])

    def _cost(self, context: WeightingContext, kappa_2: float) -> float:
        mix = mixed(context.clients, context.augmented, 1 - kappa_2, kappa_2)
        measured = context.measure(mix)
        return measured["loss"] if self.section.criterion == "loss" else -measured["accuracy"]


def mixed(clients: Tensor, augmented: Tensor, kappa_1: float, kappa_2: float) -> Tensor:
    """Eq. (1): kappa_1 times the clients' mean plus kappa_2 times the augmented model, [numel] fp32.

    Args:
        clients: their mean [numel] fp32.
        augmented: the augmented model [numel] fp32.
        kappa_1: the weight of the first.
        kappa_2: the weight of the second.
    """
    return (kappa_1 * clients.double() + kappa_2 * augmented.double()).float()
