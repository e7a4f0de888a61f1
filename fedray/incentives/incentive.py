"""The base class of incentive mechanisms: who wins a round, and what each winner is paid."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fedray.incentives.contributions import Worth, leave_one_out
from fedray.scenario.incentive import IncentiveSection, MechanismSection


@dataclass(frozen=True)
class Offers:
    """What a mechanism decides by, in money.

    Attributes:
        values: what each client's part in the round is worth to the server [n].
        bids: what each client says that its part costs it [n]; infinite for one out of reach. Where that
            depends on what is decided, [n, alternatives]: a column for each cut of a split model, or in a
            relay for each client that it may hand the model to, where its own is the server. Or the share
            of each label that each client reports [n, labels].
        most: how many may win.
        known: what the server knows of the true costs, which is all but the private factor [n]; None: where
            bids have alternatives.
        audited: the label, by number, of a sample of each client that the server has looked at [n], where the
            bids are reported shares of labels; None: where not.
    """

    values: np.ndarray
    bids: np.ndarray
    most: int
    known: np.ndarray | None = None
    audited: np.ndarray | None = None


@dataclass(frozen=True)
class Outcome:
    """What a mechanism decides.

    Attributes:
        winners: their places among the offers [k] int, in ascending order; in a relay in the order in which
            they train.
        payments: what each of them is paid, in money [k].
        efforts: which share of its samples each of them trains on, above 0 and at most 1 [k]; None: all.
        cut: of a split model, its place among the alternatives; None: nothing is decided about it.
    """

    winners: np.ndarray
    payments: np.ndarray
    efforts: np.ndarray | None = None
    cut: int | None = None

    def utility(self, place: int, cost: float) -> float:
        """What a bidder gains: its payment less its true cost; 0 for one that does not win.

        Args:
            place: its place among the offers.
            cost: its true cost, in money.
        """
        paid = self.payments[self.winners == place]
        return float(paid[0] - cost) if len(paid) else 0.0


class Incentive(ABC):
    """A way to choose a round's clients by their bids, and to pay them, such as the cheapest, each paid what
    it bids (which invites bids above the true cost):

        class PayAsBid(fedray.Incentive):
            def decide(self, offers):
                winners = np.sort(np.argsort(offers.bids, kind="stable")[: offers.most])
                return fedray.Outcome(winners, offers.bids[winners])

    Args:
        section: the scenario's `incentive`.
    """

    Section: ClassVar[type[MechanismSection]] = IncentiveSection

    def __init__(self, section: Any) -> None:
        self.section = section

    @abstractmethod
    def decide(self, offers: Offers) -> Outcome:
        """The winners among these offers, and their payments."""

    def contributions(self, players: int, worth: Worth) -> np.ndarray:
        """What the update of each player adds [players], where the section has `validation_images`: then
        these are the values by which is decided.

        Args:
            players: how many updates have arrived.
            worth: of the model that is made of those of a coalition.
        """
        return leave_one_out(players, worth)

    def winners_costs(self, outcome: Outcome, costs: np.ndarray) -> np.ndarray:
        """What its part costs each winner, in money [k].

        Args:
            outcome: of these clients.
            costs: in the form of the offers' bids, such as their true costs.
        """
        own: np.ndarray = costs[outcome.winners]
        return own


def not_negative(name: str, numbers: np.ndarray | Sequence[float] | Sequence[Sequence[float]]) -> np.ndarray:
    """The same as an array of floats.

    Args:
        name: what they are, for the message.
        numbers: of any shape.

    Raises:
        ValueError: for one below zero, or that is no number.
    """
    array = np.asarray(numbers, dtype=float)
    if not (array >= 0).all():
        raise ValueError(f"{name}: got {array.tolist()}, expected numbers of at least 0")
    return array
