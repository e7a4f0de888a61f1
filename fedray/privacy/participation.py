"""How often a client may take part, known before anything trains. Nothing here needs torch."""

from typing import Any


def is_drawn_by_chance(scenario: Any) -> bool:
    """Whether a round's clients are drawn by chance alone, which nobody outside sees, so that the sampling
    amplifies privacy: no client is chosen for what it is, is away, or comes too late."""
    population = scenario.population
    network = scenario.network
    by_chance = population.selection == "random" and population.over_select == 0
    always_there = all(device.availability == 1 for device in network.devices)
    return by_chance and always_there and not scenario.closing_keys and scenario.topology.kind == "parallel"


def sampling_rate(scenario: Any) -> float:
    """The share of the clients that a round asks on average."""
    population = scenario.population
    return float(population.clients_per_round / population.clients)


def rounds_by_client(scenario: Any, rounds: int) -> list[list[int]]:
    """The rounds from 0 in which each client of a `round_robin` takes part; of any other selection one
    client, which takes part in all: nothing else is known.

    Args:
        scenario: whose `population.selection` it is.
        rounds: of the run so far.
    """
    population = scenario.population
    network = scenario.network
    clients = population.clients
    in_turn = population.selection == "round_robin" and not scenario.data.partition.leaves_empty
    if not in_turn or any(device.availability < 1 for device in network.devices):
        return [list(range(rounds))]
    result: list[list[int]] = [[] for _ in range(clients)]
    count = population.clients_selected
    for number in range(rounds):
        for place in range(count):
            result[(number * count + place) % clients].append(number)
    return result


def most_rounds(scenario: Any, rounds: int) -> int:
    """In how many rounds at most one client takes part.

    Args:
        scenario: whose `population.selection` it is.
        rounds: of the run so far.
    """
    return max(len(each) for each in rounds_by_client(scenario, rounds))
