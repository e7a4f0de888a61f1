"""Which clients of a round train in one forward pass (`runtime.gang`)."""

from collections.abc import Callable, Sequence

from fedray.scenario.scenario import Scenario


def gangs(scenario: Scenario, clients: Sequence[int], samples: Callable[[int], int]) -> list[list[int]]:
    """The clients by gangs of at most `runtime.gang`: those of one site whose batches have equal sizes, in
    their order. It depends on no actor. Of some whole gangs, one after another, it gives these gangs again
    where a smaller one stands behind its equals: so an actor finds its share's.

    Args:
        scenario: the run's.
        clients: of a round, in its order.
        samples: of a client.
    """
    most = scenario.runtime.gang
    if most == 1:
        return [[client] for client in clients]
    site_of = {client: site for site, there in scenario.sites.items() for client in there}
    open_gangs: dict[tuple[str | None, tuple[int, ...]], list[int]] = {}
    result: list[list[int]] = []
    for client in clients:
        alike = site_of.get(client), tuple(scenario.local_batches(client, samples(client)))
        gang = open_gangs.get(alike)
        if gang is None or len(gang) == most:
            gang = open_gangs[alike] = []
            result.append(gang)
        gang.append(client)
    return result
