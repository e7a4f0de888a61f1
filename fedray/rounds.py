"""Writes down the schedule of any round of a scenario: who takes part, in which topology and order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedray.augmentation import labels
from fedray.data import Samples
from fedray.network.clock import Radio
from fedray.randomness import SERVER, generator
from fedray.scenario.augmentation import Augmentation, Fixed
from fedray.scenario.scenario import Scenario
from fedray.scenario.topology import Parallel
from fedray.schedule import Schedule
from fedray.topologies.genfl import Painted, at_clients, at_server, at_server_broadcast
from fedray.topologies.parallel import parallel
from fedray.topologies.relay import best_sidelink, random_order, relay


@dataclass(frozen=True)
class Shared:
    """What the server knows of its clients before they train."""

    samples: Sequence[int]  # that each holds
    counts: np.ndarray | None = None  # of each label, as they report them [clients, labels]

    def eligible(self, scenario: Scenario) -> np.ndarray:
        """The clients that can be asked to train: a partition may leave some without samples."""
        if getattr(scenario.data.partition, "allow_empty", False):
            return np.flatnonzero(self.samples)
        return np.arange(scenario.population.clients)


def shared(scenario: Scenario, samples: Samples, held: Mapping[int, np.ndarray]) -> Shared:
    """As the clients report it, where somebody asks for labels."""
    asked = scenario.augmentation is not None or scenario.population.selection == "label_cover"
    return Shared([len(held[c]) for c in range(len(held))], labels.reported(scenario, samples, held) if asked else None)


def schedule_round(scenario: Scenario, radio: Radio, round: int, shared: Shared | None = None) -> Schedule:
    """Round t, counted from 1."""
    topology = scenario.topology
    clients = _drawn(scenario, round, shared)
    if scenario.augmentation is not None:
        assert shared is not None
        return _augmented(scenario, scenario.augmentation, round, clients, shared)
    if isinstance(topology, Parallel):
        return parallel(round, clients, topology.reduce == "allreduce")
    order = random_order if topology.order == "random" else best_sidelink(radio.sidelink_rate_bps)
    rng = generator(scenario.seed, round, SERVER, "order")
    return relay(round, clients, min(topology.chains, len(clients)), order, rng)


def _drawn(scenario: Scenario, round: int, shared: Shared | None) -> list[int]:
    """The clients that take part, drawn without replacement, or chosen by the labels they report."""
    population, rng = scenario.population, generator(scenario.seed, round, SERVER, "clients")
    if shared is None:
        return sorted(int(c) for c in rng.choice(population.clients, population.a_round, replace=False))
    among = shared.eligible(scenario)
    n = min(population.a_round, len(among))
    if population.selection == "label_cover":
        assert shared.counts is not None
        return sorted(labels.covering(shared.counts, among, n, rng))
    return sorted(int(c) for c in rng.choice(among, n, replace=False))


def _augmented(scenario: Scenario, section: Augmentation, round: int, clients: list[int], shared: Shared) -> Schedule:
    """GenFL's round. What a client already has follows from the rounds it took part in."""
    assert shared.counts is not None
    names = shared.counts.shape[1]

    def pictures(before: int, now: int) -> Painted:
        had, have = labels.painted(section, names, before), labels.painted(section, names, now)
        return Painted(have - had, have)

    here = pictures(round - 1, round)
    if section.at == "server":
        kappas = section.kappas(round, scenario.training.rounds) or (1, 1)
        paints = not (isinstance(section.weighting, Fixed) and section.weighting.kappa_2 == 0)
        return at_server(round, clients if kappas[0] else [], here if paints else Painted(0, 0), kappas[1] != 0)
    turns = [(t, set(_drawn(scenario, t, shared)).intersection(clients)) for t in range(1, round)]
    if section.at == "server_broadcast":
        last = {k: max((t for t, them in turns if k in them), default=0) for k in clients}
        return at_server_broadcast(round, clients, here.new, {k: pictures(last[k], round) for k in clients})
    past = {k: sum(k in them for _, them in turns) for k in clients}
    return at_clients(round, clients, {k: pictures(past[k], past[k] + 1) for k in clients})
