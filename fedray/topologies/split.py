"""The split round of huang2023, Fig. 2(b): the client holds the first part of the model, the server the rest.

A batch:       client front -> smashed activations -> server -> their gradients -> client front, backwards
In U-shape:    client front -> smashed -> server -> features -> client tail -> their gradients
                            -> server, backwards -> gradients of the smashed -> client front, backwards

SplitFed:      server -> each client: its batches, side by side -> server averages the clients' parts
Vanilla:       server -> client i: its batches -> client i': its batches -> ... -> server
"""

from collections.abc import Iterator, Mapping, Sequence

from fedray.randomness import SERVER_ID
from fedray.schedule import Schedule
from fedray.steps import Aggregate, Direction, Pass, Send, Step
from fedray.topologies.topology import RoundContext, Topology


def splitfed(
    round_number: int,
    batches: Mapping[int, Sequence[int]],
    u_shape: bool,
    micro: int = 1,
    deadline_s: float | None = None,
    min_updates: int | None = None,
    swapped: Mapping[int, int] = {},
) -> Schedule:
    """One global round t in which client k goes through batches of `batches[k]` samples. All are in flight at
    once, and the server serves whoever is next.

    Args:
        round_number: t, counted from 1.
        batches: the sizes of each client's batches, in samples.
        u_shape: whether the model's tail is at the client too.
        micro: into how many micro-batches each batch is cut.
        deadline_s: as in `parallel`.
        min_updates: as in `parallel`.
        swapped: by client, the one from which it gets what stays at home; none: each goes on with its own.
    """
    steps: list[Step] = []
    for k, sizes in batches.items():
        steps.append(Send(f"down-{k}", SERVER_ID, k, "downlink"))
        start = [steps[-1].id]
        if k in swapped:
            sender = swapped[k]
            steps.append(Send(f"swap-{sender}-{k}", sender, k, "sidelink", state=True))
            start.append(steps[-1].id)
        steps += _local_update(k, sizes, u_shape, micro, *start)
        steps.append(Send(f"up-{k}", k, SERVER_ID, "uplink", (steps[-1].id,)))
    return Schedule(
        round_number,
        (*steps, Aggregate("aggregate", tuple(f"up-{k}" for k in batches), deadline_s, min_updates)),
    )


def vanilla(
    round_number: int, batches: Mapping[int, Sequence[int]], u_shape: bool, micro: int = 1
) -> Schedule:
    """One global round t in which the client's part goes from hand to hand, in the order of `batches`.

    Args:
        round_number: t, from 1.
        batches: the sizes of each client's batches, in samples.
        u_shape: whether the model's tail is at the client too.
        micro: into how many micro-batches each batch is cut.
    """
    steps: list[Step] = []
    before: int | None = None
    for k, sizes in batches.items():
        if before is None:
            steps.append(Send(f"down-{k}", SERVER_ID, k, "downlink"))
        else:
            steps.append(Send(f"hop-{before}-{k}", before, k, "sidelink", (steps[-1].id,)))
        steps += _local_update(k, sizes, u_shape, micro, steps[-1].id)
        before = k
    ups: tuple[str, ...] = ()
    if before is not None:
        steps.append(Send(f"up-{before}", before, SERVER_ID, "uplink", (steps[-1].id,)))
        ups = (steps[-1].id,)
    return Schedule(round_number, (*steps, Aggregate("aggregate", ups)))


# A (micro-)batch's way: passes, and what is sent in between.
Way = tuple[tuple[str, Direction | None], ...]
WAY: Way = (
    ("front", None),
    ("smashed", "uplink"),
    ("server_forward_backward", None),
    ("gradients", "downlink"),
    ("back", None),
)
U_SHAPE: Way = (
    ("front", None),
    ("smashed", "uplink"),
    ("server_forward", None),
    ("features", "downlink"),
    ("tail", None),
    ("feature_gradients", "uplink"),
    ("server_backward", None),
    ("gradients", "downlink"),
    ("back", None),
)


def _local_update(k: int, sizes: Sequence[int], u_shape: bool, micro: int, *start: str) -> Iterator[Step]:
    """The batches of client k, whose part the first step of `start` brings. A batch's micro-batches follow
    each other through both parts, and come back in order; the next batch waits until the last is back.

    Args:
        k: the client.
        sizes: of its batches, in samples.
        u_shape: whether the model's tail is at the client too.
        micro: into how many micro-batches each batch is cut.
        start: the ids of the steps that bring the client its part, and what it begins with beside that.
    """
    before = start
    for b, size in enumerate(sizes):
        pieces = parts(size, micro)
        back = ""
        for m, samples in enumerate(pieces):
            after: tuple[str, ...] = before
            number = f"{k}-{b}" + (f"-{m}" if micro > 1 else "")
            for name, direction in U_SHAPE if u_shape else WAY:
                i = f"{name}-{number}"
                if direction is None:
                    awaited = (*after, back) if name == "back" and back else after
                    yield Pass(i, k, name, b, m, len(pieces), samples, awaited, batches=len(sizes))
                else:
                    ends = (k, SERVER_ID) if direction == "uplink" else (SERVER_ID, k)
                    yield Send(i, *ends, direction, after, crossing=name, samples=samples, batch=b, part=m)
                after = (i,)
                if name == "front":
                    before = after
            (back,) = after
        before = (back,)


def parts(size: int, n: int) -> list[int]:
    """A batch in micro-batches that differ by at most one sample; none is empty."""
    whole, rest = divmod(size, n)
    return [part for part in [whole + 1] * rest + [whole] * (n - rest) if part]


class SplitTopology(Topology):
    """Clients hold the model's first stages, the server the rest."""

    def schedule(self, context: RoundContext) -> Schedule:
        u_shape = self.section.tail is not None
        micro = self.section.micro_batches
        sizes = {k: context.batches(k) for k in context.clients}
        if self.section.variant == "vanilla":
            order = context.rng().permutation(context.clients)
            in_turn = {int(k): sizes[k] for k in order}
            return vanilla(context.round_number, in_turn, u_shape, micro)
        deadline_s = context.deadline_s
        swapped = self._swapped(context)
        return splitfed(context.round_number, sizes, u_shape, micro, deadline_s, context.min_updates, swapped)

    def _swapped(self, context: RoundContext) -> dict[int, int]:
        """By client, the one whose state it goes on with: the one before it in a circle drawn at random."""
        every = self.section.swap_every
        before = context.round_number - 1  # rounds
        if every is None or before == 0 or before % every or len(context.clients) < 2:
            return {}
        circle = context.rng().permutation(context.clients).tolist()
        return dict(zip(circle, [circle[-1], *circle[:-1]], strict=True))
