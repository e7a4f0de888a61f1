"""The end of a round of several models: each node takes its clients' updates, and nodes mix."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch

from fedray.aggregation.accumulators import Accumulator
from fedray.aggregation.by_node import ByNode
from fedray.aggregation.rules import rule
from fedray.executors import TrainReport
from fedray.executors.global_step import GlobalStep, merged
from fedray.executors.model import as_sent
from fedray.executors.spill import StateArrays
from fedray.mixing import Mixing
from fedray.randomness import SERVER, key
from fedray.scenario.scenario import Scenario
from fedray.transport.buffer import Layout
from fedray.transport.compression import hook_chain
from fedray.transport.hooks import HookContext

MASS = "mass"  # of each node in push-sum, in the server's state
CONSENSUS = "consensus_distance"


class Mixed(NamedTuple):
    """What a round of several models leaves.

    Attributes:
        buffer: the mean of the nodes' models.
        state: what is kept beside the models.
        distance: the root mean square Euclidean distance of the nodes' models to their mean, or to that of
            their cluster before the server takes the mean.
        buffers: the nodes' models [nodes], where they keep them.
    """

    buffer: np.ndarray
    state: StateArrays
    distance: float
    buffers: list[np.ndarray]

    def report(self, round_number: int) -> TrainReport:
        """What the server reports of the round."""
        return TrainReport(round_number, SERVER, 0, 0, 0.0, metrics={CONSENSUS: self.distance})


def mix(
    scenario: Scenario,
    layout: Layout,
    state: StateArrays,
    round_number: int,
    clients: int,
    mixing: Mixing,
    buffers: Sequence[np.ndarray],
    partials: Sequence[Accumulator],
) -> Mixed:
    """Every node's model after a round.

    Args:
        scenario: whose.
        layout: of what travels.
        state: what is kept beside the models.
        round_number: from 1.
        clients: how many clients there are that can train at all.
        mixing: what becomes of the nodes' models.
        buffers: of each node that keeps one, as its clients had it, or the server's alone.
        partials: what each host has accumulated.
    """
    accumulated = {} if not partials else cast(ByNode, merged(partials)).nodes
    in_clusters = mixing.clusters is not None
    begun_with = [buffers[0]] * len(mixing.shares) if in_clusters else buffers
    models = [layout.view(buffer).float().numpy() for buffer in begun_with]
    for node in sorted(accumulated):
        old = torch.from_numpy(models[node])
        models[node] = _step(scenario, layout, round_number, clients, old, accumulated[node])
    if in_clusters:
        return _of_clusters(layout, state, mixing, models, accumulated, buffers[0])
    mass = state.get(MASS, np.ones(len(models)))
    for weights in (mixing.weights, *mixing.more):
        models, mass = mixed(models, mass, weights)
    mean, distance = consensus(models, np.array(mixing.shares) * mass)
    kept: StateArrays = {MASS: mass} if mixing.keeps_mass else {}
    sent, _ = as_sent(layout, torch.from_numpy(mean))
    return Mixed(sent, kept, distance, [as_sent(layout, torch.from_numpy(m))[0] for m in models])


def _of_clusters(
    layout: Layout,
    state: StateArrays,
    mixing: Mixing,
    models: list[np.ndarray],
    updated: Collection[int],
    before: np.ndarray,
) -> Mixed:
    """The server's model of what clusters agree on.

    Args:
        layout: of what travels.
        state: the server's.
        mixing: what becomes of the nodes' models.
        models: of the nodes [nodes], with what their clients have learned.
        updated: nodes that have learned; what others have weighs nothing.
        before: the server's buffer.
    """
    assert mixing.clusters is not None
    mass = np.array([float(share) if n in updated else 0.0 for n, share in enumerate(mixing.shares)])
    whole = {sender: mass[list(members)].sum() for sender, members in mixing.clusters.items()}
    sent = [sender for sender, share in whole.items() if share]
    if not sent:
        return Mixed(before, state, 0.0, [])
    for weights in (mixing.weights, *mixing.more):
        models, mass = mixed(models, mass, weights)
    squares = 0.0
    for sender in sent:
        members = list(mixing.clusters[sender])
        apart = consensus([models[node] for node in members], mass[members])[1]
        squares += whole[sender] * apart**2
    shares = np.array([whole[sender] for sender in sent])
    mean, _ = consensus([models[sender] for sender in sent], shares)
    distance = float(np.sqrt(squares / shares.sum()))
    return Mixed(as_sent(layout, torch.from_numpy(mean))[0], state, distance, [])


def _step(
    scenario: Scenario,
    layout: Layout,
    round_number: int,
    clients: int,
    old: torch.Tensor,
    accumulated: Accumulator,
) -> np.ndarray:
    """A node's numbers [received] fp32 with its clients' updates.

    Args:
        scenario: whose.
        layout: of what travels.
        round_number: from 1.
        clients: how many clients there are that can train at all.
        old: the node's numbers before [received] fp32.
        accumulated: the updates.
    """
    if accumulated.added < scenario.aggregation.least_updates or not accumulated.weight:
        return old.numpy()
    counts = dict(accumulated.counts)
    context = HookContext(scenario.seed, round_number, SERVER, counts=counts, added=accumulated.added)
    step = GlobalStep(
        rule=rule(scenario.aggregation, layout),
        hooks=hook_chain(scenario),
        accumulated=accumulated,
        old=old,
        state={},
        participation=accumulated.added / clients,
        seed=key(scenario.seed, round_number, SERVER, "aggregate"),
        context=context,
    )
    return step.run()[0].numpy()


def mixed(
    models: Sequence[np.ndarray], mass: np.ndarray, weights: Mapping[int, Mapping[int, float]]
) -> tuple[list[np.ndarray], np.ndarray]:
    """The models [nodes] fp32 after w_i <- sum_j W_ij m_j w_j / sum_j W_ij m_j, and the masses
    sum_j W_ij m_j [nodes]. With rows of W that add up to 1, and masses of 1, the divisor is 1. Where it is 0
    nothing weighs anything, and the model stays.

    Args:
        models: of the nodes, [numbers] fp32 each.
        mass: of the nodes, m [nodes].
        weights: W_ij by i and j, of nodes that mix.
    """
    after = list(models)
    new_mass = mass.astype(np.float64)
    for node, row in weights.items():
        total = np.zeros(len(models[node]))
        for other in sorted(row):
            total += row[other] * mass[other] * models[other].astype(np.float64)
        new_mass[node] = sum(row[other] * mass[other] for other in sorted(row))
        if new_mass[node]:
            after[node] = (total / new_mass[node]).astype(np.float32)
    return after, new_mass


def consensus(models: Sequence[np.ndarray], shares: np.ndarray) -> tuple[np.ndarray, float]:
    """The weighted mean of models [numbers] fp32, and their root mean square distance to it.

    Args:
        models: of the nodes, [numbers] fp32 each.
        shares: what each weighs [nodes].
    """
    total = np.zeros(len(models[0]))
    for model, share in zip(models, shares, strict=True):
        total += share * model.astype(np.float64)
    mean = total / shares.sum()
    squares = [np.square(model.astype(np.float64) - mean).sum() for model in models]
    distance = float(np.sqrt(np.dot(shares, squares) / shares.sum()))
    return mean.astype(np.float32), distance
