"""The split round of huang2023, Fig. 2(b): the client holds the first part of the model, the server the rest.

A batch:       client front -> smashed activations -> server -> their gradients -> client front, backwards
In U-shape:    client front -> smashed -> server -> features -> client tail -> their gradients
                            -> server, backwards -> gradients of the smashed -> client front, backwards

SplitFed:      server -> each client: its batches, side by side -> server averages the clients' parts
Vanilla:       server -> client i: its batches -> client i': its batches -> ... -> server
"""

from collections.abc import Iterator, Mapping, Sequence

from fedray.schedule import SERVER, Direction, Pass, Schedule, Send, Server, Step, client_node


def splitfed(
    round: int,
    turns: Mapping[int, Sequence[int]],
    u_shape: bool,
    micro: int = 1,
    deadline_s: float | None = None,
    enough: int | None = None,
) -> Schedule:
    """One global round t in which client k goes through batches of `turns[k]` samples. All are in flight at
    once, and the server serves whoever is next."""
    steps: list[Step] = []
    for k, sizes in turns.items():
        steps.append(Send(f"down-{k}", SERVER, client_node(k), "downlink"))
        steps += _turn(k, sizes, u_shape, micro, f"down-{k}")
        steps.append(Send(f"up-{k}", client_node(k), SERVER, "uplink", (steps[-1].id,)))
    return Schedule(round, (*steps, Server("aggregate", tuple(f"up-{k}" for k in turns), deadline_s, enough)))


def vanilla(round: int, turns: Mapping[int, Sequence[int]], u_shape: bool, micro: int = 1) -> Schedule:
    """One global round t in which the client's part goes from hand to hand, in the order of `turns`."""
    steps: list[Step] = []
    before: int | None = None
    for k, sizes in turns.items():
        if before is None:
            steps.append(Send(f"down-{k}", SERVER, client_node(k), "downlink"))
        else:
            steps.append(
                Send(f"hop-{before}-{k}", client_node(before), client_node(k), "sidelink", (steps[-1].id,))
            )
        steps += _turn(k, sizes, u_shape, micro, steps[-1].id)
        before = k
    ups: tuple[str, ...] = ()
    if before is not None:
        steps.append(Send(f"up-{before}", client_node(before), SERVER, "uplink", (steps[-1].id,)))
        ups = (steps[-1].id,)
    return Schedule(round, (*steps, Server("aggregate", ups)))


# A (micro-)batch's way: passes, and what is sent in between.
Way = tuple[tuple[str, Direction | None], ...]
WAY: Way = (
    ("front", None),
    ("smashed", "uplink"),
    ("serve", None),
    ("gradients", "downlink"),
    ("back", None),
)
U_SHAPE: Way = (
    ("front", None), ("smashed", "uplink"), ("middle", None), ("features", "downlink"),
    ("tail", None), ("errors", "uplink"), ("middle_back", None), ("gradients", "downlink"), ("back", None),
)  # fmt: skip


def _turn(k: int, sizes: Sequence[int], u_shape: bool, micro: int, start: str) -> Iterator[Step]:
    """The batches of client k, whose part the step `start` brings. A batch's micro-batches follow each other
    through both parts, and come back in order; the next batch waits until the last is back."""
    before = start
    for b, size in enumerate(sizes):
        pieces, back = parts(size, micro), ""
        for m, samples in enumerate(pieces):
            after, number = before, f"{k}-{b}" + (f"-{m}" if micro > 1 else "")
            for name, direction in U_SHAPE if u_shape else WAY:
                i = f"{name}-{number}"
                if direction is None:
                    awaited = (after, back) if name == "back" and back else (after,)
                    yield Pass(i, k, name, b, m, len(pieces), samples, awaited)
                else:
                    ends = (client_node(k), SERVER) if direction == "uplink" else (SERVER, client_node(k))
                    yield Send(i, *ends, direction, (after,), crossing=name, samples=samples)
                after = i
                if name == "front":
                    before = i
            back = after
        before = back


def parts(size: int, n: int) -> list[int]:
    """A batch in micro-batches that differ by at most one sample; none is empty."""
    whole, rest = divmod(size, n)
    return [part for part in [whole + 1] * rest + [whole] * (n - rest) if part]
