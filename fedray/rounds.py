"""Writes down the schedule of any round of a scenario: who takes part, in which topology and order."""

from __future__ import annotations

from fedray.network.clock import Radio
from fedray.randomness import SERVER, generator
from fedray.scenario.scenario import Scenario
from fedray.schedule import Schedule
from fedray.topologies.relay import best_sidelink, random_order, relay


def schedule_round(scenario: Scenario, radio: Radio, round: int) -> Schedule:
    """Round t, counted from 1. The clients that take part are drawn without replacement."""
    population, topology = scenario.population, scenario.topology
    drawn = generator(scenario.seed, round, SERVER, "clients").choice(population.clients, population.a_round, replace=False)
    order = random_order if topology.order == "random" else best_sidelink(radio.sidelink_rate_bps)
    rng = generator(scenario.seed, round, SERVER, "order")
    return relay(round, sorted(int(c) for c in drawn), topology.chains, order, rng)
