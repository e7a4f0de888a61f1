"""Split rounds: who is asked for what, and what goes from whom to whom. Nothing here knows of actors."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fedray.executors import DataFailure, TrainReport
from fedray.schedule import Schedule
from fedray.steps import SERVER_NODE, Pass, Send

Ask = Callable[..., Any]  # a method's name, then its arguments: what it gives, or a reference to it


class Asked(NamedTuple):
    """A round that has been asked for."""

    reports: dict[int, Any]  # each client's of its turn, in the order in which turns end
    ends: dict[int, Any]  # the parts that go back to the server
    states: dict[int, Any]  # what each client keeps of its turn


def failed(schedule: Schedule, e: DataFailure, samples: Sequence[int]) -> TrainReport:
    """The report of a client that had to be left out."""
    assert e.client is not None
    return TrainReport(
        schedule.round, e.client, samples[e.client], 0, math.nan, failure=str(e), stage=e.stage
    )


def ask(
    schedule: Schedule,
    buffer: Any,
    state: Any,
    client_states: Mapping[int, Any],
    attempt: int,
    client: Callable[[int], Ask],
    server: Ask,
) -> Asked:
    """Asks clients and server for a round's passes in the schedule's order, which is the clock's. A value
    goes to the step that waits for it; whatever fails reaches all behind it.

    Args:
        schedule: the round's.
        buffer: the global one.
        state: the server's.
        client_states: what clients kept of their last turn.
        attempt: the number of the attempt at a round, through the run.
        client: gives what calls the worker of a client.
        server: calls the server.
    """
    reports = dict[int, Any]()
    ends = dict[int, Any]()
    states = dict[int, Any]()
    values: dict[str, Any] = {}  # by the id of the step that leaves it; dropped once it has been passed on
    # A batch's way back and the next one's first pass are one request: nobody else has to know of what is in
    # between.
    next_: dict[str, Pass] = {
        s.after[0]: s
        for s in schedule
        if isinstance(s, Pass) and s.stage == "front" and s.batch and not s.part
    }
    server("begin", attempt, schedule.round, buffer, state)
    for step in schedule:
        if isinstance(step, Send):
            if step.state:
                values[step.id] = client_states.get(step.sender)
            elif not step.after:
                values[step.id] = buffer
            elif step.crossing:
                values[step.id] = values.pop(step.after[0])
            else:  # a turn has ended
                turn = step.sender
                values[step.id], reports[turn], states[turn] = client(turn)(
                    "end", schedule.round, turn, values.pop(step.after[0])
                )
                if step.peer == SERVER_NODE:
                    ends[turn] = values.pop(step.id)
        elif isinstance(step, Pass) and step.id not in values:
            # A front behind another's waits for its device alone: what that one left goes to the server.
            arrived = [None] if step.stage == "front" and step.part else [values.pop(i) for i in step.after]
            if step.begins_turn and len(arrived) == 1:  # it goes on with its own
                arrived.append(client_states.get(step.client))
            if step.node == SERVER_NODE:
                values[step.id] = server("go", attempt, schedule.round, step, *arrived)
            else:
                then = next_.get(step.id)
                values[(then or step).id] = client(step.client)("go", schedule.round, step, then, *arrived)
    return Asked(reports, ends, states)
