"""What each mechanism publishes, as events of dp-accounting. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fedray.privacy.participation import is_drawn_by_chance, most_rounds, rounds_by_client, sampling_rate

if TYPE_CHECKING:
    from dp_accounting import DpEvent

ADD_OR_REMOVE = "add or remove one"  # neighbours differ by a unit that is there or not
ZERO_OUT = "replace one by nothing"  # a unit takes its turns and sends zeros; costs what add or remove does
REPLACE = "replace one"  # one unit is another: a sum changes by twice the clipping norm


class Publication(NamedTuple):
    """What is published of a run."""

    event: DpEvent
    relation: str  # which two data sets are neighbours


def central(scenario: Any, samples: Sequence[int], rounds: int) -> Publication:
    """A Gaussian sum a round. Clients that are drawn with the same probability each, independently (Poisson),
    amplify; a draw of fixed size does too, for neighbours that replace a client, whose two updates differ by
    up to 2 C: the noise is then half as much, in units of that. Any other choice of clients amplifies
    nothing.

    Args:
        scenario: whose.
        samples: that each client has.
        rounds: of the run so far.
    """
    import dp_accounting as dp

    noise = scenario.privacy.noise_multiplier
    population = scenario.population
    drawn = is_drawn_by_chance(scenario) and sampling_rate(scenario) < 1
    if drawn and population.sampling == "poisson":
        event = dp.PoissonSampledDpEvent(sampling_rate(scenario), dp.GaussianDpEvent(noise))
        return Publication(dp.SelfComposedDpEvent(event, rounds), ADD_OR_REMOVE)
    if drawn:
        sums = dp.GaussianDpEvent(noise / 2)
        event = dp.SampledWithoutReplacementDpEvent(population.clients, population.clients_per_round, sums)
        return Publication(dp.SelfComposedDpEvent(event, rounds), REPLACE)
    return local(scenario, samples, rounds)


def local(scenario: Any, samples: Sequence[int], rounds: int) -> Publication:
    """A Gaussian update each time that a client takes part; its neighbours see when it does, so that nothing
    amplifies.

    Args:
        scenario: whose.
        samples: that each client has.
        rounds: of the run so far.
    """
    import dp_accounting as dp

    event = dp.GaussianDpEvent(scenario.privacy.noise_multiplier)
    return Publication(dp.SelfComposedDpEvent(event, most_rounds(scenario, rounds)), ZERO_OUT)


def sample(scenario: Any, samples: Sequence[int], rounds: int) -> Publication:
    """The steps of DP-SGD of the client for which they cost most, which is the one of fewest samples: samples
    of different clients are disjoint, so that the costliest client counts, and its rounds compose.

    Args:
        scenario: whose.
        samples: that each client has.
        rounds: of the run so far.
    """
    import dp_accounting as dp

    training = scenario.training
    fewest = min(n for n in samples if n) if any(samples) else 1
    turns = most_rounds(scenario, rounds)
    composed = []
    sizes = training.batches(fewest)
    for size in sorted(set(sizes)):
        step = dp.GaussianDpEvent(scenario.privacy.noise_multiplier)
        if size < fewest:
            step = dp.PoissonSampledDpEvent(size / fewest, step)
        composed.append(dp.SelfComposedDpEvent(step, sizes.count(size) * turns))
    return Publication(dp.ComposedDpEvent(composed), ADD_OR_REMOVE)


def tree(scenario: Any, samples: Sequence[int], rounds: int) -> Publication:
    """The nodes of one binary tree over the rounds, as one Gaussian mechanism: an update is in every whole
    node above its round, and a client's updates add up there.

    Args:
        scenario: whose.
        samples: that each client has.
        rounds: of the run so far.
    """
    import dp_accounting as dp

    turns = rounds_by_client(scenario, rounds)
    sensitivity = max(tree_sensitivity(each, rounds) for each in turns)
    return Publication(dp.GaussianDpEvent(scenario.privacy.noise_multiplier / sensitivity), ZERO_OUT)


def tree_sensitivity(turns: Sequence[int], rounds: int) -> float:
    """How much one client changes all whole nodes of a binary tree together, in units of the clipping norm:
    the root of the sum over nodes of (its updates below a node)^2.

    Args:
        turns: its rounds, from 0.
        rounds: leaves of the tree.
    """
    total = 0
    width = 1
    while width <= rounds:
        whole = rounds // width * width
        below: dict[int, int] = {}
        for turn in turns:
            if turn < whole:
                below[turn // width] = below.get(turn // width, 0) + 1
        total += sum(count**2 for count in below.values())
        width *= 2
    return max(1.0, float(total) ** 0.5)
