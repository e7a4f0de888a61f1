"""What the driver of a run holds: references, and the hosts that they go to."""

from typing import Any

from fedray.executors.ray.hosts import HostPool
from fedray.executors.versions import Versions
from fedray.planning.shared import Shared


class Driver(HostPool):
    """Attributes that submitting a round reads, and its end changes. `Any` stands for references to objects
    in Ray's store."""

    server: Any  # the actor
    layout: Any
    shared: Shared
    buffer: Any  # the global one
    state: Any  # the server's
    initial: Any  # the buffer before the first round
    initial_state: Any  # the server's then
    client_states: dict[int, Any]
    versions: Versions
    can_train: int  # clients that can train at all
    parts: int  # in which a host is asked for its clients of a round
    group: str | None  # in which the hosts reduce among themselves
    attempt: int  # at rounds of a split, through the run
