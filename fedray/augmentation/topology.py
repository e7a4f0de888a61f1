"""The rounds of GenFL (Qiang et al. 2024, Fig. 4): images are generated while clients train, or for them.

at: server            server generates, trains the augmented model, beside server -> clients -> server
at: server_broadcast  server generates -> each client, with the model -> trains -> server
at: client            server -> each client -> generates, trains -> server
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fedray.randomness import SERVER_ID
from fedray.schedule import Schedule
from fedray.steps import Aggregate, Generate, Send, Step, Train
from fedray.topologies.parallel import parallel


class ImageCounts(NamedTuple):
    """How many generated images a client, or the server, gets in this round, and has then."""

    new: int
    total: int


class Closing(NamedTuple):
    """When a round ends without some of its clients."""

    deadline_s: float | None = None  # seconds since its start; None: it waits for all
    min_updates: int | None = None  # with so many updates; None: with all


EVERYBODY = Closing()


def at_server(
    round_number: int,
    clients: Sequence[int],
    generated: ImageCounts,
    augmented: bool,
    closing: Closing = EVERYBODY,
    evaluated: int = 0,
) -> Schedule:
    """The server trains a model of its own on generated images (the augmented model) beside the clients.

    Args:
        round_number: t, counted from 1.
        clients: of the round; none: the server alone (AIGC-only).
        generated: how many images the server generates, and trains on.
        augmented: whether the augmented model is trained; not where it would weigh nothing.
        closing: when it ends. A model whose training the server has not begun at a deadline is late, and
            weighs nothing; the first updates that are enough are clients'.
        evaluated: samples on which the server evaluates mixes of the two models, each mix's.
    """
    *steps, _ = parallel(round_number, clients, False).steps
    ups = tuple(step.id for step in steps if isinstance(step, Send) and step.direction == "uplink")
    if generated.new:
        steps.append(Generate("paint", SERVER_ID, generated.new))
    if augmented:
        steps.append(
            Train("train-augmented", SERVER_ID, ("paint",) if generated.new else (), generated.total)
        )
    own = (steps[-1].id,) if augmented else ()
    closing = closing if ups else EVERYBODY  # with no clients there is nobody to go on without
    return Schedule(
        round_number,
        (*steps, Aggregate("aggregate", (*ups, *own), *closing, beside=own, evaluated=evaluated)),
    )


def at_server_broadcast(
    round_number: int,
    clients: Sequence[int],
    generated: int,
    given: Mapping[int, ImageCounts],
    closing: Closing = EVERYBODY,
) -> Schedule:
    """Each client is sent the images it has not had yet, and trains on all of them beside its own.

    Args:
        round_number: t, counted from 1.
        clients: of the round.
        generated: how many new images the server generates.
        given: how many new ones each client is sent, and has then.
        closing: when it ends.
    """
    steps: list[Step] = [Generate("paint", SERVER_ID, generated)] if generated else []
    after = ("paint",) if generated else ()
    for k in clients:
        sent = Send(f"pictures-{k}", SERVER_ID, k, "downlink", after, pictures=given[k].new)
        steps += _local_update(k, sent, given[k])
    ups = tuple(f"up-{k}" for k in clients)
    return Schedule(round_number, (*steps, Aggregate("aggregate", ups, *closing)))


def at_clients(
    round_number: int,
    clients: Sequence[int],
    generated: Mapping[int, ImageCounts],
    closing: Closing = EVERYBODY,
) -> Schedule:
    """Each client generates its own, more in each of its rounds, until it has all it may.

    Args:
        round_number: t, counted from 1.
        clients: of the round.
        generated: how many new ones each client generates, and has then.
        closing: when it ends.
    """
    steps: list[Step] = []
    for k in clients:
        steps += _local_update(k, Generate(f"paint-{k}", k, generated[k].new), generated[k])
    ups = tuple(f"up-{k}" for k in clients)
    return Schedule(round_number, (*steps, Aggregate("aggregate", ups, *closing)))


def _local_update(k: int, source: Step, images: ImageCounts) -> Iterator[Step]:
    """Client k's steps, with the step that brings it new images, where there are any."""
    yield Send(f"down-{k}", SERVER_ID, k, "downlink")
    if images.new:
        yield source
    yield Train(f"train-{k}", k, (f"down-{k}", source.id) if images.new else (f"down-{k}",), images.total)
    yield Send(f"up-{k}", k, SERVER_ID, "uplink", (f"train-{k}",))
