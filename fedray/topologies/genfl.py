"""The rounds of GenFL (Qiang et al. 2024, Fig. 4): pictures are painted while clients train, or for them.

at: server            server paints -> server trains the augmented model, beside server -> clients -> server
at: server_broadcast  server paints -> each client, with the model -> trains -> server
at: client            server -> each client -> paints, trains -> server
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fedray.randomness import SERVER as SERVER_NUMBER
from fedray.schedule import SERVER, Generate, Schedule, Send, Server, Step, Train, client_node
from fedray.topologies.parallel import parallel


class Painted(NamedTuple):
    """How many pictures somebody gets in this round, and has then."""

    new: int
    all: int


def at_server(round: int, clients: Sequence[int], painted: Painted, augmented: bool) -> Schedule:
    """No clients: AIGC-only. Where the round's augmented model would weigh nothing it is not trained."""
    *steps, _ = parallel(round, clients, False).steps
    ups = tuple(step.id for step in steps if isinstance(step, Send) and step.direction == "uplink")
    if painted.new:
        steps.append(Generate("paint", SERVER_NUMBER, painted.new))
    if augmented:
        steps.append(Train("train-augmented", SERVER_NUMBER, ("paint",) if painted.new else (), painted.all))
        ups += (steps[-1].id,)
    return Schedule(round, (*steps, Server("aggregate", ups)))


def at_server_broadcast(
    round: int, clients: Sequence[int], painted: int, given: Mapping[int, Painted]
) -> Schedule:
    """Each client is sent the pictures it has not had yet, and trains on all of them beside its own."""
    steps: list[Step] = [Generate("paint", SERVER_NUMBER, painted)] if painted else []
    after = ("paint",) if painted else ()
    for k in clients:
        sent = Send(f"pictures-{k}", SERVER, client_node(k), "downlink", after, pictures=given[k].new)
        steps += _turn(k, sent, given[k])
    return Schedule(round, (*steps, Server("aggregate", tuple(f"up-{k}" for k in clients))))


def at_clients(round: int, clients: Sequence[int], painted: Mapping[int, Painted]) -> Schedule:
    """Each client paints its own, more with each of its turns, until it has all it may."""
    steps: list[Step] = []
    for k in clients:
        steps += _turn(k, Generate(f"paint-{k}", k, painted[k].new), painted[k])
    return Schedule(round, (*steps, Server("aggregate", tuple(f"up-{k}" for k in clients))))


def _turn(k: int, brings: Step, pictures: Painted) -> Iterator[Step]:
    """Client k's, with the step that brings it new pictures, where there are any."""
    yield Send(f"down-{k}", SERVER, client_node(k), "downlink")
    if pictures.new:
        yield brings
    yield Train(f"train-{k}", k, (f"down-{k}", brings.id) if pictures.new else (f"down-{k}",), pictures.all)
    yield Send(f"up-{k}", client_node(k), SERVER, "uplink", (f"train-{k}",))
