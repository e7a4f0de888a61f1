"""The relay of huang2023, Fig. 2(c) and Sec. IV, Steps 1 to 4: the buffer goes from device to device.

server -> client i -> client i' -> ... -> last client -> server
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fedray.schedule import SERVER, Schedule, Send, Server, Step, Train, client_node

Order = Callable[[Sequence[int], np.random.Generator], list[int]]


def relay(round: int, clients: Sequence[int], chains: int, order: Order, rng: np.random.Generator) -> Schedule:
    """One global round t over the clients of the round (the index set S).

    `chains` relays run side by side, over clients dealt at random, and the server averages what they return: one chain
    is the paper's relay, chains of one client are the parallel round.
    """
    assert 1 <= chains <= len(clients)
    steps: list[Step] = []
    for members in np.array_split(rng.permutation(list(clients)), chains):
        first, *others = order([int(c) for c in members], rng)
        # Step 1: the server sends v_t to a client i of S.
        steps.append(Send(f"down-{first}", SERVER, client_node(first), "downlink"))
        # Step 2: client i trains, and leaves S.
        steps.append(Train(f"train-{first}", first, after=(steps[-1].id,)))
        # Step 3: while S is not empty, i passes v_{t,i} to the next client i' over the sidelink.
        here = first
        for next_ in others:
            steps.append(Send(f"hop-{here}-{next_}", client_node(here), client_node(next_), "sidelink", (f"train-{here}",)))
            steps.append(Train(f"train-{next_}", next_, after=(steps[-1].id,)))
            here = next_
        steps.append(Send(f"up-{here}", client_node(here), SERVER, "uplink", (f"train-{here}",)))
    # The round ends: v_{t+1}. After T rounds, Step 4 merges it into the base weights.
    steps.append(Server("aggregate", tuple(s.id for s in steps if isinstance(s, Send) and s.direction == "uplink")))
    return Schedule(round, tuple(steps))


def random_order(clients: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Each next client is drawn at random from those left in S (Sec. IV, Step 1)."""
    return [int(c) for c in rng.permutation(list(clients))]


def best_sidelink(rate_bps: Callable[[int, int], float]) -> Order:
    """The first client is drawn; each next one is the client left in S that `rate_bps(here, next)` reaches fastest.
    Equal rates go to the smaller number."""

    def order(clients: Sequence[int], rng: np.random.Generator) -> list[int]:
        here = int(rng.choice(sorted(clients)))
        path, left = [here], set(clients) - {here}
        while left:
            here = max(sorted(left), key=lambda c: rate_bps(here, c))
            path.append(here)
            left.remove(here)
        return path

    return order
