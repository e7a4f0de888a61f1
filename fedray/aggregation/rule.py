"""What every rule offers: how updates are combined into the next global model.

A rule is written as its paper is: what a client adds to its gradients (`on_client_start`), what it sends
beside its update and keeps (`on_client_end`), what of it is accumulated (`contribution`), how that is
combined (`combine`), and the server's step (`step`). All have a default, which together are FedAvg.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from fedray.aggregation.accumulators import Accumulator, ExactSum
from fedray.scenario.aggregation_section import AggregationSection
from fedray.transport.buffer import Layout

# What the server keeps between rounds, or a client between its local updates, by name.
State = dict[str, Tensor]
# Changes a gradient [trained] in place, given the weights [trained].
AdjustGradient = Callable[[Tensor, Tensor], None]


class Rule:
    """Combines updates. Tensors are flat.

    A client receives [received] numbers, of which the first [numel] are what travels of the model, and of
    these the first [trained] train. It sends [sent] numbers, of which the first [numel] are its update. What
    is accumulated of it are [summed] numbers. All three are [numel], where a rule says nothing else.

    Args:
        section: the scenario's `aggregation`.
        layout: of what travels of the model.

    A rule of one's own that takes the mean of the smallest and the largest update of each number:

        class MidRange(fedray.Rule):
            accumulator = fedray.Gathered

            def combine(self, result):
                return (result.values.amin(0).double() + result.values.amax(0).double()) / 2
    """

    Section: ClassVar[type[AggregationSection]] = AggregationSection
    accumulator: ClassVar[type[Accumulator]] = ExactSum
    # Whether each number goes its own way: `combine` and `step` are then given some of the numbers at a time.
    element_wise: ClassVar[bool] = True
    # Whether what is received beside an adapter is added to the base model's weights.
    updates_base_weights: ClassVar[bool] = False
    # Global models that travel down side by side, as the first numbers received; a client trains one of them.
    models: int = 1

    def __init__(self, section: Any, layout: Layout) -> None:
        self.section = section
        self.layout = layout
        self.received = layout.numel
        self.sent = layout.numel
        self.summed = layout.numel

    def choose(self, losses: Sequence[float], rng: np.random.Generator) -> int:
        """Which of several global models a client trains; what else is asked of this rule until its local
        update ends is of that one.

        Args:
            losses: of each model, over the client's samples.
            rng: the client's own draws, this round.
        """
        raise NotImplementedError(f"{type(self).__name__} has one global model")

    def on_client_start(
        self, start: Tensor, extra: Tensor, state: Mapping[str, Tensor]
    ) -> AdjustGradient | None:
        """A client's local update begins.

        Args:
            start: the weights [trained] it begins with.
            extra: what came beside the model [received - numel].
            state: what the client keeps.

        Returns:
            What changes each gradient before the optimizer's step, if anything does.
        """
        return None

    def on_client_end(
        self, start: Tensor, end: Tensor, steps: int, learning_rate: float, state: Mapping[str, Tensor]
    ) -> tuple[Tensor | None, State]:
        """A client's local update has ended.

        Args:
            start: the weights [trained] it began with.
            end: the weights [trained] it ended with.
            steps: how many steps of its optimizer it took.
            learning_rate: of its optimizer.
            state: what the client kept before.

        Returns:
            What it sends beside its update [sent - numel], and what it keeps; of a rule that keeps anything
            the Section says `keeps_client_state = True`.
        """
        return None, {}

    def contribution(self, received: Tensor, sent: Tensor) -> Tensor:
        """What is accumulated [summed] of what a client received [received] and sent [sent]."""
        return sent

    def combine(self, result: Any) -> Tensor:
        """One update [rows, numbers] float64 of what the accumulator holds: an exact sum's mean as it is."""
        combined: Tensor = result
        return combined

    def combine_with_state(self, result: Any, state: State) -> tuple[Tensor, State]:
        """As `combine`, for a rule that needs what the server keeps; and what of it is kept, beside that of
        `step`."""
        return self.combine(result), {}

    def step(
        self, old: Tensor, combined: Tensor, state: State, participation: float, seed: int
    ) -> tuple[Tensor, State]:
        """The server's step, in float64.

        Args:
            old: [received], as the server sent it out.
            combined: [summed], of what came back.
            state: what the server keeps.
            participation: the share of all clients that can train whose updates were added.
            seed: the round's, for what is drawn.

        Returns:
            The new numbers [received], and the new state.
        """
        return old + combined, {}

    def empty(self, round_weight: int) -> Accumulator:
        """An accumulator with nothing in it, for a round of this whole weight."""
        return self.accumulator(self.summed, round_weight)

    def server_bytes(self, updates: int, clients: int) -> int:
        """Bytes that the server has of updates beside one sum.

        Args:
            updates: of a round.
            clients: that there are, of whom a rule may keep something from round to round.
        """
        return self.accumulator.kept_bytes(self.summed, updates)

    @property
    def client_state_numbers(self) -> int:
        """Numbers that a client keeps between its local updates."""
        return 0
