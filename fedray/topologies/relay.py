"""The relay of huang2023, Fig. 2(c) and Sec. IV, Steps 1 to 4: the buffer goes from device to device.

server -> client i -> client i' -> ... -> last client -> server
"""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from fedray.schedule import SERVER, Schedule, Send, Server, Step, Train, client_node

# Whom `here` (none: the server) would hand the buffer to, of the clients left in S, the best first.
Preference = Callable[[int | None, Collection[int]], list[int]]
Order = Callable[[Sequence[int], np.random.Generator], Preference]
Rates = Callable[[int, Collection[int]], np.ndarray]  # bit/s over the sidelinks from one client to others


def relay(
    round: int,
    groups: Sequence[Sequence[int]],
    order: Order,
    rng: np.random.Generator,
    reaches: Callable[[int, int], bool] | None = None,
) -> Schedule:
    """One global round t over the clients of the round (the index set S), dealt into groups.

    Each group is a chain. Chains run side by side, and the server averages what they return: one chain is the
    paper's relay, chains of one client are the parallel round. A hop that does not reach its receiver is
    charged, and the next neighbour is tried; where none is reached the chain ends.
    """
    steps: list[Step] = []
    unreached: list[int] = []
    for members in groups:
        prefers, left = order(members, rng), set(members)
        # Step 1: the server sends v_t to a client i of S.
        here = prefers(None, left)[0]
        steps.append(Send(f"down-{here}", SERVER, client_node(here), "downlink"))
        while True:
            # Step 2: client i trains, and leaves S.
            steps.append(Train(f"train-{here}", here, after=(steps[-1].id,)))
            left.remove(here)
            # Step 3: while S is not empty, i passes v_{t,i} to the next client i' over the sidelink.
            tried: tuple[str, ...] = (f"train-{here}",)
            for next_ in prefers(here, left) if left else []:
                steps.append(
                    Send(f"hop-{here}-{next_}", client_node(here), client_node(next_), "sidelink", tried)
                )
                if reaches is None or reaches(here, next_):
                    here = next_
                    break
                tried = (f"train-{here}", steps[-1].id)
            else:
                break
        steps.append(Send(f"up-{here}", client_node(here), SERVER, "uplink", tried))
        unreached += sorted(left)
    # The round ends: v_{t+1}. After T rounds, Step 4 merges it into the base weights.
    steps.append(
        Server("aggregate", tuple(s.id for s in steps if isinstance(s, Send) and s.direction == "uplink"))
    )
    return Schedule(round, tuple(steps), tuple(unreached))


def dealt(clients: Sequence[int], chains: int, rng: np.random.Generator) -> list[list[int]]:
    """Clients dealt at random into so many groups."""
    assert 1 <= chains <= len(clients)
    return [[int(c) for c in members] for members in np.array_split(rng.permutation(list(clients)), chains)]


def random_order(clients: Sequence[int], rng: np.random.Generator) -> Preference:
    """Each next client is drawn at random from those left in S (Sec. IV, Step 1)."""
    return _along([int(c) for c in rng.permutation(list(clients))])


def best_sidelink(rates_bps: Rates) -> Order:
    """The first client is drawn; each next one is the client left in S that is reached fastest. Equal rates
    go to the smaller number."""

    def order(clients: Sequence[int], rng: np.random.Generator) -> Preference:
        first = int(rng.choice(sorted(clients)))

        def prefers(here: int | None, left: Collection[int]) -> list[int]:
            if here is None:
                return [first]
            others = sorted(left)
            return [others[i] for i in np.argsort(-rates_bps(here, others), kind="stable")]

        return prefers

    return order


def tour(rates_bps: Rates) -> Order:
    """The whole way is planned beforehand: from a first client that is drawn, by the nearest next one, then
    shortened by turning parts of it round as long as that helps (2-opt, Croes 1958). Nearness is the time a
    bit takes."""

    def order(clients: Sequence[int], rng: np.random.Generator) -> Preference:
        members = sorted(clients)
        n, first = len(members), members.index(int(rng.choice(members)))
        with np.errstate(divide="ignore"):
            takes = np.minimum(1 / np.array([rates_bps(c, members) for c in members]), 1e9)
        path, left = np.array([first]), np.delete(np.arange(n), first)
        while len(left):
            at = int(np.argmin(takes[path[-1], left]))
            path, left = np.append(path, left[at]), np.delete(left, at)
        better = True
        while better:
            better = False
            for i in range(1, n - 1):
                there, back = (
                    takes[path[i:-1], path[i + 1 :]].cumsum(),
                    takes[path[i + 1 :], path[i:-1]].cumsum(),
                )
                after = np.append(takes[path[i], path[i + 2 :]] - takes[path[i + 1 : -1], path[i + 2 :]], 0.0)
                # by turning i to j round
                saved = there - back + takes[path[i - 1], path[i]] - takes[path[i - 1], path[i + 1 :]] - after
                if saved.max(initial=0.0) > 1e-12 * takes[path[:-1], path[1:]].sum():
                    j = i + 2 + int(np.argmax(saved))
                    path[i:j], better = path[i:j][::-1].copy(), True
        return _along([members[i] for i in path])

    return order


def within(reaches: Callable[[int, Collection[int]], np.ndarray], order: Order) -> Order:
    """The same order, but who is out of range is not tried. `reaches` says whom of others a client can reach
    at all, bool."""

    def near(clients: Sequence[int], rng: np.random.Generator) -> Preference:
        prefers = order(clients, rng)

        def reachable(here: int | None, left: Collection[int]) -> list[int]:
            others = prefers(here, left)
            return others if here is None else [others[i] for i in np.flatnonzero(reaches(here, others))]

        return reachable

    return near


def _along(path: Sequence[int]) -> Preference:
    return lambda here, left: [c for c in path if c in left]
