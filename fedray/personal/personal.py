"""The base class of what a client does for a model of its own, and what it is given."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from torch import Tensor

from fedray.scenario.personal import PersonalSection

Part = Literal["all", "home", "travelling"]
# Changes a gradient in place, given the weights; both of all that trains.
Adjust = Callable[[Tensor, Tensor], None]


class ClientModel(Protocol):
    """A client's model in its local update, and the steps that train it. n are all its numbers: what stays at
    home (`tuning.local`), then what travels.

    Attributes:
        numbers: [n] fp32, in place: may be written. What travels of them when the local update ends is sent,
            and the part at home is kept.
        received: [n] fp32, as the local update began: the global model, and what the client keeps at home.
        trained: where the numbers that train are among the n.
        state: what `local_update` gave the last time that this client trained; nothing the first time.
        batches: of the local update, as `training` says: places among the client's samples.
    """

    numbers: Tensor
    received: Tensor
    trained: slice
    state: Mapping[str, Tensor]
    batches: Sequence[np.ndarray]

    def own_batches(self, epochs: int | None) -> list[np.ndarray]:
        """Other batches of the client's samples: of so many passes; for None, as many as `training` says."""

    def step(self, batch: np.ndarray, part: Part = "all") -> None:
        """A step of the local update, with what the rule adds to its gradient.

        Args:
            batch: places among the client's samples.
            part: of the model, that it trains.
        """

    def own_step(self, batch: np.ndarray, part: Part = "all", adjust: Adjust | None = None) -> None:
        """A step whose result stays at home: the rule knows nothing of it.

        Args:
            batch: places among the client's samples.
            part: of the model, that it trains.
            adjust: changes the gradient of all that trains, after it was clipped; only with part all.
        """

    def restart(self) -> None:
        """The optimizer has seen nothing."""


class Personal(ABC):
    """What a client does in its local update for a model of its own.

    Args:
        section: the scenario's `personal`.

    A kind of one's own, in which a client's own model is the mean of the global one and of its last own:

        class Halfway(fedray.Personal):
            class Section(fedray.Personal.Section):
                keeps_state = True

            def local_update(self, model):
                for batch in model.batches:
                    model.step(batch)
                return {"own": (model.state.get("own", model.received) + model.numbers) / 2}

            def load(self, numbers, state):
                numbers.copy_(state.get("own", numbers))
    """

    Section: ClassVar[type[PersonalSection]] = PersonalSection

    def __init__(self, section: Any) -> None:
        self.section = section

    @abstractmethod
    def local_update(self, model: ClientModel) -> dict[str, Tensor]:
        """One client's local update.

        Returns:
            What the client keeps of it; of a kind that keeps anything the Section says `keeps_state = True`.
        """

    def load(self, numbers: Tensor, state: Mapping[str, Tensor]) -> None:  # noqa: B027 (or it is that model)
        """Turns the global model with what the client keeps at home into the one that it uses itself.

        Args:
            numbers: [n] fp32 of that, to be written in place.
            state: what `local_update` gave the last time; nothing of a client that has not trained yet.
        """
