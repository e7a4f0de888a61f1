"""Writes down the schedule of any round of a scenario: who takes part, in which topology and order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedray.network.clock import Radio
from fedray.randomness import SERVER, generator
from fedray.scenario.scenario import Scenario
from fedray.scenario.topology import Parallel
from fedray.schedule import Schedule
from fedray.topologies.parallel import parallel
from fedray.topologies.relay import best_sidelink, random_order, relay


def schedule_round(scenario: Scenario, radio: Radio, round: int, eligible: np.ndarray | None = None) -> Schedule:
    """Round t, counted from 1. The clients that take part are drawn without replacement, from `eligible` or from all."""
    population, topology = scenario.population, scenario.topology
    among = population.clients if eligible is None else eligible
    n = population.a_round if eligible is None else min(population.a_round, len(eligible))
    drawn = generator(scenario.seed, round, SERVER, "clients").choice(among, n, replace=False)
    clients = sorted(int(c) for c in drawn)
    if isinstance(topology, Parallel):
        return parallel(round, clients, topology.reduce == "allreduce")
    order = random_order if topology.order == "random" else best_sidelink(radio.sidelink_rate_bps)
    rng = generator(scenario.seed, round, SERVER, "order")
    return relay(round, clients, min(topology.chains, n), order, rng)


def with_samples(scenario: Scenario, samples: Sequence[int]) -> np.ndarray | None:
    """The clients that can be asked to train, where a partition may leave some without samples."""
    return np.flatnonzero(samples) if getattr(scenario.data.partition, "allow_empty", False) else None
