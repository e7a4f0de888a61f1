"""How many pictures are generated in a round. No torch here: amounts are known before a round is run."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fedray.network.clock import time_round
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.randomness import SERVER
from fedray.scenario.amount import AmountSection
from fedray.topologies.parallel import parallel


@dataclass(frozen=True)
class RoundCosts:
    """What a round's steps cost, as the clock knows it.

    Attributes:
        work: what each step does.
        radio: the links and devices.
        start: the round, and when it begins.
    """

    work: Work
    radio: Radio
    start: RoundStart


@dataclass(frozen=True)
class AmountContext:
    """What an amount is decided by.

    Attributes:
        labels: how many labels there are.
        painting_round: which round of painting this is for whoever paints, from 1.
        had: pictures that whoever paints has.
        clients: of the round.
        samples: that all clients have together.
        costs: of the round; None: not known.
        held: samples of each client, by number.
        pictures: that each client of the round has.
    """

    labels: int
    painting_round: int
    had: int
    clients: Sequence[int] = ()
    samples: int = 0
    costs: RoundCosts | None = None
    held: Sequence[int] = ()
    pictures: Mapping[int, int] = field(default_factory=dict)


class Amount(ABC):
    """How many pictures are generated, such as all in the first round:

        class AtOnce(fedray.Amount):
            def total(self, context):
                return context.labels * self.augmentation.at_most

    Args:
        section: the scenario's `augmentation.amount`.
        augmentation: the section that it is in.
    """

    Section: ClassVar[type[AmountSection]] = AmountSection

    def __init__(self, section: Any, augmentation: Any) -> None:
        self.section = section
        self.augmentation = augmentation

    @abstractmethod
    def total(self, context: AmountContext) -> int:
        """How many pictures whoever paints has by the end of the round, at least `context.had`."""

    def each(self, context: AmountContext) -> dict[int, int] | None:
        """How many pictures each client of the round has by its end, at least `context.pictures`, where that
        is decided for all together and pictures are the clients'. None: as `total` says, for each."""
        return None


class PerClassAmount(Amount):
    """`per_class` of each label in each round."""

    def total(self, context: AmountContext) -> int:
        section = self.augmentation
        return context.labels * min(section.per_class * context.painting_round, section.at_most)


class HiddenAmount(Amount):
    """As many as hide behind the clients' local updates, in whole batches."""

    def total(self, context: AmountContext) -> int:
        costs = context.costs
        batch = self.augmentation.batch_size
        most = context.labels * self.augmentation.at_most
        if costs is None:
            return context.had
        clients_s = _clients_s(context.clients, costs)
        server = costs.radio.server

        def train_s(total: int) -> float:
            return server.time_s(costs.work.train_flops(SERVER, total))

        picture_s = server.time_s(costs.work.generate_flops)
        low = 0
        high = -(-(most - context.had) // batch)
        while low < high:  # the more there are, the longer the server trains
            middle = (low + high + 1) // 2
            total = min(context.had + middle * batch, most)
            if hidden(clients_s, train_s(total), picture_s) >= total - context.had:
                low = middle
            else:
                high = middle - 1
        return min(context.had + low * batch, most)


class ErrorEnergyAmount(PerClassAmount):
    """As many as balance learning error and energy."""

    def total(self, context: AmountContext) -> int:
        usual = super().total(context)
        if context.costs is None:
            return usual
        section = self.section
        best = best_amount(
            a=section.scale,
            b=section.exponent,
            samples=context.samples,
            quality=section.quality,
            price=section.error_price,
            picture_j=context.costs.radio.server.energy_j(context.costs.work.generate_flops),
        )
        return max(context.had, min(usual, math.floor(best + 1e-9)))


def hidden(clients_s: float, train_s: float, picture_s: float) -> int:
    """How many pictures are done while the server would wait: floor((T_clients - T_train) / (F / f)).

    Args:
        clients_s: T_clients, when the last update arrives, in seconds since the round's start.
        train_s: T_train, of the augmented model.
        picture_s: F / f, seconds that a picture takes.
    """
    return max(0, math.floor((clients_s - train_s) / picture_s + 1e-9))


def best_amount(a: float, b: float, samples: float, quality: float, price: float, picture_j: float) -> float:
    """The n >= 0 with the least price a (samples + quality n)^-b + picture_j n, where its derivative is 0:
    ((price a b quality / picture_j)^(1 / (1 + b)) - samples) / quality.

    Args:
        a: scale of the error.
        b: exponent of the error.
        samples: real ones.
        quality: real samples that a picture is worth.
        price: joules that an error of 1 costs.
        picture_j: joules of a picture.
    """
    worth = (price * a * b * quality / picture_j) ** (1 / (1 + b))
    return max(0.0, (worth - samples) / quality)


def _clients_s(clients: Sequence[int], costs: RoundCosts) -> float:
    """When the last update of a round arrives, in seconds since its start."""
    schedule = parallel(costs.start.round_number, clients, False)
    events = time_round(schedule, costs.work, costs.radio, costs.start.time_s)
    arrivals = [e.t1_s for e in events if e.direction == "uplink" and e.outcome == "done"]
    return max(arrivals, default=costs.start.time_s) - costs.start.time_s
