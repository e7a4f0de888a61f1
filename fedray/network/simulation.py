"""A round as a discrete-event simulation: when each step of a schedule starts and ends."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, cast

from fedray.schedule import Schedule
from fedray.steps import Aggregate, Send

NOBODY: Mapping[int, float] = {}
Duration = Callable[[int, float], float]  # seconds of the step at this place if it starts at this second


class Timing(NamedTuple):
    """Starts and ends of all steps, by their places in the schedule, in seconds since the round's start."""

    start_s: list[float]
    end_s: list[float]
    skipped: set[int]  # what they needed never came
    late: set[int]  # ended after the round had closed
    failed: set[int]  # server steps that too few inputs reached in time
    left: dict[int, float]  # steps whose client left, or had left, with the part of each that was done


@dataclass(eq=False)
class Resource:
    """A processor, or one direction of a client's link: it serves one step at a time, first come first
    served."""

    busy: bool = False
    waiting: deque[int] = field(default_factory=deque)


class Simulation:
    """The rules of a round:

    - A step begins when all that it waits for has ended (`_end`).
    - A step whose input is unusable (lost, or of a device that dropped out) is skipped: it takes no time, and
      what needs its result is skipped too. A transfer needs the first step it waits for, any other step all.
    - A client may leave (`leaves_s`): what it does then, or is sent, ends there and is unusable (`_start`).
    - A device computes one thing at a time, and each direction of a link carries one: a step that has begun
      starts when its resource is free (`_request`, `_start`).
    - A server step begins at its deadline, or with its first `min_updates` usable inputs, whatever is still
      missing (`_reach_deadline`). What ends later, or is one too many, is late; but not what waits for that
      server step.
    - A server step that misses a quorum fails, and what waits for it is skipped (`_close`).

    Events at the same second happen in the order in which they were scheduled.
    """

    def __init__(
        self,
        schedule: Schedule,
        duration_s: Duration,
        unusable: Collection[int] = (),
        leaves_s: Mapping[int, float] = NOBODY,
    ) -> None:
        self.steps = schedule.steps
        self.duration_s = duration_s
        self.servers = {i: step for i, step in enumerate(self.steps) if isinstance(step, Aggregate)}
        self.awaited = self._awaited(schedule)
        self.leaves_s = {client: at for client, at in leaves_s.items() if math.isfinite(at)}
        self.doers = schedule.doers if self.leaves_s else [()] * len(schedule.steps)
        self.left: dict[int, float] = {}
        self.missing = [len(inputs) for inputs in self.awaited]  # inputs that have not ended yet
        self.followers: list[list[int]] = [[] for _ in self.steps]  # the steps that wait for each
        for i, inputs in enumerate(self.awaited):
            for awaited in inputs:
                self.followers[awaited].append(i)
        self.resources = _shared_resources(schedule)
        self.min_updates: dict[int, int] = {}
        self.arrived: Counter[int] = Counter()  # usable inputs of server steps that begin with `min_updates`
        # by a server step, its server's own work among what it waits for
        self.beside: dict[int, set[int]] = {}
        self.unusable = set(unusable)  # and the skipped
        self.skipped: set[int] = set()
        self.failed: set[int] = set()
        self.closed_s: dict[int, float] = {}  # when each server step began
        self.in_time = set[int]()  # inputs of server steps that have ended
        self.place = {step.id: i for i, step in enumerate(self.steps)}
        # transfers that another step must have come in time for
        self.given = {
            i: self.place[step.given]
            for i, step in enumerate(self.steps)
            if isinstance(step, Send) and step.given is not None
        }
        self.start_s = [0.0] * len(self.steps)
        self.end_s = [math.inf] * len(self.steps)  # of what has not ended
        self.now_s = 0.0
        self.events: list[tuple[float, int, Callable[[Any], None], Any]] = []  # a heap
        self.numbers = count()  # of events, to tell apart those of the same second

    def run(self) -> Timing:
        self._set_conditions()
        first = [i for i, missing in enumerate(self.missing) if not missing and not self._has_deadline(i)]
        for i in sorted(first, key=lambda i: self.duration_s(i, 0.0)):
            self._begin(i)
        while self.events:
            self.now_s, _, happen, subject = heapq.heappop(self.events)
            happen(subject)
        return Timing(self.start_s, self.end_s, self.skipped, self._late(), self.failed, self.left)

    def _awaited(self, schedule: Schedule) -> list[list[int]]:
        """The places of the steps that each step waits for."""
        return schedule.before

    def _set_conditions(self) -> None:
        """What lets server steps begin before all inputs are there."""
        for i, server in self.servers.items():
            self.beside[i] = {self.place[name] for name in server.beside}
            if server.min_updates is not None:
                self.min_updates[i] = server.min_updates
            if server.deadline_s is not None:
                self._schedule(server.deadline_s, self._reach_deadline, i)

    def _has_deadline(self, i: int) -> bool:
        return i in self.servers and self.servers[i].deadline_s is not None

    def _schedule(self, delay_s: float, happen: Callable[[Any], None], subject: Any) -> None:
        heapq.heappush(self.events, (self.now_s + delay_s, next(self.numbers), happen, subject))

    def _reach_deadline(self, server: int) -> None:
        self._begin(server)

    def _begin(self, i: int) -> None:
        """Nothing keeps a step waiting any more, but perhaps its resource."""
        if i in self.servers:
            if i in self.closed_s:
                return
            self.closed_s[i] = self.now_s
        if i in self.resources:
            self._request(self.resources[i], i)
        else:
            self._start(i)

    def _request(self, resource: Resource, i: int) -> None:
        resource.waiting.append(i)
        self._serve(resource)

    def _serve(self, resource: Resource) -> None:
        """A resource that is free takes the step that has waited longest."""
        if resource.waiting and not resource.busy:
            resource.busy = True
            self._schedule(0.0, self._start, resource.waiting.popleft())

    def _start(self, i: int) -> None:
        self.start_s[i] = self.now_s
        seconds = self.duration_s(i, self.now_s)
        leaves_s = min((self.leaves_s.get(client, math.inf) for client in self.doers[i]), default=math.inf)
        if leaves_s < self.now_s + seconds:
            there_s = max(0.0, leaves_s - self.now_s)
            self.left[i] = there_s / seconds if seconds else 0.0
            self.unusable.add(i)
            seconds = there_s
        self._schedule(seconds, self._finish, i)

    def _finish(self, i: int) -> None:
        if i in self.resources:
            self.resources[i].busy = False
            self._schedule(0.0, self._serve, self.resources[i])
        self._end(i)

    def _end(self, i: int) -> None:
        """A step ends; those that waited for it alone begin, or are skipped, which ends them at once too."""
        self.end_s[i] = self.now_s
        if i in self.servers:
            self._close(i)
        waiting = [(i, follower) for follower in reversed(self.followers[i])]
        while waiting:
            ended, follower = waiting.pop()
            self.missing[follower] -= 1
            if follower in self.min_updates and ended not in self.unusable:
                self.arrived[follower] += ended not in self.beside[follower]
                if self._has_enough(follower):
                    self._begin(follower)
            if self.missing[follower]:
                continue
            if (self.unusable or self.given) and self._lacks_input(follower):
                self._skip(follower)
                waiting += [(follower, next_) for next_ in reversed(self.followers[follower])]
            else:
                self._begin(follower)

    def _has_enough(self, server: int) -> bool:
        """Whether a server step with `min_updates` has them, and all that it waits for beside them."""
        enough = self.arrived[server] >= self.min_updates[server]
        return enough and all(self.end_s[i] <= self.now_s for i in self.beside[server])

    def _close(self, server: int) -> None:
        """A server step has ended: which of its inputs came in time, and whether they are enough."""
        self.in_time |= (in_time := self._inputs_in_time(server))
        for quorum in self.servers[server].quorums:
            asked = quorum.given is None or self.place[quorum.given] not in self.unusable
            if asked and sum(self.place[i] in in_time for i in quorum.inputs) < quorum.least:
                self._fail(server)

    def _inputs_in_time(self, server: int) -> set[int]:
        beside = self.beside.get(server, set())
        usable = [i for i in self.awaited[server] if i not in self.unusable]
        ends = sorted((self.end_s[i], i) for i in usable if i not in beside)
        first = {i for end_s, i in ends[: self.min_updates.get(server)] if end_s <= self.closed_s[server]}
        # which keeps the server's processor from the step itself
        own = {i for i in beside.intersection(usable) if self.end_s[i] <= self.start_s[server]}
        return first | own

    def _fail(self, server: int) -> None:
        self.failed.add(server)
        self.unusable.add(server)

    def _lacks_input(self, i: int) -> bool:
        if i in self.servers:
            return False
        if i in self.given and self.given[i] not in self.in_time:
            return True
        needed = self.awaited[i][:1] if isinstance(self.steps[i], Send) else self.awaited[i]
        return not self.unusable.isdisjoint(needed)

    def _skip(self, i: int) -> None:
        self.skipped.add(i)
        self.unusable.add(i)
        self.start_s[i] = self.end_s[i] = self.now_s

    def _late(self) -> set[int]:
        late: set[int] = set()
        for server in self.servers:
            if not self._has_deadline(server) and server not in self.min_updates:
                continue  # it waited for all
            closed_s = self.closed_s[server]
            usable = {i for i in self.awaited[server] if i not in self.unusable}
            in_time = self._inputs_in_time(server)
            if in_time < usable:
                late |= {
                    i for i, end_s in enumerate(self.end_s) if end_s > closed_s and i not in self.servers
                }
                late |= usable - in_time
                late -= in_time
                late -= self._behind(server)
        return late

    def _behind(self, step: int) -> set[int]:
        """All that waits for a step."""
        behind: set[int] = set()
        waiting = [step]
        while waiting:
            new = [i for i in self.followers[waiting.pop()] if i not in behind]
            behind.update(new)
            waiting += new
        return behind


