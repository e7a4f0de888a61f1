"""Clients under way by themselves: each from the second at which the server begins to send it a model until
its update has arrived."""

from dataclasses import dataclass, field
from typing import NamedTuple

from fedray.network.clock import waiting
from fedray.network.ledger import Event
from fedray.network.radio import Radio
from fedray.randomness import SERVER_ID
from fedray.schedule import Tier
from fedray.steps import SERVER_NODE, Aggregate, Send, Train


class Stage(NamedTuple):
    """A transfer or a local update of a client under way."""

    load: float  # bytes or floating-point operations
    start_s: float
    end_s: float
    joules: float
    outcome: str  # as in Event
    waits_s: float = 0.0


@dataclass
class Flight:
    """A client from the second at which the server begins to send it a model until its update has arrived.

    Attributes:
        client: by number.
        version: of the model that it gets: how many server steps made it.
        steps: downlink, local update, uplink.
        stages: what has been done of them.
    """

    client: int
    version: int
    steps: tuple[Send, Train, Send]
    stages: list[Stage] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """Of the last stage."""
        return self.stages[-1].outcome

    @property
    def end_s(self) -> float:
        return self.stages[-1].end_s


class ServerStep(NamedTuple):
    """A round: who has arrived, in the order of (time, client), and the server's own step."""

    flights: list[Flight]
    aggregate: Aggregate
    stage: Stage
    versions: frozenset[int]  # of the models that clients under way had from the server
    tier: Tier | None = None  # whose clients they are, where groups of clients begin together


def events_of(round_number: int, step: ServerStep, started_s: float, radio: Radio) -> list[Event]:
    """Lines of the timeline of a server step: those of clients that have ended in it, who may have begun
    before it, and its own.

    Args:
        round_number: of the step.
        step: what has ended in it.
        started_s: when the step before it had ended.
        radio: the devices.
    """
    events = [
        event
        for flight in step.flights
        for event in (_event(round_number, flight, i) for i in range(len(flight.steps)))
    ]
    stage = step.stage
    own = Event(
        round_number, step.aggregate.id, step.aggregate.after, "aggregate", SERVER_NODE, None, None,
        stage.load, 0, stage.start_s, stage.end_s, stage.joules,
    )  # fmt: skip
    idle_s = stage.start_s - started_s
    joules = radio.server.section.idle_w * idle_s
    return [
        *events,
        own,
        *([waiting(round_number, SERVER_ID, stage.start_s, idle_s, joules)] if joules else []),
    ]


def _event(round_number: int, flight: Flight, i: int) -> Event:
    """A line of the timeline of one of a flight's steps; of one that was never begun, as skipped."""
    step = flight.steps[i]
    skipped = Stage(0.0, flight.end_s, flight.end_s, 0.0, "skipped")
    stage = flight.stages[i] if i < len(flight.stages) else skipped
    sends = isinstance(step, Send)
    return Event(
        round=round_number,
        id=step.id,
        after=step.after,
        event="send" if sends else "train",
        node=step.node,
        peer=getattr(step, "peer", None),
        direction=getattr(step, "direction", None),
        flops=0.0 if sends else stage.load,
        bytes=int(stage.load) if sends else 0,
        t0_s=stage.start_s,
        t1_s=stage.end_s,
        energy_j=stage.joules,
        outcome=stage.outcome,
        encoded=getattr(step, "encodes", False),
        client=flight.client,
        waits_s=stage.waits_s,
    )
