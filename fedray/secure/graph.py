"""Which clients share masks and keys: all pairs (SecAgg), or a sparse regular graph (SecAgg+)."""

from collections.abc import Sequence

from fedray.randomness import SERVER, generator


def neighbours(
    clients: Sequence[int], degree: int | None, seed: int, round_number: int
) -> dict[int, tuple[int, ...]]:
    """The neighbours of each client, sorted. With a degree k the clients stand in a circle in random order,
    and each has those up to k / 2 places away (a Harary graph with random labels: Bell et al. 2020, Sec.
    3.2). Where a round has no more than k + 1 clients, and without a degree, all pairs are neighbours.

    Args:
        clients: of the round.
        degree: k, even; None: all pairs.
        seed: the scenario's.
        round_number: from 1.
    """
    n = len(clients)
    if degree is None or degree >= n - 1:
        ordered = sorted(clients)
        return {client: tuple(other for other in ordered if other != client) for client in clients}
    circle = generator(seed, round_number, SERVER, "secure graph").permutation(sorted(clients)).tolist()
    reach = range(1, degree // 2 + 1)
    return {
        client: tuple(sorted(circle[(place + step) % n] for d in reach for step in (d, -d)))
        for place, client in enumerate(circle)
    }