class Replay(Simulation):
    """A round that was decided on another network: each server step waits for the inputs that came in time
    there, and until its deadline where it had one."""

    def __init__(
        self, schedule: Schedule, duration_s: Duration, unusable: Collection[int], decided: Sequence[str]
    ) -> None:
        """
        Args:
            schedule: the round's steps.
            duration_s: seconds of the step at a place if it starts at a second.
            unusable: the places of steps that leave nothing of use.
            decided: what became of each step there (see Event.outcome).
        """
        self.decided = decided
        super().__init__(schedule, duration_s, unusable)

    def _awaited(self, schedule: Schedule) -> list[list[int]]:
        awaited = list(schedule.before)
        for server in self.servers:
            awaited[server] = [i for i in awaited[server] if self.decided[i] == "done"]
        return awaited

    def _close(self, server: int) -> None:
        if self.decided[server] == "failed":
            self._fail(server)

    def _lacks_input(self, i: int) -> bool:
        return self.decided[i] == "skipped" or super()._lacks_input(i)

    def _set_conditions(self) -> None:
        self.given = {i: i for i, outcome in enumerate(self.decided) if outcome == "skipped"}
        for i, server in self.servers.items():
            if server.deadline_s is not None:
                self.missing[i] += 1
                self._schedule(server.deadline_s, self._reach_deadline, i)

    def _reach_deadline(self, server: int) -> None:
        self.missing[server] -= 1
        if not self.missing[server]:
            self._begin(server)

    def _late(self) -> set[int]:
        return {i for i, outcome in enumerate(self.decided) if outcome == "late"}


def _shared_resources(schedule: Schedule) -> dict[int, Resource]:
    """The resource of each step that another step uses too."""
    resources: dict[int, Resource] = {}
    users = [schedule.computing]  # of processors, then of each direction's links: clients by places
    for places in schedule.sends.values():
        users.append({i: cast(Send, schedule.steps[i]).client for i in places})
    for clients in users:
        counts = Counter(clients.values())
        shared = {client: Resource() for client, uses in counts.items() if uses > 1}
        if shared:
            resources |= {i: shared[client] for i, client in clients.items() if client in shared}
    return resources
