"""FedAvg (McMahan et al. 2017, Algorithm 1): w_{t+1} = w_t + sum_k n_k (w_k - w_t) / sum_k n_k.

Every other rule is this one with a part changed: what a client adds to its gradients, what it sends beside
its update, what of it is added up, or what the server does with the mean.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from fedray.transport.buffer import Layout

State = dict[str, Tensor]  # what the server keeps between rounds, or a client between its turns, by name
# changes a gradient [trained] in place, given the weights [trained]
Adjust = Callable[[Tensor, Tensor], None]


class FedAvg:
    """Tensors are flat. A client receives [received] numbers, of which the first [numel] are what travels of
    the model (and of these the first [trained] train); it sends [sent], of which the first [numel] are its
    update."""

    # each number goes its own way: `step` may be given [received / numel, any number] at a time
    element_wise = True
    folds = False  # whether what is received beside the adapter is folded into the base weights

    def __init__(self, section: Any, layout: Layout) -> None:
        self.section, self.layout = section, layout
        self.received = self.sent = self.summed = layout.numel

    def begin(self, start: Tensor, beside: Tensor, state: Mapping[str, Tensor]) -> Adjust | None:
        """A client's turn begins, at weights `start` [trained]; `beside` [received - numel] came with
        them."""
        return None

    def end(
        self, start: Tensor, end: Tensor, steps: int, learning_rate: float, state: Mapping[str, Tensor]
    ) -> tuple[Tensor | None, State]:
        """The turn has ended at `end` [trained] after `steps`: what is sent beside the update, and the new
        state."""
        return None, {}

    def contribution(self, received: Tensor, sent: Tensor) -> Tensor:
        """What is added up [summed] of what a client sent."""
        return sent

    def step(self, old: Tensor, mean: Tensor, state: State, share: float, seed: int) -> tuple[Tensor, State]:
        """The server's step, float64: from `old` [received], which it sent out, and the mean [summed] of what
        came back from a `share` of all clients. `seed` is the round's."""
        return old + mean, {}
